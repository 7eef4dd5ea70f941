"""What every request passes: its id, the access log, and the answer to a fault that nothing else caught."""

from __future__ import annotations

import logging
import re
import time
from itertools import count
from secrets import token_hex
from urllib.parse import quote, unquote

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ocispec.errors import RegistryError, UnknownError
from registry import context
from registry.api.errors import render
from registry.observing.logs import AccessLog
from registry.observing.metrics import Handled, Requests

_log = logging.getLogger("registry")
_HARMLESS = re.compile(r"[!#-~]*")
_SECRET = re.compile(r"pass|pwd|secret|token|credential|auth|signature|key", re.IGNORECASE)
_NOTHING: dict[str, str] = {}
_API_VERSION = (b"docker-distribution-api-version", b"registry/2.0")


class RequestMiddleware:
    """Wraps the whole application; pure ASGI, because every request pays for it."""

    def __init__(self, app: ASGIApp, access: AccessLog, requests: Requests | None = None) -> None:
        self._app = app
        self._requests = requests
        self._prefix = token_hex(4)
        self._numbers = count(1)
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            self._access.flush()
            return
        exchange = _Exchange(scope, send, f"{self._prefix}-{next(self._numbers):x}")
        context.set_request_id(scope, exchange.id)
        handled = None if self._requests is None else self._requests.began(scope["path"])
        if handled is not None:
            receive = exchange.counting(receive)
        if _log.isEnabledFor(logging.DEBUG):
            _log.debug("%s began (request %s)", exchange.line, exchange.id)
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
            if handled is not None:
                exchange.count(handled)
            if self._access.enabled:
                exchange.enter(self._access)


class _Exchange:
    """One request and what was answered to it."""

    __slots__ = ("_began", "_bytes", "_received", "_scope", "_send", "_status", "id")

    def __init__(self, scope: Scope, send: Send, request_id: str) -> None:
        self.id = request_id
        self._scope = scope
        self._send = send
        self._began = time.perf_counter()
        self._status = 0
        self._bytes = 0
        self._received = 0

    @property
    def line(self) -> str:
        return f'"{self._scope["method"]} {_harmless(self._uri())}"'

    def _uri(self) -> str:
        query: bytes = self._scope["query_string"]
        path: bytes = self._scope["raw_path"]
        return f"{path.decode('latin-1')}?{_public(query.decode('latin-1'))}" if query else path.decode("latin-1")

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
        context.set_error(self._scope, error)
        if not self._status:
            await render(error)(self._scope, receive, self.send)

    def counting(self, receive: Receive) -> Receive:
        """Returns `receive` with its bytes counted."""

        async def counted() -> Message:
            message = await receive()
            self._received += len(message.get("body", b""))
            return message

        return counted

    def count(self, handled: Handled) -> None:
        """Counts the request as answered."""
        seconds = time.perf_counter() - self._began
        handled.ended(self._scope["method"], self._status, seconds, self._received, self._bytes)

    def enter(self, access: AccessLog) -> None:
        """Adds the request's line to the log."""
        host, agent, error = "", "", context.error(self._scope)
        for name, value in self._scope["headers"]:
            if name == b"host":
                host = value.decode("latin-1")
            elif name == b"user-agent":
                agent = value.decode("latin-1")
        access.add(
            method=self._scope["method"],
            uri=self._uri(),
            status=self._status,
            written=self._bytes,
            seconds=time.perf_counter() - self._began,
            address=context.address(self._scope),
            host=host,
            agent=agent,
            request_id=self.id,
            user=context.caller(self._scope).name,
            more=_NOTHING if error is None else {"err.code": error.code, "err.message": error.message},
        )


def _public(query: str) -> str:
    """Leaves the values of parameters out whose names sound of secrets, however they are written."""
    if not (_SECRET.search(query) or "%" in query):
        return query
    return "&".join(
        f"{name}=***" if is_given and _SECRET.search(unquote(name)) else f"{name}{is_given}{value}"
        for name, is_given, value in (each.partition("=") for each in query.split("&"))
    )


def _harmless(text: str) -> str:
    """Nobody writes a field or a line of his own into the log."""
    return text if _HARMLESS.fullmatch(text) else quote(text, safe="/?&=:%", encoding="latin-1")


def _of_ours(request_id: str) -> RegistryError:
    message = f"the registry met a fault of its own; its log tells more under request {request_id}"
    return UnknownError(message, detail={"request": request_id})
