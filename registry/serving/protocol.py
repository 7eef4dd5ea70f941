"""uvicorn's HTTP/1.1 protocol, answering with `Exchange` and bounding what a client may send and wait for."""

import asyncio
import logging
from typing import Any
from urllib.parse import unquote

import httptools
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from registry.serving.exchange import PATHSEND, Exchange
from registry.serving.limits import Bounds, Room, busy
from registry.serving.listening import unmapped

PIPELINE_LIMIT = 64
"""Requests that may wait for the answers before theirs: each costs a hundred times what it takes to send it."""

_HANDSHAKE = 0x16  # content type (RFC 8446, section 5.1)
_log = logging.getLogger("registry")


class RegistryProtocol(HttpToolsProtocol):
    """HTTP/1.1 parsed by httptools and answered by `Exchange`.

    Args:
        patience: seconds until a client is cut off that sends nothing of the body that an application waits for.
        bounds: what a connection may ask for.
        room: all connections that wait for a request.
        tls: what applications are told of a connection that is encrypted (ASGI's TLS extension).
        uvicorns: what uvicorn gives its protocols.
    """

    def __init__(
        self, *, patience: float, bounds: Bounds, room: Room, tls: dict[str, Any] | None = None, **uvicorns: Any
    ) -> None:
        super().__init__(**uvicorns)
        self._patience, self._least = patience, max(1, round(patience * bounds.body_rate))
        self._head_bytes, self._room = bounds.head_bytes, room
        self._extensions: dict[str, Any] = {PATHSEND: {}} if tls is None else {PATHSEND: {}, "tls": tls}
        self._serving: Exchange | None = None
        self._unparsed = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        super().connection_made(transport)
        if self.client is not None:
            self.client = unmapped(self.client[0]), self.client[1]
        # A whole head has to be there when this ends, and so after each answer: uvicorn would wait for it for ever.
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)
        self._room.waits(self)
        if not self._room.has_place(len(self.connections)):
            self.app = busy

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._room.works(self)
        self._unset_keepalive_if_required()
        if self._serving is not None:
            self._serving.lost()

    def give_way(self) -> None:
        """End for another connection: no request is in progress, but what was answered may be on its way."""
        if self.transport.get_write_buffer_size():
            self.transport.close()
        else:
            self.transport.abort()

    def eof_received(self) -> bool:  # type: ignore[override]  # as asyncio's
        """Keep the way back open for a client that has said all; one that left is noticed when it is written to."""
        waits = self.cycle is not None and not (self.cycle.response_complete or self.cycle.more_body)
        if waits:
            self.cycle.keep_alive = False
        return waits and self.scheme == "http"

    def data_received(self, data: bytes) -> None:
        if data[0] == _HANDSHAKE and self.cycle is None and not self._unparsed:
            # No fault: docker asks every registry by TLS first, those on its own machine too.
            _log.debug("%s speaks TLS, which is not served at this address", self.client and self.client[0])
            self.send_400_response("TLS is not served at this address.")
            return
        # Kept from uvicorn, which would stop the clock at each byte.
        clock, self.timeout_keep_alive_task = self.timeout_keep_alive_task, None
        self._unparsed += len(data)
        super().data_received(data)
        if self.cycle is None or self.cycle.response_complete:
            self.timeout_keep_alive_task = clock
        elif clock is not None:
            clock.cancel()
        if self._unparsed > self._head_bytes and not self.transport.is_closing():
            self.send_400_response("Request head too large.")

    def send_400_response(self, msg: str) -> None:
        if self._serving is None or self._serving.response_complete:
            super().send_400_response(msg)
        else:
            # A response is on its way, and nothing may come between its bytes.
            self.transport.abort()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = self._extensions.copy()

    def on_headers_complete(self) -> None:
        if len(self.pipeline) >= PIPELINE_LIMIT:
            raise ValueError("too many requests wait for the answers before theirs")
        if self._unparsed > self._head_bytes and _size(self.url, self.headers) > self._head_bytes:
            raise ValueError("the head is too large")
        self._unparsed = 0
        self._room.works(self)
        version = self.parser.get_http_version()
        hosts = [name for name, _ in self.headers].count(b"host")
        if hosts != 1 and (hosts or version == "1.1"):
            # Two readers could take it for requests to two hosts (RFC 9112, section 3.2).
            raise ValueError("expected one Host header")
        url = httptools.parse_url(self.url)
        path = url.path.decode("ascii")
        self.scope["method"] = self.parser.get_method().decode("ascii")
        self.scope["http_version"] = version
        self.scope["path"] = unquote(path) if "%" in path else path
        self.scope["raw_path"] = url.path
        self.scope["query_string"] = url.query or b""
        previous = self.cycle
        # What follows an offer of another protocol is not parsed, taken or not: the client has to ask anew.
        keep_alive = version != "1.0" and self.parser.should_keep_alive() and not self.parser.should_upgrade()
        exchange = self.cycle = Exchange(self, keep_alive=keep_alive, patience=self._patience, least=self._least)
        # What else arrives as a header is a trailer, and those never count as headers (RFC 9110, section 6.5.1).
        self.headers = []
        if previous is None or previous.response_complete:
            self._start_asgi_task(exchange, self.app)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((exchange, self.app))

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.pipeline:
            # Else a client could send requests faster than they are answered.
            self.flow.pause_reading()
        elif self.cycle.response_complete:
            self._room.waits(self)

    def _unsupported_upgrade_warning(self) -> None:
        """Nothing to warn of: a server need not take an offer (RFC 9110, section 7.8)."""

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._serving = cycle if isinstance(cycle, Exchange) else None
        super()._start_asgi_task(cycle, app)

    def on_body(self, body: bytes) -> None:
        self._unparsed = 0
        if isinstance(self.cycle, Exchange) and not self.cycle.response_complete:
            self.cycle.feed(body)

    def on_message_complete(self) -> None:
        self._unparsed = 0
        super().on_message_complete()


def _size(url: bytes, headers: list[tuple[bytes, bytes]]) -> int:
    return len(url) + sum(len(name) + len(value) + 4 for name, value in headers)
