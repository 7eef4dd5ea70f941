"""Requests that the registry makes itself: to those it tells of events, to what its health depends on, for keys."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Self

import httpx
import truststore

from ocispec.errors import HostUnreachable, ResponseInvalid

Headers = Mapping[str, Sequence[str]]
_USER_AGENT = "layerhouse"


@dataclass(frozen=True, slots=True)
class Answer:
    """What somebody answered; `headers` have lower-case names, the last value of each."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)


class Outgoing:
    """An HTTP client that follows no redirect and keeps no cookie; it trusts what the system trusts.

    Enter it once and use it for many requests: connections are kept.

    Args:
        timeout: seconds that a request may take, from connecting to the last byte of its answer.
    """

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._client = httpx.AsyncClient(
            timeout=None,  # noqa: S113 - `ask` bounds the whole of it
            follow_redirects=False,
            verify=truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
            headers={"User-Agent": _USER_AGENT},
        )

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.__aexit__(kind, error, trace)

    async def ask(
        self,
        method: str,
        url: str,
        headers: Headers | None = None,
        content: bytes = b"",
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - callers tell it apart from being cancelled
        limit: int = 1 << 20,
        cut: bool = False,
    ) -> Answer:
        """Makes one request, and reads at most `limit` bytes of the answer.

        Args:
            method: of HTTP.
            url: http or https.
            headers: each name with its values.
            content: the request's body.
            timeout: seconds that all of it may take; as the client's where nothing is said.
            limit: bytes.
            cut: whether an answer that is longer is cut off there, for callers to whom the status is enough.

        Raises:
            HostUnreachable: no answer; the message names the cause, and neither user nor password of the URL.
            ResponseInvalid: the answer is longer than `limit`.
        """
        seconds = self._timeout if timeout is None else timeout
        try:
            async with asyncio.timeout(seconds):
                answer = await self._ask(method, url, headers or {}, content, limit)
        except TimeoutError as error:
            raise HostUnreachable(f"{shown(url)}: no answer within {seconds:g} s") from error
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
            raise HostUnreachable(f"{shown(url)}: {_cause(error)}") from error
        if len(answer.body) > limit and not cut:
            raise ResponseInvalid(f"{shown(url)} answered with more than {limit} bytes")
        return replace(answer, body=answer.body[:limit])

    async def _ask(self, method: str, url: str, headers: Headers, content: bytes, limit: int) -> Answer:
        """Reads on as long as there is no more than `limit`: the body shows whether there was."""
        fields = [(name, value) for name, values in headers.items() for value in values]
        async with self._client.stream(method, url, headers=fields, content=content) as answer:
            body = bytearray()
            async for piece in answer.aiter_bytes():
                body += piece
                if len(body) > limit:
                    break
            return Answer(answer.status_code, dict(answer.headers), bytes(body))


def _cause(error: BaseException) -> str:
    """What the system said, where it said something: the library's own words are `All connection attempts failed`."""
    told, inner = str(error) or type(error).__name__, error.__cause__ or error.__context__
    while inner:
        if isinstance(inner, ConnectionError) and inner.errno:
            told = os.strerror(inner.errno)
        elif isinstance(inner, OSError):
            told = inner.strerror or told
        several = inner.exceptions if isinstance(inner, BaseExceptionGroup) else ()
        inner = several[0] if several else inner.__cause__ or inner.__context__
    return told


def shown(url: str) -> str:
    """Returns a URL without what may be secret in it: user, password, query."""
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, UnicodeError):
        return "(no URL)"
    return str(parsed.copy_with(userinfo=b"", query=None, fragment=None))
