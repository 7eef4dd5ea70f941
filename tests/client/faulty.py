"""A registry on a real socket that serves ranges right, unless a test tells it what to get wrong."""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from tests.client.scripted import Reply, ScriptedRegistry, Seen, serving

_PIECE = 64 * 1024


@dataclass(frozen=True, slots=True)
class Sent:
    """An answer to a request for a blob.

    Attributes:
        first: offset of the body in the blob.
        cut: after so many bytes of the body the connection is closed.
        then: is awaited where the body is cut, before the connection is closed.
        pace: is awaited before each piece of the body.
        piece: how long the pieces are.
        closing: whether the connection is closed after the whole body.
    """

    status: int
    headers: dict[str, str]
    body: memoryview
    first: int = 0
    cut: int | None = None
    then: Callable[[], Awaitable[object]] | None = None
    pace: Callable[[], Awaitable[object]] | None = None
    piece: int = _PIECE
    closing: bool = False


# Gets the request and the honest answer, and returns what is sent; a Reply is sent as it is.
Twist: TypeAlias = Callable[[Seen, Sent], Sent | Reply]


def honest(_: Seen, sent: Sent) -> Sent:
    return sent


@dataclass(slots=True)
class Delivered:
    """Bytes of a blob that left: `[first, end)`, as far as they came."""

    digest: str
    first: int
    end: int


@dataclass(slots=True)
class Log:
    deliveries: list[Delivered] = field(default_factory=list)

    def of(self, digest: str) -> list[tuple[int, int]]:
        """Spans that were delivered of a blob, by their first byte."""
        return sorted(
            (each.first, each.end) for each in self.deliveries if each.digest == digest and each.end > each.first
        )

    def once(self, digest: str, size: int) -> bool:
        """Whether every byte of a blob was delivered, and none of them twice."""
        at = 0
        for first, end in self.of(digest):
            if first != at:
                return False
            at = end
        return at == size


class FaultyRegistry(ScriptedRegistry):
    """Serves what was published, blobs in ranges too; `behaviours` come first, then `twist`.

    Attributes:
        twist: changes an honest answer.
        log: which bytes of which blob left.
        connections: how many were opened.
    """

    def __init__(self) -> None:
        super().__init__()
        self.twist: Twist = honest
        self.log = Log()
        self.connections = 0
        self._data: dict[str, memoryview] = {}

    def blob(self, name: str, data: bytes) -> dict[str, object]:
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        self._data[digest] = memoryview(data)
        return {"digest": digest, "size": len(data)}

    def forget(self) -> None:
        """Begins a new log."""
        self.log = Log()
        self.seen.clear()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        await super().serve(reader, writer)

    async def _answer(self, request: Seen, writer: asyncio.StreamWriter) -> bool:
        digest = request.path.rpartition("/blobs/")[2]
        if request.path in self.behaviours or digest not in self._data:
            return await super()._answer(request, writer)
        sent = self.twist(request, ranged(request, self._data[digest]))
        if isinstance(sent, Reply):
            return await self._reply(request, sent, writer)
        if request.method == "HEAD":
            sent = replace(sent, body=sent.body[:0], cut=None)
        return await self._send(digest, sent, writer)

    async def _reply(self, request: Seen, reply: Reply, writer: asyncio.StreamWriter) -> bool:
        self.behaviours[request.path] = reply
        try:
            return await super()._answer(request, writer)
        finally:
            del self.behaviours[request.path]

    async def _send(self, digest: str, sent: Sent, writer: asyncio.StreamWriter) -> bool:
        lines = [f"HTTP/1.1 {sent.status} X", *(f"{name}: {text}" for name, text in sent.headers.items())]
        writer.write("\r\n".join([*lines, "", ""]).encode())
        delivered = Delivered(digest, sent.first, sent.first)
        self.log.deliveries.append(delivered)
        end = len(sent.body) if sent.cut is None else sent.cut
        for at in range(0, end, sent.piece):
            if sent.pace:
                await sent.pace()
            piece = sent.body[at : min(at + sent.piece, end)]
            writer.write(bytes(piece))
            await writer.drain()
            delivered.end += len(piece)
        await writer.drain()
        if sent.cut is not None and sent.then:
            await sent.then()
        return sent.cut is None and not sent.closing


def ranged(request: Seen, data: memoryview) -> Sent:
    """The honest answer to a request for a blob, or for a range of it."""
    wanted = request.headers.get("range")
    if wanted is None:
        return Sent(200, {"Content-Length": str(len(data)), "Accept-Ranges": "bytes"}, data)
    first, _, last = wanted.removeprefix("bytes=").partition("-")
    start, end = int(first), min(int(last or len(data)), len(data) - 1) + 1
    if start >= end:
        return Sent(416, {"Content-Length": "0", "Content-Range": f"bytes */{len(data)}"}, data[:0])
    headers = {"Content-Length": str(end - start), "Content-Range": f"bytes {start}-{end - 1}/{len(data)}"}
    return Sent(206, headers, data[start:end], start)


def whole(sent: Sent, data: bytes) -> Sent:
    """The answer of a host that serves no ranges."""
    return replace(sent, status=200, headers={"Content-Length": str(len(data))}, body=memoryview(data), first=0)


@asynccontextmanager
async def faulty(tls: ssl.SSLContext | None = None) -> AsyncIterator[FaultyRegistry]:
    registry = FaultyRegistry()
    async with serving(registry.serve, tls) as port:
        registry.host = f"127.0.0.1:{port}"
        yield registry
