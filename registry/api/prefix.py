"""Answers below `http.prefix`, and what every answer carries by `http.headers`: each there only where it is set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ocispec.errors import RegistryError


class NotServed(RegistryError):
    """Nothing is served at that address."""

    code, status, summary = "UNSUPPORTED", 404, "nothing is served at this address"


class PrefixedRequests:
    """Takes the prefix off the path, so that nothing behind it has to know; whatever lies elsewhere is unknown.

    `/` is answered as ever: Distribution's sign of life, which has no prefix there either.
    """

    def __init__(self, app: ASGIApp, prefix: str) -> None:
        self._app = app
        self._prefix = prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] != "/":
            if not scope["path"].startswith(self._prefix):
                raise NotServed(f"nothing is served at this address; all paths begin with {self._prefix}")
            scope["path"] = scope["path"][len(self._prefix) - 1 :]
        await self._app(scope, receive, send)


class CompletedAnswers:
    """Adds headers to every answer that has none of the same name."""

    def __init__(self, app: ASGIApp, headers: Mapping[str, Sequence[str]]) -> None:
        self._app = app
        self._headers = [
            (name.lower().encode(), value.encode("latin-1")) for name, values in headers.items() for value in values
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def complete(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = {name.lower() for name, _ in message["headers"]}
                message["headers"].extend(each for each in self._headers if each[0] not in own)
            await send(message)

        await self._app(scope, receive, complete if scope["type"] == "http" else send)
