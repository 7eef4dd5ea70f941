"""`/auth/token`: where clients get tokens (Docker's token specification; RFC 6749, as Docker's OAuth2 variant has it).

It stands before the gate, and before the guard of mutations: a login changes nothing that is stored, so a registry
that is read-only gives tokens too.
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterable
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from ocispec.errors import GrammarError, RequestInvalid, Unsupported
from ocispec.headers import Scope as TokenScope
from registry import context
from registry.api.urls import Urls
from registry.auth.tokenserver import Asked, Issued, TokenServer
from registry.config import Settings

PATH = "/auth/token"
_MOST_FIELDS = 256
_MOST_BYTES = 64 * 1024
_TRUE = frozenset({"true", "1"})
# RFC 6749, section 5.1.
_NO_STORE = {"Cache-Control": "no-store"}

Fields = dict[str, list[str]]


class TokenEndpoint:
    """Answers `/auth/token`, and hands on everything else; plain ASGI.

    Args:
        app: what lies behind.
        server: decides who gets what.
    """

    def __init__(self, app: ASGIApp, server: TokenServer) -> None:
        self._app = app
        self._server = server

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] != "http" or scope["path"] != PATH:
            return self._app(scope, receive, send)
        return self._respond(scope, receive, send)

    async def _respond(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = await self._answer(Request(scope, receive))
        await answer(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        match request.method:
            case "GET" | "HEAD":
                return await self._by_query(request)
            case "POST":
                return await self._by_form(request)
        raise Unsupported(f"{request.method} is not supported at this address", headers={"Allow": "GET, HEAD, POST"})

    async def _by_query(self, request: Request) -> Response:
        fields = _fields(request.scope["query_string"])
        scopes = _scopes(part for each in fields.get("scope", []) for part in each.split())
        asked = Asked(scopes, _first(fields, "offline_token") in _TRUE, _first(fields, "client_id"))
        return _rendered(await self._server.by_header(request.scope, asked))

    async def _by_form(self, request: Request) -> Response:
        fields = _fields(await _body(request))
        scopes = _scopes(part for each in fields.get("scope", []) for part in each.split())
        asked = Asked(scopes, _first(fields, "access_type") == "offline", _first(fields, "client_id"))
        match _first(fields, "grant_type"):
            case "password":
                user, password = _first(fields, "username"), _first(fields, "password")
                issued = await self._server.by_password(user, password, request.scope, asked)
            case "refresh_token":
                issued = await self._server.by_login(_first(fields, "refresh_token"), request.scope, asked)
            case other:
                raise RequestInvalid(f"grant_type is {other!r:.40}: expected password or refresh_token")
        return _rendered(issued, {"scope": " ".join(map(str, issued.scopes))})


def realm(settings: Settings, scope: context.Scope) -> str:
    """Returns the address of the token server as the client reaches it.

    Where it came by https, though this registry was not told so by a proxy that it trusts, the address is https too:
    what a client sends there is a password.
    """
    given = settings.layerhouse.tokens.realm
    if given:
        return given
    address = Urls.of(settings.http).absolute(scope, PATH)
    if address.startswith("http:") and context.header(scope, b"x-forwarded-proto").lower() == "https":
        return f"https{address.removeprefix('http')}"
    return address


def _rendered(issued: Issued, more: dict[str, str] | None = None) -> Response:
    told = {
        "token": issued.token,
        "access_token": issued.token,
        "expires_in": issued.lifetime,
        "issued_at": f"{issued.issued:%Y-%m-%dT%H:%M:%SZ}",
        **(more or {}),
    }
    if issued.refresh is not None:
        told["refresh_token"] = issued.refresh
    return JSONResponse(told, headers=_NO_STORE)


def _fields(data: bytes) -> Fields:
    try:
        return parse_qs(data.decode(), keep_blank_values=True, max_num_fields=_MOST_FIELDS, errors="strict")
    except ValueError as error:
        raise RequestInvalid(f"expected at most {_MOST_FIELDS} fields, as application/x-www-form-urlencoded") from error


def _first(fields: Fields, name: str) -> str:
    return fields.get(name, [""])[0]


def _scopes(texts: Iterable[str]) -> tuple[TokenScope, ...]:
    try:
        return tuple(map(TokenScope.parse, texts))
    except GrammarError as error:
        raise RequestInvalid(error.message) from error


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > _MOST_BYTES:
            raise RequestInvalid(f"the form is longer than {_MOST_BYTES} bytes")
    return bytes(body)
