"""What a client on a real socket may send, and how long it may be silent."""

from __future__ import annotations

import asyncio
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from registry.serving.protocol import PIPELINE_LIMIT
from tests.support.host import (
    GET,
    WAIT,
    answering,
    eventually,
    hang_up,
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


def trickle(connection: socket.socket, piece: bytes) -> None:
    """Send a piece again and again, slowly, until the server has closed."""

    def closed() -> bool:
        try:
            connection.sendall(piece)
        except OSError:
            return True
        return False

    eventually(closed)


def test_a_head_that_trickles_in_is_not_waited_for_for_ever(serve: Any) -> None:
    connection = serve(answering(b"yes"), keep_alive=0.3).connect()
    connection.sendall(b"GET / HTTP/1.1\r\nx: ")
    trickle(connection, b"a")


def test_what_follows_an_early_answer_is_not_read_for_ever(serve: Any) -> None:
    connection = serve(answering(b"no", 401), keep_alive=0.3).connect()
    connection.sendall(b"PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000000000\r\n\r\n")
    assert read(connection)[0] == 401
    trickle(connection, bytes(1000))


def test_a_connection_that_breaks_leaves_no_clock_behind(serve: Any) -> None:
    host = serve(answering(b"yes"), keep_alive=3600)
    connections = [host.connect() for _ in range(4)]
    for connection in connections:
        connection.sendall(GET)
        assert read(connection)[0] == 200
    protocols = list(host.state.connections)
    for connection in connections:
        hang_up(connection)
    eventually(lambda: not host.state.connections)
    assert [each.timeout_keep_alive_task for each in protocols] == [None] * 4


def test_requests_are_read_no_faster_than_they_are_answered(serve: Any) -> None:
    read_so_far = 0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal read_so_far
        read_so_far = max(read_so_far, len(next(iter(host.state.connections)).pipeline))
        await receive()
        await answering(b"yes")(scope, receive, send)

    host = serve(app)
    connection = host.connect()
    padded = GET[:-2] + b"x: " + b"y" * 8000 + b"\r\n\r\n"
    asking = threading.Thread(target=connection.sendall, args=[padded * 500])
    asking.start()
    stream = connection.makefile("rb")
    for _ in range(500):
        assert next_answer(stream)[2] == b"yes"
    asking.join(WAIT)
    assert 0 < read_so_far <= PIPELINE_LIMIT


def test_who_asks_for_very_much_before_any_answer_is_cut_off(serve: Any) -> None:
    host = serve(answering(b"yes"))
    connection = host.connect()
    connection.sendall(GET * (PIPELINE_LIMIT + 2))
    assert read_all(connection).count(b"yes") <= PIPELINE_LIMIT
    eventually(lambda: not host.state.connections and not host.state.tasks)


def test_an_offer_of_another_protocol_is_passed_over(serve: Any, caplog: pytest.LogCaptureFixture) -> None:
    connection = serve(answering(b"yes")).connect()
    upgrade = b"connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n\r\n"
    connection.sendall(GET[:-2] + upgrade + GET)
    answer = read_all(connection)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"connection: close" in answer  # what follows could be anything: the client asks anew
    assert answer.count(b"yes") == 1
    assert not caplog.text


def test_a_field_behind_a_body_is_no_header(serve: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        while (await receive())["more_body"]:
            pass
        await answering(b" ".join(name for name, _ in scope["headers"]))(scope, receive, send)

    connection = serve(app).connect()
    connection.sendall(
        b"PUT / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\nauthorization: b\r\n\r\n"
    )
    assert read(connection)[2] == b"host transfer-encoding"


AMBIGUOUS = [
    b"content-length: 5\r\ntransfer-encoding: chunked",
    b"transfer-encoding: chunked\r\ncontent-length: 5",
    b"content-length: 5\r\ncontent-length: 6",
    b"content-length: 5, 6",
    b"content-length: +5",
    b"content-length: 0x5",
    b"content-length: -5",
    b"content-length: 5 5",
    b"content-length : 5",
    b"transfer-encoding: xchunked",
    b"transfer-encoding: chunked, identity",
    b"transfer-encoding : chunked",
    b"transfer-encoding: chunked\r\ntransfer-encoding: identity",
    b"x: y\r\n content-length: 5",
    b"x: \x00",
]


@pytest.mark.parametrize("fields", AMBIGUOUS)
def test_a_request_that_two_readers_could_end_differently_is_refused(serve: Any, fields: bytes) -> None:
    connection = serve(answering(b"yes")).connect()
    connection.sendall(b"PUT / HTTP/1.1\r\nhost: a\r\n" + fields + b"\r\n\r\n0\r\n\r\n" + GET)
    answer = read_all(connection)
    assert not answer or answer.startswith(b"HTTP/1.1 400 ")
    assert b"yes" not in answer


def test_who_has_said_all_and_still_listens_is_answered(serve: Any) -> None:
    said = threading.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.to_thread(said.wait, WAIT)
        await answering(b"yes")(scope, receive, send)

    connection = serve(app).connect()
    connection.sendall(GET + GET)
    connection.shutdown(socket.SHUT_WR)
    threading.Timer(0.2, said.set).start()
    assert read_all(connection).count(b"yes") == 2
