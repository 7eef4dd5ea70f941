"""Bodies and answers on real sockets, whole or broken off."""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
import time
from typing import Any

import pytest

from registry.serving.exchange import BODY_PIECE
from tests.support.host import (
    BIG,
    GET,
    WAIT,
    answering,
    next_answer,
    read,
    read_all,
)


class Uploads:
    """An application that takes bodies and remembers the sizes of the pieces."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.disconnected = threading.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        digest = hashlib.sha256()
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.disconnected.set()
                return
            await asyncio.to_thread(digest.update, message["body"])
            self.sizes.append(len(message["body"]))
            more = message["more_body"]
        await answering(digest.hexdigest().encode())(scope, receive, send)


@pytest.mark.parametrize("chunked", [False, True])
def test_an_upload_arrives_whole_and_in_large_pieces(serve: Any, chunked: bool) -> None:
    uploads, content = Uploads(), os.urandom(BIG + 12345)
    connection = serve(uploads).connect()
    if chunked:
        pieces = [content[start : start + 32768] for start in range(0, len(content), 32768)]
        body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
        connection.sendall(b"PATCH / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n" + body)
    else:
        connection.sendall(b"PATCH / HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n%b" % (len(content), content))
    assert read(connection)[2] == hashlib.sha256(content).hexdigest().encode()
    assert min(uploads.sizes[:-1]) >= BODY_PIECE
    assert max(uploads.sizes) < 2 * BODY_PIECE
    connection.sendall(GET)
    assert read(connection)[0] == 200


def test_what_arrived_before_a_disconnect_is_handed_over(serve: Any) -> None:
    uploads = Uploads()
    connection = serve(uploads).connect()
    connection.sendall(b"PATCH / HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000\r\n\r\n" + bytes(70_000))
    connection.close()
    assert uploads.disconnected.wait(WAIT)
    assert sum(uploads.sizes) == 70_000


def test_a_client_that_asks_is_told_to_continue(serve: Any) -> None:
    connection = serve(Uploads()).connect()
    connection.sendall(b"PUT / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\n")
    assert connection.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
    connection.sendall(b"abc")
    assert read(connection)[2] == hashlib.sha256(b"abc").hexdigest().encode()


def test_an_answer_before_the_body_lets_the_next_request_through(serve: Any) -> None:
    connection = serve(answering(b"no", 401)).connect()
    connection.sendall(b"PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: 3000000\r\n\r\n" + bytes(3_000_000) + GET)
    stream = connection.makefile("rb")
    assert [next_answer(stream)[0] for _ in range(2)] == [401, 401]


def test_a_stream_without_length_is_chunked(serve: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        for piece in (b"one ", b"", b"two"):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body"})

    connection = serve(app).connect()
    for _ in range(2):
        connection.sendall(GET)
        status, headers, body = read(connection)
        assert (status, headers["transfer-encoding"], body) == (200, "chunked", b"one two")


def test_a_stream_larger_than_the_buffers_waits_for_its_reader(serve: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-length", b"%d" % (64 << 20)), (b"connection", b"close")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for _ in range(64):
            await send({"type": "http.response.body", "body": bytes(1 << 20), "more_body": True})
        await send({"type": "http.response.body"})

    connection = serve(app).connect(receive_buffer=4096)
    connection.sendall(GET)
    assert len(read(connection)[2]) == 64 << 20
    assert read_all(connection) == b""


@pytest.mark.parametrize(("status", "headers"), [(204, []), (304, [(b"content-length", b"77")])])
def test_statuses_without_a_body_have_none(serve: Any, status: int, headers: Any) -> None:
    connection = serve(answering(b"", status, headers)).connect()
    connection.sendall(GET + GET)
    stream = connection.makefile("rb")
    for _ in range(2):
        seen, told, _ = next_answer(stream)
        assert (seen, "transfer-encoding" in told) == (status, False)


@pytest.mark.parametrize("header", [(b"x", b"a\r\nset-cookie: b"), (b"x\r\ny", b"a"), (b"x", b"a\nb"), (b"x", b"\x00")])
def test_no_value_smuggles_in_a_header(serve: Any, header: Any) -> None:
    connection = serve(answering(b"", headers=[header])).connect()
    connection.sendall(GET)
    assert read(connection)[0] == 500


def failing(*messages: Any) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in messages:
            await send(message)
        raise ValueError("a fault")

    return app


START = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"10")]}


@pytest.mark.parametrize(
    "app",
    [
        failing(),
        failing(START),
        failing(START, {"type": "http.response.body", "body": b"12345678901"}),
        failing(START, {"type": "http.response.body", "body": b"123"}),
        failing({"type": "http.response.body", "body": b"1"}),
        failing(START, START),
        failing({"type": "http.response.unheard-of"}),
    ],
    ids=["at once", "started", "too long", "too short", "no start", "two starts", "unknown"],
)
def test_a_fault_before_the_first_byte_is_a_500(serve: Any, app: Any, caplog: pytest.LogCaptureFixture) -> None:
    connection = serve(app).connect()
    connection.sendall(GET)
    assert read(connection)[0] == 500
    assert "Traceback" in caplog.text


def test_a_fault_after_the_first_byte_cuts_the_connection(serve: Any) -> None:
    connection = serve(failing(START, {"type": "http.response.body", "body": b"123", "more_body": True})).connect()
    connection.sendall(GET)
    assert read_all(connection).endswith(b"\r\n\r\n123")


@pytest.mark.parametrize(("value", "answers"), [(b"close", 1), (b"keep-alive", 2)])
def test_an_application_may_close_the_connection(serve: Any, value: bytes, answers: int) -> None:
    connection = serve(answering(b"yes", headers=[(b"connection", value)]), keep_alive=0.05).connect()
    connection.sendall(GET + GET)
    assert read_all(connection).count(b"yes") == answers


def test_an_application_that_does_not_answer_is_a_500(serve: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        pass

    connection = serve(app).connect()
    connection.sendall(GET)
    assert read(connection)[0] == 500


@pytest.mark.parametrize("more", [True, False])
def test_nobody_is_told_to_continue_in_the_middle_of_an_answer(serve: Any, more: bool) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"6")]})
        await send({"type": "http.response.body", "body": b"abc" if more else b"abcdef", "more_body": more})
        await receive()
        if more:
            await send({"type": "http.response.body", "body": b"def"})

    connection = serve(app).connect()
    connection.sendall(b"PUT / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\n")
    stream = connection.makefile("rb")
    connection.sendall(b"xyz")
    assert next_answer(stream)[2] == b"abcdef"
    connection.sendall(GET)
    assert next_answer(stream)[2] == b"abcdef"


def test_a_fault_in_an_answer_without_a_body_is_a_whole_500(serve: Any) -> None:
    connection = serve(answering(b"", 204, [(b"x", b"a\nb")])).connect()
    connection.sendall(GET)
    assert read(connection)[2] == b"Internal Server Error"


def test_an_upload_that_stopped_is_cut_off_with_all_that_arrived(serve: Any) -> None:
    uploads = Uploads()
    connection = serve(uploads, patience=0.3).connect()
    connection.sendall(b"PATCH / HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000\r\n\r\n" + bytes(70_000))
    assert uploads.disconnected.wait(WAIT)
    assert sum(uploads.sizes) == 70_000
    assert read_all(connection) == b""


def test_a_slow_upload_that_goes_on_is_waited_for(serve: Any) -> None:
    connection = serve(Uploads(), patience=0.3).connect()
    connection.sendall(b"PATCH / HTTP/1.1\r\nhost: a\r\ncontent-length: 40\r\n\r\n")
    for _ in range(40):
        time.sleep(0.02)
        connection.sendall(b"a")
    assert read(connection)[2] == hashlib.sha256(b"a" * 40).hexdigest().encode()
