"""The first bytes of a connection: a TLS handshake, or an answer to who speaks plain HTTP where TLS is served."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from registry.serving.limits import Room
from registry.serving.listening import Address, TcpAddress, reaches
from registry.serving.tls import Certificates, TlsError, extension

PATIENCE = 30.0
"""Seconds that a client has for its handshake."""
_FAREWELL = 2.0
_HANDSHAKE = 0x16  # content type (RFC 8446, section 5.1)
_PLAIN = "Client sent an HTTP request to an HTTPS server.\n"
_ANSWER = (
    f"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\ncontent-length: {len(_PLAIN)}\r\n"
    f"connection: close\r\n\r\n{_PLAIN}"
).encode()
_log = logging.getLogger("registry")


class Handshake(asyncio.Protocol):
    """Makes a TLS connection of a TCP connection, and hands it to the protocol that is spoken over it.

    Args:
        speak: makes that protocol; it is told what an application is to know of TLS (ASGI), or nothing.
        certificates: what to serve TLS with.
        plain: the address where TLS is not served.
        connections: all of the server's; at its end it calls `shutdown` of each.
        tasks: all of the server's, which it waits for at its end.
        room: all that wait for a request, as this one does.

    Attributes:
        transport: the TCP connection.
    """

    def __init__(
        self,
        speak: Callable[..., asyncio.Protocol],
        certificates: Certificates,
        plain: Address | None,
        connections: set[Any],
        tasks: set[asyncio.Task[None]],
        *,
        room: Room,
    ) -> None:
        self._speak, self._certificates, self._plain = speak, certificates, plain
        self._connections, self._tasks, self._room = connections, tasks, room
        self._loop = asyncio.get_running_loop()
        self._take: Callable[[bytes], None] = self._begin
        self._early: list[bytes] = []
        self._is_lost = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as asyncio calls it
        self.transport = transport
        if self._is_plain():
            self._hand_over(transport, self._speak())
            return
        self._connections.add(self)
        self._clock = self._loop.call_later(PATIENCE, transport.abort)
        self._room.waits(self)
        if not self._room.has_place(len(self._connections)):
            transport.abort()

    def connection_lost(self, _error: Exception | None) -> None:
        self._is_lost = True
        self._clock.cancel()
        self._connections.discard(self)
        self._room.works(self)

    def data_received(self, data: bytes) -> None:
        self._take(data)

    def eof_received(self) -> None:
        """Let the transport close: the client left before it asked for anything."""
        self._is_lost = True

    def shutdown(self) -> None:
        """End: nobody asked for anything yet."""
        self.transport.abort()

    give_way = shutdown

    def _begin(self, data: bytes) -> None:
        if data[0] != _HANDSHAKE:
            self._refuse()
            return
        self.transport.pause_reading()
        # From now on: what arrives together with the end of the handshake.
        self._take = self._early.append
        task = self._loop.create_task(self._encrypt(data))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _refuse(self) -> None:
        self._clock.cancel()
        self._clock = self._loop.call_later(_FAREWELL, self.transport.abort)
        # Closed while there is something to read, the connection would be reset, and the answer lost.
        self._take = _forget
        self.transport.write(_ANSWER)
        self.transport.write_eof()

    async def _encrypt(self, first: bytes) -> None:
        transport = None
        try:
            transport = await self._start_tls(first)
        except TlsError as error:
            _log.error("no connection can be taken: %s", error.message)
        except OSError as error:
            _log.info("TLS handshake with %s failed: %s", self._client(), getattr(error, "reason", None) or error)
        finally:
            # TLS does not tell of a connection that was lost before the handshake's end.
            self._clock.cancel()
            self._connections.discard(self)
            self._room.works(self)
        if transport is None or self._is_lost:
            self.transport.abort()
        else:
            self._hand_over(transport, self._speak(tls=extension(transport.get_extra_info("ssl_object"))))

    async def _start_tls(self, first: bytes) -> asyncio.Transport | None:
        context = self._certificates.context
        starting = self._loop.start_tls(self.transport, self, context, server_side=True, ssl_handshake_timeout=PATIENCE)
        task = self._loop.create_task(starting)
        # Twice: after the step that puts TLS in place, and after what that step leaves to the loop.
        self._loop.call_soon(self._loop.call_soon, self._feed, first)
        return await task

    def _feed(self, data: bytes) -> None:
        """Give TLS what was read before it was there, as a transport gives it what it reads."""
        receiving: Any = self.transport.get_protocol()  # a BufferedProtocol in all but name
        left = memoryview(data)
        while left and receiving is not self and not self.transport.is_closing():
            buffer = receiving.get_buffer(len(left))
            count = min(len(buffer), len(left))
            buffer[:count] = left[:count]
            receiving.buffer_updated(count)
            left = left[count:]

    def _hand_over(self, transport: asyncio.Transport, speaking: asyncio.Protocol) -> None:
        transport.set_protocol(speaking)
        speaking.connection_made(transport)
        for data in self._early:
            speaking.data_received(data)

    def _is_plain(self) -> bool:
        local = self.transport.get_extra_info("sockname")
        return isinstance(self._plain, TcpAddress) and isinstance(local, tuple) and reaches(self._plain, *local[:2])

    def _client(self) -> str:
        peer = self.transport.get_extra_info("peername")
        return str(peer[0]) if isinstance(peer, tuple) else "a client"


def _forget(_data: bytes) -> None:
    """Drop what a client says whose answer is decided."""
