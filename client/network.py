"""Sockets for httpcore that are read 512 KiB at a time.

httpcore's own backend reads 64 KiB at a time, and what each piece costs on its way up dominates a large transfer.
"""

from __future__ import annotations

import asyncio
import os
import select
import socket
import ssl
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import httpcore

READ_SIZE = 512 * 1024
_TLS_RECORDS = 256 * 1024
_Failure: TypeAlias = type[httpcore.NetworkError]
_Timeout: TypeAlias = type[httpcore.TimeoutException]


class Backend(httpcore.AsyncNetworkBackend):
    """Opens TCP connections on the running asyncio loop."""

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 httpcore's signature
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connects to the first address of `host` that answers; each gets an equal share of the timeout."""
        del local_address
        loop = asyncio.get_running_loop()
        async with _errors(httpcore.ConnectError, httpcore.ConnectTimeout, timeout):
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        failed: Exception = httpcore.ConnectError("it has no address")
        for family, kind, protocol, _, address in found:
            share = timeout and timeout / len(found)
            try:
                return await _connect(socket.socket(family, kind, protocol), address, share, socket_options or ())
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failed = error
        raise failed

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class Stream(httpcore.AsyncNetworkStream):
    """A connected socket."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._loop = asyncio.get_running_loop()

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109 httpcore's signature
        """Returns up to `READ_SIZE` bytes: the parser takes pieces of any size."""
        del max_bytes
        async with _errors(httpcore.ReadError, httpcore.ReadTimeout, timeout):
            return await self._loop.sock_recv(self._socket, READ_SIZE)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109 httpcore's signature
        async with _errors(httpcore.WriteError, httpcore.WriteTimeout, timeout):
            await self._loop.sock_sendall(self._socket, buffer)

    async def aclose(self) -> None:
        self._socket.close()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 httpcore's signature
    ) -> httpcore.AsyncNetworkStream:
        stream = TLSStream(self._socket, ssl_context, server_hostname)
        try:
            async with _errors(httpcore.ConnectError, httpcore.ConnectTimeout, timeout):
                await stream.handshake()
        except BaseException:
            self._socket.close()
            raise
        return stream

    def get_extra_info(self, info: str) -> Any:
        # A kept connection that can be read before the next request was closed by the server.
        if info == "is_readable":
            poll = select.poll()
            poll.register(self._socket, select.POLLIN)
            return bool(poll.poll(0))
        return self._socket if info == "socket" else None


class TLSStream(Stream):
    """A connected socket that speaks TLS."""

    def __init__(self, connected: socket.socket, context: ssl.SSLContext, hostname: str | None) -> None:
        super().__init__(connected)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=hostname)

    async def handshake(self) -> None:
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush()
                await self._receive()
            else:
                await self._flush()
                return

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109 httpcore's signature
        del max_bytes
        async with _errors(httpcore.ReadError, httpcore.ReadTimeout, timeout):
            while (data := self._decrypted()) is None:
                await self._flush()
                await self._receive()
            return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109 httpcore's signature
        async with _errors(httpcore.WriteError, httpcore.WriteTimeout, timeout):
            for start in range(0, len(buffer), _TLS_RECORDS):
                self._tls.write(memoryview(buffer)[start : start + _TLS_RECORDS])
                await self._flush()

    def get_extra_info(self, info: str) -> Any:
        return self._tls if info == "ssl_object" else super().get_extra_info(info)

    def _decrypted(self) -> bytes | None:
        """Takes what has come out of the records, 16 KiB each; nothing at the end, None where more must come first."""
        records: list[bytes] = []
        try:
            while record := self._tls.read(READ_SIZE):
                records.append(record)
        except ssl.SSLWantReadError:
            return b"".join(records) or None
        return b"".join(records)

    async def _receive(self) -> None:
        data = await self._loop.sock_recv(self._socket, _TLS_RECORDS)
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    async def _flush(self) -> None:
        if data := self._outgoing.read():
            await self._loop.sock_sendall(self._socket, data)


async def _connect(
    unconnected: socket.socket,
    address: Any,
    timeout: float | None,  # noqa: ASYNC109 one address's share of httpcore's
    options: Iterable[httpcore.SOCKET_OPTION],
) -> Stream:
    try:
        unconnected.setblocking(False)
        unconnected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for option in options:
            unconnected.setsockopt(*option)
        async with _errors(httpcore.ConnectError, httpcore.ConnectTimeout, timeout):
            await asyncio.get_running_loop().sock_connect(unconnected, address)
    except BaseException:
        unconnected.close()
        raise
    return Stream(unconnected)


@asynccontextmanager
async def _errors(failure: _Failure, late: _Timeout, timeout: float | None) -> AsyncIterator[None]:  # noqa: ASYNC109 one place for all
    try:
        async with asyncio.timeout(timeout):
            yield
    except TimeoutError as error:
        raise late(f"no answer within {timeout:g} s") from error
    except ssl.SSLCertVerificationError as error:
        raise failure(f"its certificate is not trusted: {error.verify_message}") from error
    except ssl.SSLError as error:
        raise failure(f"TLS failed: {error.reason or error}") from error
    except socket.gaierror as error:
        raise failure(f"its name does not resolve: {error.strerror}") from error
    except (OSError, OverflowError, UnicodeError) as error:
        text = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
        raise failure(text[:1].lower() + text[1:]) from error
