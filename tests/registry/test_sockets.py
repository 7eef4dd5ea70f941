"""The whole registry behind real sockets: what only shows with a server, a kernel and a client that hangs up."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.images import MANIFEST, Wire, push_image, sha256
from tests.support.processes import RegistryProcess

DATA = bytes(range(256)) * 8192
DIGEST = sha256(DATA)


NONSENSE = [
    b"GET /v2/\xff\xfe/manifests/v1 HTTP/1.1",
    b"GET /v2/a\nb HTTP/1.1",
    b"GET /v2/a\x00b HTTP/1.1",
    b"GET /v2/a\tb HTTP/1.1",
    b'GET /v2/" 200 0 0.1ms forged HTTP/1.1',
    b'GET /v2/"forged HTTP/1.1',
    b"GET http://[/v2/ HTTP/1.1",
    b"GET * HTTP/1.1",
    b"GET /v2/%0a2026-01-01T00:00:00.000Z%20info%20forged HTTP/1.1",
    b"CONNECT a:1 HTTP/1.1",
    b"OPTIONS * HTTP/1.1",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"PUT /v2/a/manifests/v1 HTTP/1.1\r\nContent-Length: many",
    b"PUT /v2/a/manifests/v1 HTTP/1.1\r\nContent-Length: 99999999999999999999999",
    b"PUT /v2/a/manifests/v1 HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked",
]


@pytest.fixture
def server(registry_server: Callable[..., RegistryProcess]) -> RegistryProcess:
    return registry_server()


def raw(server: RegistryProcess, sent: bytes) -> bytes:
    """Everything the server answers to these bytes, once the client has no more to say."""
    host, port = server.host.split(":")
    with closing(socket.create_connection((host, int(port)), timeout=30)) as connection:
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def test_one_connection_pushes_and_pulls_whole_and_in_ranges(server: RegistryProcess) -> None:
    with Wire(server.host) as wire:
        wire.push_blob("image", DATA)
        path = f"/v2/image/blobs/{DIGEST}"
        assert wire.ask("GET", path, expect=200).body == DATA
        for first, last in ((0, 0), (1, 99_999), (100_000, len(DATA) - 1)):
            answer = wire.ask("GET", path, expect=206, Range=f"bytes={first}-{last}")
            assert answer.body == DATA[first : last + 1]
            assert answer.headers["content-range"] == f"bytes {first}-{last}/{len(DATA)}"
        assert wire.ask("GET", path, expect=206, Range="bytes=-5").body == DATA[-5:]
        assert wire.ask("GET", path, expect=416, Range=f"bytes={len(DATA)}-").headers["content-range"]
        for method in ("HEAD", "GET"):
            assert wire.ask(method, path, expect=304, If_None_Match=DIGEST).body == b""
        head = wire.ask("HEAD", path, expect=200)
        assert (head.headers["content-length"], head.body) == (str(len(DATA)), b"")


def test_an_error_to_head_leaves_no_bytes_for_the_next_answer(server: RegistryProcess) -> None:
    with Wire(server.host) as wire:
        for path in ("/v2/image/manifests/none", f"/v2/image/blobs/{DIGEST}", "/v2/none", "/v2/UPPER/tags/list"):
            assert wire.ask("HEAD", path).status in (400, 404)
            assert wire.ask("GET", "/v2/", expect=200).body == b"{}"


def test_what_arrived_before_the_connection_broke_is_kept_and_gone_on_with(server: RegistryProcess) -> None:
    with Wire(server.host) as wire:
        location = wire.ask("POST", "/v2/image/blobs/uploads/", expect=202).headers["location"]
        raw(
            server,
            b"PATCH %b HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999\r\n\r\n" % location.encode() + DATA[:700_000],
        )
        deadline = time.monotonic() + 30
        while wire.ask("GET", location, expect=204).headers["range"] != "0-699999":
            assert time.monotonic() < deadline
        rest = DATA[700_000:]
        wire.ask("PATCH", location, rest, expect=202, Content_Range=f"700000-{len(DATA) - 1}")
        wire.ask("PUT", f"{location}?digest={DIGEST}", expect=201, Content_Length="0")
        assert wire.blob("image", DIGEST) == len(DATA)


def test_a_client_that_asks_first_need_not_send_what_is_refused(server: RegistryProcess) -> None:
    head = f"PUT /v2/image/manifests/v1 HTTP/1.1\r\nHost: a\r\nContent-Type: {MANIFEST}\r\n"
    answer = raw(server, f"{head}Content-Length: 5000000\r\nExpect: 100-continue\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"100 Continue" not in answer


def test_nonsense_is_refused_and_forges_no_line_of_the_log(server: RegistryProcess) -> None:
    for line in NONSENSE:
        answer = raw(server, line + b"\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert re.match(rb"HTTP/1\.1 4\d\d ", answer) or not answer, line
        with Wire(server.host) as wire:
            wire.ask("GET", "/v2/", expect=200)
    server.stop()
    lines = server.log(100_000).splitlines()
    begin = re.compile(r'time="\d{4}-\d\d-\d\dT[\d:.]+Z" level=(debug|info|warning) msg=')
    assert [each for each in lines if not begin.match(each)] == []
    assert not [each for each in lines if re.search(r'msg="?forged|Traceback|duration="?0\.1ms', each)]
    answered = 'http.request.method="GET" http.request.uri="/v2/" http.response.status=200 http.response.written=2 '
    assert len([each for each in lines if answered in each]) == len(NONSENSE)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_broken_disk_is_a_clean_error_to_the_client_and_a_traceback_to_the_operator(
    registry_server: Callable[..., RegistryProcess], workers: int
) -> None:
    server = registry_server(workers=workers)
    repositories = server.root / "docker/registry/v2/repositories"
    repositories.mkdir(parents=True)
    (repositories / "image").write_text("a file where a folder has to be")
    with Wire(server.host) as wire:
        answer = wire.ask("POST", "/v2/image/blobs/uploads/", expect=500)
        (error,) = json.loads(answer.body)["errors"]
        assert error["code"] == "UNKNOWN"
        assert str(server.root).encode() not in answer.body
        assert b"Traceback" not in answer.body
        wire.ask("POST", "/v2/other/blobs/uploads/", expect=202)
    server.stop()
    log = server.log(100_000)
    assert error["detail"]["request"] in log
    assert "Traceback" in log
    assert "ocispec.errors." in log


def test_chunks_of_one_upload_go_through_whatever_worker_takes_them(
    registry_server: Callable[..., RegistryProcess],
) -> None:
    server = registry_server(workers=2)
    with Wire(server.host) as wire:
        location = wire.ask("POST", "/v2/image/blobs/uploads/", expect=202).headers["location"]
    for first in range(0, len(DATA), 200_000):
        chunk = DATA[first : first + 200_000]
        with Wire(server.host) as wire:
            span = f"{first}-{first + len(chunk) - 1}"
            wire.ask("PATCH", location, chunk, expect=202, Content_Range=span)
    with Wire(server.host) as wire:
        wire.ask("PUT", f"{location}?digest={DIGEST}", expect=201, Content_Length="0")
        assert wire.blob("image", DIGEST) == len(DATA)


def test_everything_acknowledged_is_there_after_a_restart(server: RegistryProcess) -> None:
    digest = push_image(server.host, "image", "v1", [b"layer"])
    server.kill()
    server.start(server.host)
    with Wire(server.host) as wire:
        assert wire.manifest("image", "v1").headers["docker-content-digest"] == digest


def test_a_server_without_a_config_listens_on_this_machine_alone(server: RegistryProcess) -> None:
    assert server.host.startswith("127.0.0.1:")
    assert Path(server.root).is_dir()
