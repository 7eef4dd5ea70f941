"""Large bodies that go around the parser: every byte of them, nothing else, and the connection stays in use."""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeAlias

import pytest

from client.wire import connection
from client.wire.exchange import Request
from client.wire.transport import HttpTransport
from ocispec.errors import DigestMismatch, HostUnreachable
from tests.client.scripted import serving
from tests.client.wire.test_network import CERTIFICATE, server_tls

DATA = random.Random(1).randbytes(3_000_000)
GET = f"HTTP/1.1 200 OK\r\nContent-Length: {len(DATA)}\r\n\r\n".encode()

Write: TypeAlias = Callable[[asyncio.StreamWriter], Awaitable[object]]


class Server:
    """Answers each request with what `answers` says, in order; the last one again and again."""

    def __init__(self) -> None:
        self.answers: list[bytes | Write] = [GET + DATA]
        self.requests = 0
        self.connections = 0
        self.closing = False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        while True:
            await reader.readuntil(b"\r\n\r\n")
            self.requests += 1
            answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            if callable(answer):
                await answer(writer)
            else:
                writer.write(answer)
            await writer.drain()
            if self.closing:
                return


@pytest.fixture(params=[False, True], ids=["plain", "TLS"])
def tls(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext | None:
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
    return server_tls() if request.param else None


@asynccontextmanager
async def running(
    tls: ssl.SSLContext | None, silence: float = 30, connections: int = 4
) -> AsyncIterator[tuple[Server, HttpTransport, str]]:
    server = Server()
    async with serving(server.serve, tls) as port:
        opened = HttpTransport(connections, silence=silence)
        try:
            yield server, opened, f"{'https' if tls else 'http'}://127.0.0.1:{port}/x"
        finally:
            await opened.aclose()


async def fetch(opened: HttpTransport, url: str, method: str = "GET") -> bytes:
    got = bytearray()
    async with opened.send(Request(method, url)) as response:
        await response.pour(got.extend)
    return bytes(got)


async def test_many_large_bodies_come_over_one_connection(tls: ssl.SSLContext | None):
    async with running(tls) as (server, opened, url):
        for _ in range(4):
            assert await fetch(opened, url) == DATA
        assert (server.requests, server.connections) == (4, 1)


async def test_small_bodies_and_heads_in_between_use_it_too(tls: ssl.SSLContext | None):
    small = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nsmall"
    async with running(tls) as (server, opened, url):
        server.answers = [GET + DATA, small, GET + DATA, GET, b"HTTP/1.1 204 No\r\n\r\n", small]
        assert await fetch(opened, url) == DATA
        assert await fetch(opened, url) == b"small"
        assert await fetch(opened, url) == DATA
        assert await fetch(opened, url, "HEAD") == b""
        assert await fetch(opened, url) == b""
        assert await fetch(opened, url) == b"small"
        assert server.connections == 1


async def test_several_at_once_each_have_a_connection_and_later_ones_use_them(tls: ssl.SSLContext | None):
    async with running(tls) as (server, opened, url):
        for _ in range(3):
            assert await asyncio.gather(*(fetch(opened, url) for _ in range(4))) == [DATA] * 4
        assert server.requests == 12
        assert server.connections == 4


async def test_two_that_are_given_one_connection_at_once_do_not_disturb_each_other():
    async with running(None, connections=1) as (server, opened, url):
        small = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nsmall"
        server.answers = [GET + DATA, GET + DATA, small, GET + DATA, small]
        found = await asyncio.gather(*(fetch(opened, url) for _ in range(6)))
        assert sorted(map(len, found)) == [5, 5, 5, *[len(DATA)] * 3]
        assert server.connections == 1


@pytest.mark.parametrize("header", ["Connection: close", "Connection: keep-alive\r\nconnection: foo, Close"])
async def test_a_connection_that_the_server_closes_is_not_used_again(header: str):
    async with running(None) as (server, opened, url):
        server.answers = [f"HTTP/1.1 200 OK\r\n{header}\r\nContent-Length: {len(DATA)}\r\n\r\n".encode() + DATA]
        assert await fetch(opened, url) == DATA
        assert await fetch(opened, url) == DATA
        assert server.connections == 2


async def test_a_server_of_http_1_0_is_taken_to_close():
    async with running(None) as (server, opened, url):
        server.answers = [f"HTTP/1.0 200 OK\r\nContent-Length: {len(DATA)}\r\n\r\n".encode() + DATA]
        assert await fetch(opened, url) == DATA
        assert await fetch(opened, url) == DATA
        assert server.connections == 2


async def test_a_body_without_length_ends_with_the_connection(tls: ssl.SSLContext | None):
    async with running(tls) as (server, opened, url):
        server.answers, server.closing = [b"HTTP/1.1 200 OK\r\n\r\n" + DATA], True
        assert await fetch(opened, url) == DATA


async def test_a_chunked_body_is_read_by_the_parser(tls: ssl.SSLContext | None):
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(each), each) for each in (DATA[:70_000], DATA[70_000:]))
    async with running(tls) as (server, opened, url):
        server.answers = [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n", GET + DATA]
        assert await fetch(opened, url) == DATA
        assert await fetch(opened, url) == DATA
        assert server.connections == 1


async def test_informational_heads_before_the_response_are_passed_over(tls: ssl.SSLContext | None):
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n"

    async def apart(writer: asyncio.StreamWriter) -> None:
        for piece in (hints[:20], hints[20:] + GET[:30], GET[30:] + DATA):
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.01)

    async with running(tls) as (server, opened, url):
        server.answers = [hints + hints + GET + DATA, apart, GET + DATA]
        for _ in range(3):
            assert await fetch(opened, url) == DATA
        assert server.connections == 1


