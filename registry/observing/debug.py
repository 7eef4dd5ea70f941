"""The debug address (`http.debug`): `/debug/health`, and what Prometheus reads.

It is served by the process that the operator started, in a thread with a loop of its own, and speaks for all the
processes that serve: one that dies or hangs takes nothing along, and is seen here.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from urllib.parse import unquote

from registry.config import Settings
from registry.observing.metrics import exposition
from registry.observing.reports import Reports
from registry.serving.listening import TcpAddress, bound, listening

_log = logging.getLogger("registry")
_REQUEST_SECONDS = 30.0
_HEAD_LIMIT = 1 << 14
_CONNECTIONS = 64
_TEXT = "text/plain; charset=utf-8"
_REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 503: "Service Unavailable"}
_GO = ("/debug/pprof", "/debug/vars")


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    body: bytes
    media_type: str = _TEXT

    def to_bytes(self, *, with_body: bool) -> bytes:
        head = (
            f"HTTP/1.1 {self.status} {_REASONS[self.status]}\r\nContent-Type: {self.media_type}\r\n"
            f"Content-Length: {len(self.body)}\r\nCache-Control: no-store\r\nConnection: close\r\n"
            f"{'Allow: GET, HEAD' + chr(13) + chr(10) if self.status == 405 else ''}\r\n"
        )
        return head.encode("latin-1") + (self.body if with_body else b"")


@contextmanager
def serving(settings: Settings) -> Iterator[None]:
    """Serves the debug address, where there is one, beside what is done within.

    Raises:
        ListenError: the address is taken, or is none of this machine.
    """
    debug = settings.http.debug
    if not debug.addr:
        if debug.prometheus.enabled:
            _log.warning("http.debug.prometheus is enabled, and nobody can read it: http.debug.addr is not set")
        yield
        return
    metrics = f"/{debug.prometheus.path.lstrip('/')}" if debug.prometheus.enabled else None
    with listening(TcpAddress.parse(debug.addr), _REQUEST_SECONDS) as made, DebugServer(made, metrics).running():
        _log.info("debug server on http://%s", bound(made))
        yield


class DebugServer:
    """A small HTTP server in a thread: one request a connection, and only to read.

    Args:
        listening: the socket.
        metrics: the path of the metrics; None where there are none.
    """

    def __init__(self, listening: socket.socket, metrics: str | None) -> None:
        self._listening = listening
        self._metrics = metrics
        self._reports = Reports()
        self._connections = 0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Serves beside what is done within."""
        with self._reports.listening() as reporting:
            loop, stop = asyncio.new_event_loop(), asyncio.Event()
            thread = threading.Thread(target=self._run, args=(loop, stop, reporting), name="debug server", daemon=True)
            thread.start()
            try:
                yield
            finally:
                with suppress(RuntimeError):  # it has ended
                    loop.call_soon_threadsafe(stop.set)
                thread.join()

    def _run(self, loop: asyncio.AbstractEventLoop, stop: asyncio.Event, reporting: socket.socket) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: loop) as runner:
                runner.run(self._serve(stop, reporting))
        except Exception:  # noqa: BLE001 - the registry goes on without it
            _log.exception("the debug server ended")

    async def _serve(self, stop: asyncio.Event, reporting: socket.socket) -> None:
        reports = await self._reports.serve(reporting)
        server = await asyncio.start_server(self._connected, sock=self._listening, limit=_HEAD_LIMIT)
        try:
            await stop.wait()
        finally:
            server.close()
            reports.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections += 1
        try:
            if self._connections <= _CONNECTIONS:
                async with asyncio.timeout(_REQUEST_SECONDS):
                    await self._exchange(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            return  # whoever asked is gone, or was too slow; or the loop ends, which asyncio of 3.11 logs as a fault
        finally:
            self._connections -= 1
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            line, *fields = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            method, target, _ = line.split(" ")
        except (asyncio.LimitOverrunError, ValueError):
            writer.write(_Answer(400, b"expected a request of HTTP/1.1\n").to_bytes(with_body=True))
        else:
            named = dict(field.lower().partition(":")[::2] for field in fields)
            answer = await self._answer(method, unquote(target.partition("?")[0]), named.get("accept", "").strip())
            writer.write(answer.to_bytes(with_body=method != "HEAD"))
        await writer.drain()

    async def _answer(self, method: str, path: str, accept: str) -> _Answer:
        if path not in ("/debug/health", self._metrics):
            return _Answer(404, _unknown(path, self._metrics).encode())
        if method not in ("GET", "HEAD"):
            return _Answer(405, b"only GET and HEAD are answered here\n")
        report = await self._reports.read()
        if path == self._metrics:
            return _Answer(200, *exposition(report.families, accept))
        return _Answer(
            503 if report.failing else 200,
            json.dumps(dict(report.failing), separators=(",", ":")).encode(),
            "application/json",
        )


def _unknown(path: str, metrics: str | None) -> str:
    there = "/debug/health" + (f" and {metrics}" if metrics else "")
    if path.startswith(_GO):
        return f"this registry is no Go program, it has no {path}; there is {there}\n"
    return f"not found; there is {there}\n"
