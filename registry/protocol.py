"""uvicorn's HTTP/1.1 protocol, answering with `Exchange` and bounding what a client may send and wait for."""

import asyncio
from urllib.parse import unquote

import httptools
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from registry.exchange import PATHSEND, Exchange

HEAD_LIMIT = 1 << 16
"""Bytes a client may send without completing a head, a piece of a body or a trailer."""


class RegistryProtocol(HttpToolsProtocol):
    """HTTP/1.1 parsed by httptools and answered by `Exchange`."""

    _serving: Exchange | None = None
    _unparsed = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        super().connection_made(transport)
        self._await_request()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._serving is not None:
            self._serving.lost()

    def data_received(self, data: bytes) -> None:
        self._unparsed += len(data)
        super().data_received(data)
        if self._unparsed > HEAD_LIMIT and not self.transport.is_closing():
            self.send_400_response("Request head too large.")
        elif self.cycle is None or self.cycle.response_complete:
            self._await_request()

    def _await_request(self) -> None:
        """Close in `timeout_keep_alive` seconds unless a whole head arrives: uvicorn would wait for it for ever."""
        if self.timeout_keep_alive_task is None and not self.transport.is_closing():
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def send_400_response(self, msg: str) -> None:
        if self._serving is None or self._serving.response_complete:
            super().send_400_response(msg)
        else:
            # A response is on its way, and nothing may come between its bytes.
            self.transport.abort()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {PATHSEND: {}}

    def on_headers_complete(self) -> None:
        self._unparsed = 0
        version = self.parser.get_http_version()
        url = httptools.parse_url(self.url)
        path = url.path.decode("ascii")
        self.scope["method"] = self.parser.get_method().decode("ascii")
        self.scope["http_version"] = version
        self.scope["path"] = unquote(path) if "%" in path else path
        self.scope["raw_path"] = url.path
        self.scope["query_string"] = url.query or b""
        previous = self.cycle
        exchange = self.cycle = Exchange(self, keep_alive=version != "1.0" and self.parser.should_keep_alive())
        if previous is None or previous.response_complete:
            self._start_asgi_task(exchange, self.app)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((exchange, self.app))

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
