"""What a client on a real socket may send, and how long it may be silent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.host import (
    GET,
    answering,
    next_answer,
    read,
    read_all,
    sending,
)


def test_pipelined_requests_are_answered_in_order(serve: Any, big: Path) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        chosen = sending(big) if scope["path"] == "/big" else answering(scope["path"].encode())
        await chosen(scope, receive, send)

    connection = serve(app).connect()
    paths = [b"/one", b"/big", b"/two", b"/big", b"/three"]
    connection.sendall(b"".join(b"GET %b HTTP/1.1\r\nhost: a\r\n\r\n" % path for path in paths))
    stream = connection.makefile("rb")
    for path in paths:
        assert next_answer(stream)[2] == (big.read_bytes() if path == b"/big" else path)


def test_a_client_of_http_1_0_is_answered_and_closed(serve: Any) -> None:
    connection = serve(answering(b"yes")).connect()
    connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
    assert read_all(connection).endswith(b"connection: close\r\ncontent-length: 3\r\n\r\nyes")


def test_paths_are_decoded_and_queries_kept(serve: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen = f"{scope['path']} {scope['raw_path'].decode()} {scope['query_string'].decode()}"
        await answering(seen.encode())(scope, receive, send)

    connection = serve(app).connect()
    connection.sendall(b"GET /a%2Fb%20c?d=%20e HTTP/1.1\r\nhost: a\r\n\r\n")
    assert read(connection)[2] == b"/a/b c /a%2Fb%20c d=%20e"


NOT_HTTP = [b"\x16\x03\x01\x02\x00", b"GET nowhere HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\n: a\r\n\r\n"]


@pytest.mark.parametrize("request_bytes", NOT_HTTP)
def test_what_is_not_http_is_a_400(serve: Any, request_bytes: bytes) -> None:
    connection = serve(answering(b"yes")).connect()
    connection.sendall(request_bytes)
    assert read(connection)[0] == 400
    assert read_all(connection) == b""


@pytest.mark.parametrize("start", [b"GET /", b"GET / HTTP/1.1\r\nx: "])
def test_an_endless_head_is_refused(serve: Any, start: bytes) -> None:
    connection = serve(answering(b"yes")).connect()
    connection.sendall(start + b"a" * 60_000)
    connection.sendall(b"a" * 10_000)
    assert read(connection)[0] == 400


def test_nonsense_behind_a_request_never_mixes_with_its_answer(serve: Any, big: Path) -> None:
    connection = serve(sending(big)).connect(receive_buffer=4096)
    connection.sendall(GET)
    assert connection.recv(1)
    connection.sendall(b"\x00\x00nonsense\r\n\r\n")
    received = b"H" + read_all(connection)
    body = received.partition(b"\r\n\r\n")[2]
    assert big.read_bytes().startswith(body)


@pytest.mark.parametrize("sent", [b"", b"GET / HT", GET])
def test_a_silent_connection_is_closed(serve: Any, sent: bytes) -> None:
    connection = serve(answering(b"yes"), keep_alive=0.05).connect()
    connection.sendall(sent)
    assert read_all(connection).endswith(b"yes" if sent == GET else b"")
