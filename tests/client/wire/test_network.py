"""Sockets: large reads, TLS, and causes that people understand."""

from __future__ import annotations

import asyncio
import socket
import ssl
from pathlib import Path

import httpcore
import pytest

from client.wire.network import READ_SIZE, Backend, Stream
from tests.client.scripted import serving

CERTIFICATE = Path(__file__).parents[1] / "localhost.pem"
BLOB = bytes(range(256)) * 16_384


def server_tls() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    return context


def client_tls() -> ssl.SSLContext:
    return ssl.create_default_context(cafile=CERTIFICATE)


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while (data := await reader.read(65536)) not in (b"", b"end"):
        writer.write(data)
        await writer.drain()


async def read_exactly(stream: httpcore.AsyncNetworkStream, size: int) -> bytes:
    got = bytearray()
    while len(got) < size:
        piece = await stream.read(1, timeout=30)
        assert piece
        assert len(piece) <= READ_SIZE * 2
        got += piece
    return bytes(got)


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "TLS"])
async def test_what_is_written_comes_back_whole(secure: bool):
    async with serving(echo, server_tls() if secure else None) as port:
        stream = await Backend().connect_tcp("localhost", port, timeout=30)
        if secure:
            stream = await stream.start_tls(client_tls(), "localhost", timeout=30)
            assert stream.get_extra_info("ssl_object").version() == "TLSv1.3"
        async with asyncio.TaskGroup() as group:
            reading = group.create_task(read_exactly(stream, len(BLOB)))
            group.create_task(stream.write(BLOB, timeout=30))
        assert reading.result() == BLOB
        await stream.write(b"end", timeout=30)
        assert await stream.read(1, timeout=30) == b""
        assert secure or stream.get_extra_info("is_readable")
        await stream.aclose()


async def test_a_certificate_that_nobody_trusts_is_said_to_be_so():
    async with serving(echo, server_tls()) as port:
        stream = await Backend().connect_tcp("127.0.0.1", port)
        with pytest.raises(httpcore.ConnectError, match="its certificate is not trusted: self-signed"):
            await stream.start_tls(ssl.create_default_context(), "localhost", timeout=30)


async def test_tls_to_a_server_that_speaks_plain_http_is_said_to_fail():
    async with serving(echo) as port:
        stream = await Backend().connect_tcp("127.0.0.1", port)
        with pytest.raises(httpcore.ConnectError, match="TLS failed"):
            await stream.start_tls(client_tls(), "localhost", timeout=30)


async def test_a_tls_connection_that_is_cut_is_no_end():
    async def cut(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"x")
        await writer.drain()
        writer.transport.abort()

    async with serving(cut, server_tls()) as port:
        stream = await Backend().connect_tcp("127.0.0.1", port)
        stream = await stream.start_tls(client_tls(), "localhost", timeout=30)
        with pytest.raises(httpcore.ReadError):
            await read_exactly(stream, 2)
        await stream.aclose()


async def test_a_silent_server_is_not_waited_for_without_end():
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with theirs:
        stream = Stream(ours)
        with pytest.raises(httpcore.ReadTimeout, match=r"no answer within 0\.01 s"):
            await stream.read(1, timeout=0.01)
        assert not stream.get_extra_info("is_readable")
        await stream.aclose()


async def test_a_port_where_nobody_listens_is_refused():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(httpcore.ConnectError, match="connection refused"):
        await Backend().connect_tcp("127.0.0.1", port, timeout=30)


@pytest.mark.parametrize("host", ["host.invalid", "x" * 64 + ".invalid"])
async def test_a_name_that_nobody_knows_does_not_resolve(host: str):
    with pytest.raises(httpcore.ConnectError):
        await Backend().connect_tcp(host, 80, timeout=30)


async def test_each_address_of_a_name_is_tried_until_one_answers():
    async with serving(echo) as port:
        backend = Backend()
        option = (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        # No name stands for this machine: [::1], where nobody listens, and 127.0.0.1.
        stream = await backend.connect_tcp(None, port, timeout=30, socket_options=[option])
        assert stream.get_extra_info("socket").getpeername() == ("127.0.0.1", port)
        await stream.aclose()
        await backend.sleep(0)
