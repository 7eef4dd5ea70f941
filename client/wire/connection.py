"""Connections of httpcore's pool whose large bodies a worker thread reads from the socket straight into a buffer.

httpcore's parser copies each piece several times; receiving in a thread costs a quarter of that (docs/performance.md).
The parser still reads every head. After a body that went around it, it is replaced, and the connection stays in use.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor
from typing import Any, TypeAlias, cast

import httpcore

from client.wire.network import Backend, Stream
from storage.threads import ended

BUFFER = 1024 * 1024
# What is read along must not wait for a whole buffer: the first bytes are given at once, then twice as many each time,
# and all that came within so many seconds.
_FIRST = 16 * 1024
_AT_LEAST_EVERY = 0.1
KEEPALIVE = 30.0
# A host that sends less than this, in bytes a second, for so many seconds counts as one that sends nothing.
SLOWEST = 1024
PATIENCE = 60.0

# Takes the next bytes of a body, in a worker thread; the buffer is used again after it returns.
Sink: TypeAlias = Callable[[memoryview], None]


class Connection(httpcore.AsyncConnectionInterface):
    """One connection to an origin, opened with the first request."""

    def __init__(self, origin: httpcore.Origin, context: ssl.SSLContext | None) -> None:
        self._origin = origin
        self._context = context
        self._failed = False
        self._http: httpcore.AsyncHTTP11Connection | None = None
        self._stream: Stream | None = None
        # When a connection whose parser was replaced, and that waits for a request, is given up.
        self._fresh_until: float | None = None

    async def handle_async_request(self, request: httpcore.Request) -> httpcore.Response:
        if self._http is None:
            self._stream = await self._connect(request.extensions.get("timeout", {}).get("connect"))
            self._renew()
        elif not self.is_idle():
            # The pool gives a connection that is free to all who wait at that moment.
            raise httpcore.ConnectionNotAvailable
        self._fresh_until = None
        stream, http = cast("Stream", self._stream), cast("httpcore.AsyncHTTP11Connection", self._http)
        stream.expect_head()
        response = await http.handle_async_request(request)
        body = Body(self, stream, request, response)
        stream.end_head()
        extensions = {**response.extensions, "body": body}
        return httpcore.Response(response.status, headers=response.headers, content=body, extensions=extensions)

    async def aclose(self) -> None:
        self._failed, self._fresh_until = True, None
        if self._http:
            await self._http.aclose()

    def reuse(self) -> None:
        """Takes the next request: the body that went around the parser has been read to its end."""
        self._renew()
        self._fresh_until = time.monotonic() + KEEPALIVE

    def info(self) -> str:
        return self._http.info() if self._http else f"{str(self._origin)!r}, not connected"

    def can_handle_request(self, origin: httpcore.Origin) -> bool:
        return origin == self._origin

    def is_available(self) -> bool:
        return self.is_idle()

    def has_expired(self) -> bool:
        if self._fresh_until is None:
            return bool(self._http and self._http.has_expired())
        return time.monotonic() > self._fresh_until or bool(self._stream and self._stream.get_extra_info("is_readable"))

    def is_idle(self) -> bool:
        return self._fresh_until is not None or bool(self._http and self._http.is_idle())

    def is_closed(self) -> bool:
        return self._failed or bool(self._http and self._http.is_closed())

    def _renew(self) -> None:
        self._http = httpcore.AsyncHTTP11Connection(self._origin, cast("Stream", self._stream), KEEPALIVE)

    async def _connect(self, timeout: float | None) -> Stream:  # noqa: ASYNC109 httpcore's
        host = self._origin.host.decode("ascii")
        try:
            stream = await Backend().connect_tcp(host, self._origin.port, timeout)
            if self._context:
                self._context.set_alpn_protocols(["http/1.1"])
                stream = await stream.start_tls(self._context, host, timeout)
        except BaseException:
            # What was never connected counts as closed, so that the pool lets it go.
            self._failed = True
            raise
        return cast("Stream", stream)


class Body:
    """The body of one response: read by httpcore in pieces, or by `receive` as a whole."""

    def __init__(
        self, connection: Connection, stream: Stream, request: httpcore.Request, response: httpcore.Response
    ) -> None:
        self._connection = connection
        self._stream = stream
        self._response = response
        self._headers = {name.lower(): value for name, value in response.headers}
        self._received = False
        self._whole = False
        self.size = self._plain_size() if request.method == b"GET" else None

    def __aiter__(self) -> AsyncIterator[bytes]:
        return aiter(cast("Any", self._response.stream))

    async def aclose(self) -> None:
        if not self._received:
            await cast("Any", self._response.stream).aclose()
        elif self._whole and self._stays_open():
            self._connection.reuse()
        else:
            await self._connection.aclose()

    async def receive(self, sink: Sink, silence: float, executor: Executor) -> None:
        """Reads all `size` bytes in a thread of `executor`; cancelled, it returns when the thread has ended.

        Raises:
            httpcore.ReadError, httpcore.ReadTimeout: it ended early, after what came was given to the sink.
            LayerhouseError: what the sink raises.
        """
        self._received = True
        loop = asyncio.get_running_loop()
        running = loop.run_in_executor(executor, self._drain, sink, silence)
        try:
            await asyncio.shield(running)
        except asyncio.CancelledError:
            self._stream.abort()
            await ended(running)
            if not running.cancelled():
                running.exception()
            raise

    def _drain(self, sink: Sink, silence: float) -> None:
        left = self.size or 0
        buffer, wanted, pace = memoryview(bytearray(min(BUFFER, left))), _FIRST, _Pace()
        while left:
            filled, broken = self._fill(buffer[: min(wanted, left)], silence, pace)
            if filled:
                sink(buffer[:filled])
            left -= filled
            if broken:
                raise broken
            wanted = min(2 * wanted, len(buffer))
        self._whole = True

    def _fill(self, view: memoryview, silence: float, pace: _Pace) -> tuple[int, Exception | None]:
        """Returns how many bytes came, some at least, and why no more will."""
        filled, began = 0, time.monotonic()
        while filled < len(view):
            try:
                count = self._stream.receive_into(view[filled:], _AT_LEAST_EVERY if filled else silence)
            except httpcore.ReadTimeout as error:
                return filled, None if filled else error
            except (httpcore.NetworkError, httpcore.TimeoutException) as error:
                return filled, error
            if count == 0:
                return filled, httpcore.ReadError("the connection was closed")
            filled += count
            now = time.monotonic()
            if pace.is_too_slow(count, now):
                return filled, httpcore.ReadTimeout(f"only {pace.came} bytes came in {PATIENCE:.0f} s")
            if now > began + _AT_LEAST_EVERY:
                break
        return filled, None

    def _stays_open(self) -> bool:
        """Whether the server will take another request (RFC 9112, section 9.3)."""
        said = [value.lower() for name, value in self._response.headers if name.lower() == b"connection"]
        return self._response.extensions["http_version"] != b"HTTP/1.0" and b"close" not in b",".join(said)

    def _plain_size(self) -> int | None:
        """The length of a body that nothing but its bytes travels with; None where the parser has to read it."""
        length = self._headers.get(b"content-length", b"")
        plain = self._stream.at_body and b"transfer-encoding" not in self._headers
        return int(length) if plain and self._response.status in (200, 206) and length.isdigit() else None


class _Pace:
    """How much comes in every stretch of `PATIENCE` seconds."""

    def __init__(self) -> None:
        self.came = 0
        self._began = time.monotonic()

    def is_too_slow(self, count: int, now: float) -> bool:
        """Whether, with these bytes, a whole stretch brought less than `SLOWEST` bytes a second."""
        self.came += count
        waited = now - self._began
        if waited <= PATIENCE:
            return False
        if self.came < SLOWEST * waited:
            return True
        self.came, self._began = 0, now
        return False
