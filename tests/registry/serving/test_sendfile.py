"""Files on their way to clients on real sockets: whole, in part, slowly, and not to their end."""

from __future__ import annotations

import os
import ssl
import threading
from pathlib import Path
from typing import Any

import pytest

from registry.serving.exchange import PATHSEND, SMALL_FILE
from tests.support.host import (
    BIG,
    GET,
    answering,
    eventually,
    hang_up,
    next_answer,
    open_files,
    read,
    read_all,
    sending,
    tls_files,
)


@pytest.mark.parametrize("size", [0, 1, 5_000, SMALL_FILE, SMALL_FILE + 1, BIG])
def test_a_file_arrives_whole(serve: Any, tmp_path: Path, size: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(os.urandom(size))
    connection = serve(sending(path)).connect()
    for _ in range(2):
        connection.sendall(GET)
        status, headers, body = read(connection)
        assert (status, headers["content-length"], body) == (200, str(size), path.read_bytes())


@pytest.mark.parametrize(
    ("offset", "count"), [(0, 1), (7, 100), (1, BIG - 1), (BIG - 3, 3), (BIG // 2, 1 << 20), (5, 0)]
)
def test_a_part_of_a_file_arrives(serve: Any, big: Path, offset: int, count: int) -> None:
    connection = serve(sending(big, offset=offset, count=count)).connect()
    connection.sendall(GET)
    assert read(connection)[2] == big.read_bytes()[offset : offset + count]


def test_a_file_deleted_while_it_is_sent_arrives_whole(serve: Any, big: Path) -> None:
    content = big.read_bytes()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        file = os.open(big, os.O_RDONLY)
        big.unlink()
        await send({"type": "http.response.start", "status": 200})
        await send({"type": PATHSEND, "file": file})

    connection = serve(app).connect()
    connection.sendall(GET)
    assert read(connection)[2] == content
    eventually(lambda: not open_files(big.parent))


def test_an_application_may_answer_404_when_its_file_is_missing(serve: Any, tmp_path: Path) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            await sending(tmp_path / "no")(scope, receive, send)
        except FileNotFoundError:
            await answering(b"none", 404)(scope, receive, send)

    async def late(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        with pytest.raises(FileNotFoundError):
            await send({"type": PATHSEND, "path": str(tmp_path / "no")})
        await send({"type": "http.response.body", "body": b"instead"})

    for each, body in ((app, b"none"), (late, b"instead")):
        connection = serve(each).connect()
        connection.sendall(GET)
        assert read(connection)[2] == body


@pytest.mark.parametrize(
    "message", [{"offset": BIG, "count": 1}, {"offset": -1, "count": 1}, {"offset": 1, "count": -1}]
)
def test_a_part_that_is_not_in_the_file_is_a_500(serve: Any, big: Path, message: Any) -> None:
    connection = serve(sending(big, **message)).connect()
    connection.sendall(GET)
    assert read(connection)[0] == 500
    eventually(lambda: not open_files(big.parent))


def test_head_tells_the_length_and_sends_no_body(serve: Any, big: Path) -> None:
    connection = serve(sending(big)).connect()
    connection.sendall(GET.replace(b"GET", b"HEAD") + GET)
    stream = connection.makefile("rb")
    status, headers, _ = next_answer(stream, "HEAD")
    assert (status, headers["content-length"]) == (200, str(BIG))
    assert next_answer(stream)[2] == big.read_bytes()


def test_slow_readers_hold_up_nobody_and_no_thread(serve: Any, big: Path) -> None:
    host = serve(sending(big))
    threads = threading.active_count()
    slow = [host.connect(receive_buffer=4096) for _ in range(32)]
    for connection in slow:
        connection.sendall(GET)
    for connection in slow:
        assert connection.recv(1)
    fast = host.connect()
    fast.sendall(GET)
    assert read(fast)[2] == big.read_bytes()
    assert threading.active_count() == threads


def test_a_slow_reader_gets_every_byte(serve: Any, big: Path) -> None:
    connection = serve(sending(big)).connect(receive_buffer=4096)
    connection.sendall(GET)
    assert read(connection)[2] == big.read_bytes()


def test_a_client_that_leaves_in_the_middle_leaves_nothing_open(serve: Any, big: Path) -> None:
    host = serve(sending(big))
    before = open_files()
    for _ in range(8):
        connections = [host.connect(receive_buffer=4096) for _ in range(8)]
        for connection in connections:
            connection.sendall(GET)
            assert connection.recv(1)
        for connection in connections:
            connection.close()
    eventually(lambda: open_files() == before and not host.state.tasks)


def test_a_client_that_leaves_while_its_next_request_waits_leaves_nothing_open(serve: Any, big: Path) -> None:
    host = serve(sending(big))
    connection = host.connect(receive_buffer=4096)
    connection.sendall(GET + GET)
    assert connection.recv(1)
    hang_up(connection)
    eventually(lambda: not open_files(big.parent) and not host.state.tasks)


def body_then_file(path: Path, body: bytes) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await (answering(body) if scope["path"] == "/body" else sending(path))(scope, receive, send)

    return app


BODY = bytes(60_000)  # more than the kernel's send buffer of these tests, less than the transport's


def test_a_file_waits_for_the_answer_before_it(serve: Any, big: Path) -> None:
    connection = serve(body_then_file(big, BODY), send_buffer=4096).connect(receive_buffer=4096)
    connection.sendall((GET.replace(b"/ ", b"/body ") + GET) * 2)
    stream = connection.makefile("rb")
    assert [next_answer(stream)[2] for _ in range(4)] == [BODY, big.read_bytes()] * 2


def test_a_client_may_leave_while_a_file_waits_for_the_answer_before_it(serve: Any, big: Path) -> None:
    host = serve(body_then_file(big, BODY), send_buffer=4096)
    connection = host.connect(receive_buffer=4096)
    connection.sendall(GET.replace(b"/ ", b"/body ") + GET)
    eventually(lambda: open_files(big.parent) == 1)
    hang_up(connection)
    eventually(lambda: not open_files(big.parent) and not host.state.tasks)


def test_a_file_that_shrinks_is_never_padded(serve: Any, big: Path, caplog: pytest.LogCaptureFixture) -> None:
    connection = serve(sending(big)).connect(receive_buffer=4096)
    connection.sendall(GET)
    assert connection.recv(1)
    os.truncate(big, 1 << 20)
    assert len(read_all(connection)) < BIG
    eventually(lambda: "bytes early" in caplog.text)
    eventually(lambda: not open_files(big.parent))


def test_a_small_file_shorter_than_it_says_is_a_500(serve: Any) -> None:
    path = Path("/sys/kernel/fscaps")  # says 4096 bytes, as all files there, and holds two
    connection = serve(sending(path)).connect()
    connection.sendall(GET)
    assert read(connection)[0] == 500


def test_a_file_that_cannot_be_read_cuts_the_answer(serve: Any, big: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": PATHSEND, "file": os.open(big, os.O_WRONLY)})

    connection = serve(app).connect()
    connection.sendall(GET)
    assert read_all(connection).endswith(b"\r\n\r\n")
    eventually(lambda: "Bad file descriptor" in caplog.text)


def test_a_shutdown_in_the_middle_cuts_the_transfer_and_closes_its_file(serve: Any, big: Path) -> None:
    host = serve(sending(big))
    connection = host.connect(receive_buffer=4096)
    connection.sendall(GET)
    assert connection.recv(1)
    host.cancel_all()
    assert len(read_all(connection)) < BIG
    eventually(lambda: not open_files(big.parent) and not host.state.connections)


@pytest.mark.parametrize("header", [(b"content-length", b"7"), (b"transfer-encoding", b"chunked")])
def test_a_length_that_is_not_the_files_is_a_500(serve: Any, big: Path, header: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [header]})
        await send({"type": PATHSEND, "path": str(big)})

    connection = serve(app).connect()
    connection.sendall(GET)
    assert read(connection)[0] == 500


@pytest.mark.peer("openssl")
def test_files_arrive_whole_over_tls(serve: Any, big: Path, tmp_path: Path) -> None:
    certificate, key = tls_files(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    trusting = ssl.create_default_context(cafile=str(certificate))
    host = serve(sending(big, offset=3), tls=context)
    with trusting.wrap_socket(host.connect(), server_hostname="127.0.0.1") as connection:
        for _ in range(2):
            connection.sendall(GET)
            assert read(connection)[2] == big.read_bytes()[3:]
    with trusting.wrap_socket(host.connect(), server_hostname="127.0.0.1") as connection:
        connection.sendall(GET)
        assert connection.recv(1)
        os.truncate(big, 1 << 20)
        assert len(read_all(connection)) < BIG
    os.truncate(big, BIG)
    with trusting.wrap_socket(host.connect(receive_buffer=4096), server_hostname="127.0.0.1") as connection:
        connection.sendall(GET)
        assert connection.recv(1)
    eventually(lambda: not open_files(big.parent) and not host.state.tasks)
