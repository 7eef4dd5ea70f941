"""Sockets for httpcore, which a worker thread can read into a buffer of its own.

What each piece costs on its way up through httpcore dominates a large transfer. So a response's head and small bodies
go that way, in pieces of up to 512 KiB, and large bodies go from the socket straight into a buffer (`receive_into`).
For that the stream ends what it gives to the parser where a head ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import socket
import ssl
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeAlias, cast

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
        self._head: bytearray | None = None
        self._kept = b""

    def expect_head(self) -> None:
        """From now on `read` gives no byte that follows a response's head, until the body begins."""
        self._head = bytearray()

    @property
    def at_body(self) -> bool:
        """Whether all of the head, and nothing behind it, was read; else the parser holds a part of the body."""
        return self._head is None

    def end_head(self) -> None:
        """The parser has the head: whatever follows is the body, also where the head ended in a way of its own."""
        self._head = None

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109 httpcore's signature
        """Returns up to `READ_SIZE` bytes: the parser takes pieces of any size."""
        del max_bytes
        data, self._kept = self._kept, b""
        if not data:
            async with _errors(httpcore.ReadError, httpcore.ReadTimeout, timeout):
                data = await self._receive_some()
        return data if self._head is None else self._up_to_body(data, self._head)

    def receive_into(self, view: memoryview, silence: float) -> int:
        """Waits for the next bytes, in a worker thread; returns how many there are, 0 at the end.

        Raises:
            httpcore.ReadTimeout: nothing came for `silence` seconds.
            httpcore.ReadError: the connection broke.
        """
        if self._kept:
            count = min(len(self._kept), len(view))
            view[:count], self._kept = self._kept[:count], self._kept[count:]
            return count
        with _explained(httpcore.ReadError):
            return self._receive_into(view, silence)

    def abort(self) -> None:
        """Wakes the thread that waits in `receive_into`: it finds the end."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    async def _receive_some(self) -> bytes:
        return await self._loop.sock_recv(self._socket, READ_SIZE)

    def _receive_into(self, view: memoryview, silence: float) -> int:
        while True:
            try:
                return self._socket.recv_into(view)
            except BlockingIOError:
                self._await_readable(silence)

    def _await_readable(self, silence: float) -> None:
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        if not poll.poll(silence * 1000):
            raise httpcore.ReadTimeout(f"nothing came for {silence:g} s")

    def _up_to_body(self, data: bytes, head: bytearray) -> bytes:
        before = len(head)
        head += data
        end = head.find(b"\r\n\r\n", max(0, before - 3))
        if end < 0:
            return data
        # After an informational head (RFC 9110, section 15.2) the response's own follows.
        self._head = bytearray() if head[9:10] == b"1" else None
        end += 4 - before
        self._kept = data[end:]
        return data[:end]

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
            if self._kept:
                return True
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

    async def _receive_some(self) -> bytes:
        while (data := self._decrypted()) is None:
            await self._flush()
            await self._receive()
        return data

    def _receive_into(self, view: memoryview, silence: float) -> int:
        while True:
            with contextlib.suppress(ssl.SSLWantReadError):
                # Typed as what `SSLSocket.read` gives where there is no buffer.
                return cast("int", self._tls.read(len(view), cast("bytearray", view)))
            if reply := self._outgoing.read():
                self._send(reply, silence)
            self._take(self._receive_encrypted(silence))

    def _receive_encrypted(self, silence: float) -> bytes:
        while True:
            try:
                return self._socket.recv(_TLS_RECORDS)
            except BlockingIOError:
                self._await_readable(silence)

    def _send(self, data: bytes, silence: float) -> None:
        # What TLS answers while it reads (a key update) is a few bytes, which the socket's buffer takes.
        self._socket.settimeout(silence)
        try:
            self._socket.sendall(data)
        finally:
            self._socket.setblocking(False)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109 httpcore's signature
        async with _errors(httpcore.WriteError, httpcore.WriteTimeout, timeout):
            for start in range(0, len(buffer), _TLS_RECORDS):
                self._tls.write(memoryview(buffer)[start : start + _TLS_RECORDS])
                await self._flush()

    def get_extra_info(self, info: str) -> Any:
        if info == "is_readable" and self._incoming.pending:
            return True
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
        self._take(await self._loop.sock_recv(self._socket, _TLS_RECORDS))

    def _take(self, data: bytes) -> None:
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
    with _explained(failure):
        try:
            async with asyncio.timeout(timeout):
                yield
        except TimeoutError as error:
            raise late(f"no answer within {timeout:g} s") from error


@contextmanager
def _explained(failure: _Failure) -> Iterator[None]:
    try:
        yield
    except ssl.SSLCertVerificationError as error:
        raise failure(f"its certificate is not trusted: {error.verify_message}") from error
    except ssl.SSLError as error:
        raise failure(f"TLS failed: {error.reason or error}") from error
    except socket.gaierror as error:
        raise failure(f"its name does not resolve: {error.strerror}") from error
    except (OSError, OverflowError, UnicodeError) as error:
        text = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
        raise failure(text[:1].lower() + text[1:]) from error
