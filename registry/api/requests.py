"""What every request passes: its id, the access log, and the answer to a fault that nothing else caught."""

from __future__ import annotations

import logging
import re
import time
from itertools import count
from secrets import token_hex
from urllib.parse import quote

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ocispec.errors import RegistryError, UnknownError
from registry import context
from registry.api.errors import render
from registry.logs import AccessLog

_log = logging.getLogger("registry")
_HARMLESS = re.compile(r"[!#-~]*")
_API_VERSION = (b"docker-distribution-api-version", b"registry/2.0")


class RequestMiddleware:
    """Wraps the whole application; pure ASGI, because every request pays for it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._prefix = token_hex(4)
        self._numbers = count(1)
        self._access = AccessLog()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            self._access.flush()
            return
        exchange = _Exchange(scope, send, f"{self._prefix}-{next(self._numbers):x}")
        context.set_request_id(scope, exchange.id)
        try:
            await self._app(scope, receive, exchange.send)
        except RegistryError as error:
            await exchange.answer(error, receive)
        except ClientDisconnect:
            _log.info("the client left during %s (request %s)", exchange.line, exchange.id)
        except Exception:  # noqa: BLE001 - logged with its traceback, answered without
            _log.exception("fault during %s (request %s)", exchange.line, exchange.id)
            await exchange.answer(_of_ours(exchange.id), receive)
        finally:
            if self._access.enabled:
                self._access.add(exchange.summary())


class _Exchange:
    """One request and what was answered to it."""

    __slots__ = ("_began", "_bytes", "_scope", "_send", "_status", "id")

    def __init__(self, scope: Scope, send: Send, request_id: str) -> None:
        self.id = request_id
        self._scope = scope
        self._send = send
        self._began = time.perf_counter()
        self._status = 0
        self._bytes = 0

    @property
    def line(self) -> str:
        query = self._scope["query_string"]
        target = self._scope["raw_path"] + (b"?" + query if query else b"")
        return f'"{self._scope["method"]} {_harmless(target.decode("latin-1"))}"'

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            message["headers"].append(_API_VERSION)
        elif message["type"] == "http.response.body":
            # What an error says to HEAD is left out by the server.
            self._bytes += len(message.get("body", b"")) if self._scope["method"] != "HEAD" else 0
        else:
            self._bytes += message.get("count", 0)
        await self._send(message)

    async def answer(self, error: RegistryError, receive: Receive) -> None:
        if not self._status:
            await render(error)(self._scope, receive, self.send)

    def summary(self) -> str:
        """The access log's line: who, what, status, bytes, milliseconds, id."""
        host, port = self._scope["client"] or ("-", 0)
        elapsed = (time.perf_counter() - self._began) * 1000
        return f"{_harmless(host)}:{port} {self.line} {self._status} {self._bytes} {elapsed:.1f}ms {self.id}"


def _harmless(text: str) -> str:
    """Nobody writes a field or a line of his own into the log."""
    return text if _HARMLESS.fullmatch(text) else quote(text, safe="/?&=:%", encoding="latin-1")


def _of_ours(request_id: str) -> RegistryError:
    message = f"the registry met a fault of its own; its log tells more under request {request_id}"
    return UnknownError(message, detail={"request": request_id})
