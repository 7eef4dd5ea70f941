"""What the client and its transport hand each other, whatever library speaks HTTP underneath."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

Content: TypeAlias = bytes | AsyncIterator[bytes] | None


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request.

    Attributes:
        method: in upper case.
        url: absolute, http or https.
        headers: by name, as they are sent.
        content: the body, if any.
        behind: URL at the registry that led here, where this is another host.
    """

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    content: Content = None
    behind: str | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """A response read to its end: status, headers by lower-case name, and a bounded body."""

    status: int
    headers: Mapping[str, str]
    body: bytes = b""


class Response(Protocol):
    """A response whose body is still to come.

    Attributes:
        status: HTTP status.
        headers: by lower-case name.
        url: where it came from, after redirects.
    """

    @property
    def status(self) -> int: ...
    @property
    def headers(self) -> Mapping[str, str]: ...
    @property
    def url(self) -> str: ...
    def pieces(self) -> AsyncIterator[bytes]:
        """Yields the body as it comes, undecoded.

        Raises:
            HostUnreachable: the connection broke, or nothing came for too long.
        """

    async def pour(self, sink: Callable[[memoryview], None]) -> None:
        """Gives the whole body to `sink`, piece by piece, in a worker thread; a piece is good until `sink` returns.

        Cancelled, it returns when no thread uses `sink` any more.

        Raises:
            HostUnreachable: the connection broke, or nothing came for too long; what had come was given to `sink`.
            LayerhouseError: what `sink` raises.
        """


class Transport(Protocol):
    """Sends requests over connections that it keeps."""

    def send(self, request: Request) -> AbstractAsyncContextManager[Response]:
        """Sends a request and follows redirects of GET and HEAD; to another host without `Authorization`.

        Raises:
            HostUnreachable: naming the host and the cause.
            ResponseInvalid: the answer is no HTTP, or redirects nowhere.
        """

    async def aclose(self) -> None:
        """Closes all connections."""


Send: TypeAlias = Callable[[Request], AbstractAsyncContextManager[Response]]


async def read(pieces: AsyncIterator[bytes], limit: int) -> bytes | None:
    """Returns a whole body, None where it is longer than `limit` bytes."""
    body = bytearray()
    async for piece in pieces:
        body += piece
        if len(body) > limit:
            return None
    return bytes(body)
