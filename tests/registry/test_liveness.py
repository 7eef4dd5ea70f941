"""`registry healthcheck` asks the registry that its configuration describes."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from registry.config.http import Http
from registry.liveness import Unanswered, check
from tests.support.authority import Authority
from tests.support.processes import RegistryProcess


@contextmanager
def answering(status: int, context: ssl.SSLContext | None = None) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("X-Path", self.path)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Silent."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        if context:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()


def test_a_registry_that_serves_is_alive(registry_server: Callable[..., RegistryProcess]) -> None:
    assert check(Http(addr=registry_server().host)).endswith("GET /v2/ answered 200 OK")


@pytest.mark.parametrize("status", [200, 401, 404])
def test_every_answer_below_500_is_a_sign_of_life(status: int) -> None:
    with answering(status) as addr:
        assert f"answered {status}" in check(Http(addr=addr, prefix="/images/"))


def test_who_cannot_serve_is_not_alive() -> None:
    with answering(503) as addr, pytest.raises(Unanswered, match=f"{addr}: GET /v2/ answered 503"):
        check(Http(addr=addr))


def test_nobody_there_is_not_alive() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        addr = f"127.0.0.1:{taken.getsockname()[1]}"
    with pytest.raises(Unanswered, match=f"{addr}: .*refused"):
        check(Http(addr=addr))


@pytest.mark.peer("openssl")
def test_a_certificate_for_another_name_is_no_matter(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.make("server", "server")
    with answering(200, authority.server()) as addr:
        assert "answered 200" in check(
            Http.model_validate({"addr": addr, "tls": {"certificate": certificate, "key": key}})
        )
