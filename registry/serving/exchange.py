"""One HTTP request and its response: bodies arrive in large pieces, files are sent by the kernel.

An application finds `http.response.pathsend` (ASGI extension) in `scope["extensions"]` and may answer, after
`http.response.start`, with one message

    {"type": "http.response.pathsend", "path": str, "offset": int, "count": int, "file": int}

`path` alone sends the whole file; `offset` and `count` (bytes, optional) send a part of it. `file` (optional) is a
descriptor that the application opened, read in place of `path`: the protocol owns it from then on and closes it
whatever happens, so that a file deleted meanwhile is still sent whole.
"""

import asyncio
import errno
import logging
import os
from typing import Any

from uvicorn._types import ASGI3Application, ASGIReceiveEvent
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from registry.serving.sendfile import Transfer

PATHSEND = "http.response.pathsend"
BODY_PIECE = 1 << 20
"""Bytes of a request's body gathered before the application is woken; reading pauses there."""
SMALL_FILE = 1 << 16
"""Up to this many bytes a file leaves in one write with the headers, which costs less than sendfile."""

_CONTROLS = bytes(set(range(32)) - {9}) + b"\x7f"
_FRAMING = frozenset({b"content-length", b"transfer-encoding", b"connection"})
_log = logging.getLogger(__name__)