async def test_a_head_that_ends_with_bare_newlines_is_read_by_the_parser():
    bare = GET.replace(b"\r\n", b"\n")
    async with running(None) as (server, opened, url):
        server.answers = [bare + DATA[:-4] + b"\r\n\r\n", bare + DATA]
        assert await fetch(opened, url) == DATA[:-4] + b"\r\n\r\n"
        assert await fetch(opened, url) == DATA


async def test_the_body_of_such_a_response_is_not_kept(monkeypatch: pytest.MonkeyPatch):
    streams = []
    made = connection.Body.__init__

    def spied(self: connection.Body, *arguments: object) -> None:
        streams.append(arguments[1])
        made(self, *arguments)

    monkeypatch.setattr(connection.Body, "__init__", spied)
    async with running(None) as (server, opened, url):
        server.answers = [GET.replace(b"\r\n", b"\n") + DATA]
        assert await fetch(opened, url) == DATA
        assert streams[0]._head is None


@pytest.mark.parametrize("piece", ["at every byte", "with the body's first bytes", "byte by byte"])
async def test_a_head_may_come_in_any_pieces(piece: str):
    body = DATA[:300_000]
    head = f"HTTP/1.1 200 OK\r\nX-Y: 1\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    cuts = [[at] for at in range(1, len(head) + 9)] if piece != "byte by byte" else [list(range(1, len(head)))]
    if piece == "with the body's first bytes":
        cuts = [[len(head) + 1], [len(head) - 1, len(head) + 100], [len(head) + 250_000]]

    def sending(at: list[int]) -> Write:
        async def send(writer: asyncio.StreamWriter) -> None:
            answer = head + body
            for start, end in zip([0, *at], [*at, len(answer)], strict=True):
                writer.write(answer[start:end])
                await writer.drain()
                await asyncio.sleep(0.0005)

        return send

    async with running(None) as (server, opened, url):
        server.answers = [sending(each) for each in cuts]
        for _ in cuts:
            assert await fetch(opened, url) == body
        assert server.connections == 1


@pytest.mark.parametrize("extra", [b"x", b"HTTP/1.1 200 OK\r\n\r\n"])
async def test_a_connection_that_says_more_than_it_was_asked_is_given_up(extra: bytes):
    async with running(None) as (server, opened, url):
        server.answers = [GET + DATA + extra, GET + DATA]
        assert await fetch(opened, url) == DATA
        assert await fetch(opened, url) == DATA
        assert server.connections == 2


@pytest.mark.parametrize("kept", [0, 1, 300_000, len(DATA) - 1])
async def test_a_body_that_breaks_off_gives_what_came_and_says_so(tls: ssl.SSLContext | None, kept: int):
    got = bytearray()
    async with running(tls) as (server, opened, url):
        server.answers, server.closing = [GET + DATA[:kept]], True
        async with opened.send(Request("GET", url)) as response:
            with pytest.raises(HostUnreachable, match=r"^127\.0\.0\.1:\d+ cannot be reached: "):
                await response.pour(got.extend)
        assert got == DATA[:kept]
        server.answers, server.closing = [GET + DATA], False
        assert await fetch(opened, url) == DATA


