"""The API of one endpoint of a registry: what is sent, with whose permission, and how refusals read."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import replace
from urllib.parse import urlsplit

from client.access.auth import Access
from client.hosts.endpoint import Endpoint
from client.registries.retrying import Patience
from client.wire.exchange import Answer, Content, Request, Response, Send, read
from ocispec import strictjson
from ocispec.errors import (
    ContentTruncated,
    HostUnreachable,
    LayerhouseError,
    RegistryError,
    ResponseInvalid,
    UnknownError,
    from_envelope,
)
from ocispec.headers import Scope

_MAX_ENVELOPE = 64 * 1024
# The answers after which the same request may succeed.
PASSING = frozenset({429, 500, 502, 503, 504})


class Api:
    """One endpoint, as one kind of access is allowed to use it.

    Args:
        endpoint: where it is.
        send: sends a request, see `client.wire.exchange.Transport`.
        access: what registries granted so far.
        scopes: what is to be done there, as a token says it.
        patience: how often a request is tried again; None for once.
    """

    def __init__(
        self, endpoint: Endpoint, send: Send, access: Access, *scopes: Scope, patience: Patience | None = None
    ) -> None:
        self.endpoint = endpoint
        self.open = send
        self._access = access
        self._scopes = scopes
        self._patience = patience or Patience(attempts=1)
        self._origin = origin(endpoint.api)

    @asynccontextmanager
    async def send(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        content: Content = None,
        scopes: tuple[Scope, ...] = (),
        again: bool | None = None,
    ) -> AsyncIterator[Response]:
        """Sends a request, with access if it is asked for, and gives the response, whose body is still to come.

        Args:
            method: in upper case.
            path: below the endpoint's API, or an absolute URL: to another origin it goes without any access.
            headers: by name.
            content: the body, if any.
            scopes: what this request needs beside the scopes of the whole.
            again: whether it may be tried again; unless told, GET and HEAD may.

        Raises:
            HostUnreachable, ResponseInvalid: see `client.wire.exchange.Transport`.
            TooManyRequests, Unavailable, …: the endpoint asked to come back later, and did so until patience ended.
            Unauthorized: access is not granted.
        """
        request = self._request(method, path, headers or {}, content)
        wanted = (*self._scopes, *scopes)
        repeated = method in ("GET", "HEAD") if again is None else again

        async def answered() -> tuple[Response, AsyncExitStack]:
            async with AsyncExitStack() as stack:
                response = await stack.enter_async_context(self._granted(request, wanted))
                if repeated and response.status in PASSING:
                    raise await refusal(response, RegistryError)
                return response, stack.pop_all()

        host = self.endpoint.login
        response, opened = await (self._patience.run(host, answered) if repeated else answered())
        async with opened:
            yield response

    def _request(self, method: str, path: str, headers: Mapping[str, str], content: Content) -> Request:
        if "://" in path:
            return Request(method, path, headers, content, behind=self.endpoint.api)
        url = f"{self.endpoint.api}/{path}"
        if self.endpoint.namespace:
            url += f"{'&' if '?' in url else '?'}ns={self.endpoint.namespace}"
        return Request(method, url, {**self.endpoint.headers, **headers}, content)

    @asynccontextmanager
    async def _granted(self, request: Request, scopes: tuple[Scope, ...]) -> AsyncIterator[Response]:
        # An upload may lead to another host, which is no business of the token's.
        here = origin(request.url) == self._origin
        granted = self._access.granted(self.endpoint, scopes) if here else None
        async with self.open(_authorized(request, granted)) as response:
            challenge = response.headers.get("www-authenticate")
            if not (challenge and self._refused(response)):
                yield response
                return
        for tries_left in (1, 0):
            began = time.monotonic()
            granted = await self._access.renew(self.endpoint, scopes, granted, [challenge], self._exchange)
            own = self._access.asked(self.endpoint, scopes) >= began
            async with self.open(_authorized(request, granted)) as response:
                if not self._refused(response):
                    yield response
                    return
            # What another request was given may have ended since; what this one asked for itself has not.
            if own or not tries_left:
                raise self._access.refusal(self.endpoint, scopes)

    def _refused(self, response: Response) -> bool:
        # What another host answers, where a redirect led, asks for no access to this one.
        return response.status == 401 and origin(response.url) == self._origin

    async def _exchange(self, request: Request) -> Answer:
        async with self.open(replace(request, behind=self.endpoint.api)) as response:
            return Answer(response.status, response.headers, await read(response.pieces(), _MAX_ENVELOPE) or b"")


async def reached(apis: Sequence[Api], told: Callable[[str], None]) -> Api:
    """Returns the first of several ways to one host that leads there; the last where none does."""
    for api in apis[:-1]:
        try:
            async with api.send("GET", "", again=False):
                return api
        except HostUnreachable as error:
            told(f"{error.message}; going on with the next way there")
    return apis[-1]


@contextmanager
def within(place: str) -> Iterator[None]:
    """Puts `place` in front of the message of every error, unless it stands there already."""
    try:
        yield
    except LayerhouseError as error:
        if error.message.startswith(place):
            raise
        message = f"{place}: {error.message}"
        raise type(error)(message, detail=error.detail, headers=error.headers) from error


async def counted(response: Response) -> AsyncGenerator[bytes, None]:
    """Yields a body; raises ContentTruncated, telling how much came, where it ends early."""
    offset = 0
    try:
        async for piece in response.pieces():
            offset += len(piece)
            yield piece
    except HostUnreachable as error:
        size = response.headers.get("content-length", "unknown")
        raise ContentTruncated(f"ended after {offset} of {size} bytes: {error.message}") from error


async def expect(response: Response, status: int, missing: type[RegistryError]) -> None:
    """Raises what a response of another status says; `missing` where it is 404 and says no more."""
    if response.status != status:
        raise await refusal(response, missing)


async def refusal(response: Response, missing: type[RegistryError]) -> RegistryError:
    """Rebuilds the error that a registry answered."""
    try:
        body = strictjson.loads(await read(response.pieces(), _MAX_ENVELOPE) or b"")
    except (strictjson.AmbiguousJSON, HostUnreachable):
        body = None
    error = from_envelope(body, response.status)
    kind = missing if isinstance(error, UnknownError) and response.status == 404 else type(error)
    said = kind.summary if error.message == type(error).summary else _one_line(error.message)
    return kind(f"{said} (status {response.status})", detail=error.detail, headers=response.headers)


def _one_line(text: str) -> str:
    return "".join(each if each.isprintable() else " " for each in text[:500])


def origin(url: str) -> tuple[str, str]:
    """Scheme, and host with port; raises ResponseInvalid where it is no URL."""
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise ResponseInvalid(f"{url[:200]!r} is no address: {error}") from error
    return parts.scheme, parts.netloc


def _authorized(request: Request, granted: str | None) -> Request:
    return replace(request, headers={**request.headers, "Authorization": granted}) if granted else request