class Exchange(RequestResponseCycle):
    """One request and its response.

    `http.response.start` is held back until the message after it, so that headers and a small body leave in one
    write, and an application may still answer otherwise when its file cannot be opened.

    Args:
        patience, least: the client is cut off that sends fewer than `least` bytes of a body in `patience` seconds,
            while the application waits for it.
    """

    def __init__(self, protocol: HttpToolsProtocol, *, keep_alive: bool, patience: float, least: int) -> None:
        super().__init__(
            scope=protocol.scope,
            transport=protocol.transport,
            flow=protocol.flow,
            logger=_log,
            access_logger=_log,
            access_log=False,
            default_headers=protocol.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=protocol.expect_100_continue,
            keep_alive=keep_alive,
            on_response=protocol.on_response_complete,
        )
        self._patience, self._least = patience, min(least, BODY_PIECE)
        # Of the connection: what a proxy tells of the scheme is written into the scope.
        self._is_encrypted = protocol.scheme == "https"
        self._pieces: list[bytes] = []
        self._gathered = 0
        self._start: dict[str, Any] | None = None
        self._bodiless = False
        self._transfer: Transfer | None = None

    async def run_asgi(self, app: ASGI3Application) -> None:
        """Answer with `app`; where it fails, answer 500 or, once the response has begun, cut the connection."""
        try:
            await app(self.scope, self.receive, self.send)
        except asyncio.CancelledError:
            self._cut()
            raise
        except Exception:  # noqa: BLE001 - the last place that can tell of it
            _log.exception("the application failed")
        finally:
            self._pieces.clear()
        if not self.response_complete and not self.disconnected:
            await self._fail()

    async def _fail(self) -> None:
        if self.response_started:
            self._cut()
            return
        self._start = self.chunked_encoding = None
        await self.send_500_response()

    def _cut(self) -> None:
        """Close without what is missing, so that the client cannot take a part for the whole."""
        self.transport.abort()
        self.lost()

    def lost(self) -> None:
        """Wake whoever waits for a connection that is gone."""
        self.disconnected = not self.response_complete
        self.message_event.set()
        if self._transfer is not None:
            self._transfer.stop()

    def feed(self, body: bytes) -> None:
        """Take a piece of the request's body from the parser."""
        self._pieces.append(body)
        self._gathered += len(body)
        if self._gathered >= BODY_PIECE:
            self.flow.pause_reading()
            self.message_event.set()

    async def receive(self) -> ASGIReceiveEvent:
        """Return the next `BODY_PIECE` bytes, or a little more, or the rest of the request's body.

        What arrived before a disconnect is handed over before the disconnect is told.
        """
        if self.waiting_for_100_continue and not self.response_started and not self.transport.is_closing():
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self.waiting_for_100_continue = False
        if not self.disconnected and not self.response_complete:
            if self.more_body:
                self.flow.resume_reading()
            await self._body_or_end()
        if self.response_complete or (self.disconnected and not self._pieces):
            return {"type": "http.disconnect"}
        body = b"".join(self._pieces)
        self._pieces.clear()
        self._gathered = 0
        return {"type": "http.request", "body": body, "more_body": self.more_body}

    async def _body_or_end(self) -> None:
        """Wait for a piece or the end of a body, or the disconnect of a client that sent too little for too long."""
        while not self.message_event.is_set():
            gathered = self._gathered
            try:
                async with asyncio.timeout(self._patience if self.more_body else None):
                    await self.message_event.wait()
            except TimeoutError:
                if self._gathered - gathered < self._least:
                    self._cut()
        self.message_event.clear()

    async def send(self, message: Any) -> None:
        """Take the application's next message (ASGI); a message after a disconnect is dropped."""
        kind = message["type"]
        if kind == "http.response.body":
            if await self._writable():
                self._send_body(message.get("body", b""), more=message.get("more_body", False))
        elif kind == PATHSEND:
            await self._send_file(message)
        elif kind == "http.response.start" and self._start is None:
            self._start = message
        else:
            raise RuntimeError(f"unexpected ASGI message {kind!r}")

    async def _writable(self) -> bool:
        """Wait until the transport takes data; false when the client is gone."""
        if self._start is None or self.response_complete:
            raise RuntimeError("the body came before the response's start or after its end")
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        return not self.disconnected and not self.transport.is_closing()

    def _send_body(self, body: bytes, *, more: bool) -> None:
        head = b"" if self.response_started else self._head(None if more else len(body))
        self._write(head + self._frame(body, more=more))
        if not more:
            self._finish()

    def _frame(self, body: bytes, *, more: bool) -> bytes:
        if self._bodiless:
            return b""
        if self.chunked_encoding:
            chunk = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            return chunk if more else chunk + b"0\r\n\r\n"
        self.expected_content_length -= len(body)
        if self.expected_content_length < 0 or (self.expected_content_length and not more):
            raise RuntimeError("the body has another length than its Content-Length")
        return body

    async def _send_file(self, message: dict[str, Any]) -> None:
        file = message["file"] if "file" in message else os.open(message["path"], os.O_RDONLY)
        try:
            if await self._writable():
                await self._send_part(file, message.get("offset", 0), message.get("count"))
        finally:
            os.close(file)

    async def _send_part(self, file: int, offset: int, count: int | None) -> None:
        size = os.fstat(file).st_size
        count = size - offset if count is None else count
        if not 0 <= offset <= offset + count <= size:
            raise ValueError(f"{count} bytes from {offset} do not lie in a file of {size} bytes")
        head = self._head(count)
        if self._bodiless:
            self._write(head)
        elif self.chunked_encoding or self.expected_content_length != count:
            raise RuntimeError(f"a file's {count} bytes are not the response's Content-Length")
        elif count <= SMALL_FILE:
            self._write(head + _read(file, offset, count))
        else:
            self._write(head)
            await self._send_large(Transfer(self.transport, file, offset, count))
        if not self.disconnected:
            self._finish()

    async def _send_large(self, transfer: Transfer) -> None:
        self._transfer = transfer
        try:
            if self._is_encrypted:
                await transfer.by_copy(self.flow.drain)
            else:
                await transfer.by_sendfile(self.flow.drain)
        except OSError as error:
            if not isinstance(error, ConnectionError):
                _log.error("the response to %s was cut: %s", self.scope["path"], error)
            self._cut()
        finally:
            self._transfer = None

    def _write(self, data: bytes) -> None:
        self.response_started = True
        if data:
            self.transport.write(data)

    def _finish(self) -> None:
        self.response_complete = True
        self._pieces.clear()
        self.message_event.set()
        if not self.keep_alive:
            self.transport.close()
        self.on_response()

    def _head(self, length: int | None) -> bytes:
        """Render status line and headers; `length` is the whole body's size in bytes where that is known."""
        start = self._start or {}
        status = start["status"]
        self._bodiless = self.scope["method"] == "HEAD" or status in (204, 304)
        headers = [*self.default_headers, *start.get("headers", ())]
        for name, value in headers:
            if name in _FRAMING:
                self._note(name, value)
        if not self.keep_alive and (b"connection", b"close") not in headers:
            headers.append((b"connection", b"close"))
        if self.chunked_encoding is None and not self._bodiless:
            headers.append(self._framing(length))
        head = STATUS_LINE[status] + b"".join([b"%b: %b\r\n" % header for header in headers])
        # Nothing but the line ends put here is a control character: no value can smuggle in a header of its own.
        if len(head.translate(None, _CONTROLS)) != len(head) - 2 * len(headers) - 2:
            raise RuntimeError("a header holds a control character")
        return head + b"\r\n"

    def _note(self, name: bytes, value: bytes) -> None:
        if name == b"content-length":
            self.expected_content_length = int(value)
            self.chunked_encoding = False
        elif name == b"transfer-encoding":
            self.chunked_encoding = True
        elif value.lower() == b"close":
            self.keep_alive = False

    def _framing(self, length: int | None) -> tuple[bytes, bytes]:
        """Return the header that tells where a body ends whose application did not say."""
        self.chunked_encoding = length is None
        self.expected_content_length = length or 0
        return (b"transfer-encoding", b"chunked") if length is None else (b"content-length", b"%d" % length)


def _read(file: int, offset: int, count: int) -> bytes:
    data = os.pread(file, count, offset)
    if len(data) != count:
        raise OSError(errno.EIO, f"the file ends {count - len(data)} bytes early")
    return data