async def test_a_stall_is_a_clear_error_after_what_came(tls: ssl.SSLContext | None):
    got, over = bytearray(), asyncio.Event()

    async def stall(writer: asyncio.StreamWriter) -> None:
        writer.write(GET + DATA[:1_500_000])
        await writer.drain()
        await over.wait()

    async with running(tls, silence=0.2) as (server, opened, url):
        server.answers = [stall]
        async with opened.send(Request("GET", url)) as response:
            with pytest.raises(HostUnreachable, match=r"cannot be reached: nothing came for 0\.2 s"):
                await response.pour(got.extend)
        over.set()
    assert got == DATA[:1_500_000]


async def test_a_trickle_below_the_slowest_counts_as_a_stall(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(connection, "PATIENCE", 0.2)

    async def trickle(writer: asyncio.StreamWriter) -> None:
        writer.write(GET)
        for at in range(1000):
            writer.write(DATA[at : at + 1])
            await writer.drain()
            await asyncio.sleep(0.01)

    async with running(None) as (server, opened, url):
        server.answers = [trickle]
        with pytest.raises(HostUnreachable, match=r"only \d+ bytes came in 0 s"):
            await fetch(opened, url)


async def test_a_slow_host_that_goes_on_is_waited_for():
    async def slow(writer: asyncio.StreamWriter) -> None:
        for at in range(0, len(GET + DATA), 200_000):
            writer.write((GET + DATA)[at : at + 200_000])
            await writer.drain()
            await asyncio.sleep(0.03)

    async with running(None, silence=0.3) as (server, opened, url):
        server.answers = [slow]
        assert await fetch(opened, url) == DATA


async def test_cancelled_in_the_middle_no_thread_goes_on_and_the_next_request_is_served(tls: ssl.SSLContext | None):
    got, over = bytearray(), asyncio.Event()

    async def stall(writer: asyncio.StreamWriter) -> None:
        writer.write(GET + DATA[:2_000_000])
        await writer.drain()
        await over.wait()

    async def take(opened: HttpTransport, url: str) -> None:
        async with opened.send(Request("GET", url)) as response:
            await response.pour(got.extend)

    async with running(tls) as (server, opened, url):
        server.answers = [stall, GET + DATA]
        taking = asyncio.create_task(take(opened, url))
        while not got:
            await asyncio.sleep(0.001)
        taking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await taking
        held = len(got)
        over.set()
        assert await fetch(opened, url) == DATA
        assert len(got) == held


async def test_what_the_sink_raises_ends_the_transfer_and_the_connection(tls: ssl.SSLContext | None):
    def refuse(data: memoryview) -> None:
        raise DigestMismatch("enough")

    async with running(tls) as (server, opened, url):
        async with opened.send(Request("GET", url)) as response:
            with pytest.raises(DigestMismatch, match=r"^enough$"):
                await response.pour(refuse)
        assert await fetch(opened, url) == DATA
        assert server.connections == 2


async def test_a_body_that_nobody_reads_does_not_come_with_the_next_one():
    async with running(None) as (_, opened, url):
        async with opened.send(Request("GET", url)) as response:
            assert response.status == 200
        assert await fetch(opened, url) == DATA


async def test_a_connection_that_the_server_closed_meanwhile_is_replaced(tls: ssl.SSLContext | None):
    async with running(tls) as (server, opened, url):
        server.closing = True
        for _ in range(3):
            assert await fetch(opened, url) == DATA
            await asyncio.sleep(0.02)  # the end of the connection is on its way
        assert server.connections == 3


async def test_a_connection_that_was_not_used_for_long_is_replaced(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(connection, "KEEPALIVE", -1.0)
    async with running(None) as (server, opened, url):
        for _ in range(2):
            assert await fetch(opened, url) == DATA
        assert server.connections == 2


async def test_a_host_that_does_not_answer_leaves_room_in_the_pool():
    async with serving(Server().serve) as port:
        url = f"http://127.0.0.1:{port}/x"
    opened = HttpTransport(1)
    for _ in range(3):
        with pytest.raises(HostUnreachable, match="connection refused"):
            await fetch(opened, url)
    await opened.aclose()
