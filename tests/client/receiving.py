"""A registry on a real socket that takes uploads, and breaks where a test tells it to."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, urlsplit

from tests.client.scripted import serving

PIECE = 64 * 1024


@dataclass(slots=True)
class Asked:
    """A request that came, and how many bytes of its body were taken."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    taken: int = 0


@dataclass(slots=True)
class Receiving:
    """One repository that takes blobs and manifests.

    Attributes:
        host: "127.0.0.1:PORT".
        cuts: sizes at which an upload breaks the connection that brings it past them, each once.
        answers: (method, status, envelope's code) that take the place of the next answers to a method, each once;
            the body of the request is read, and dropped.
        always: the same, for good.
        forgets: after a cut the upload is gone.
        loses: how many bytes of what came before a cut are not kept.
        silent: whether GET of an upload tells nothing.
        commits_unheard: the first PUT that ends an upload does its work and breaks the connection.
        minimum: the OCI-Chunk-Min-Length that it tells.
        mountable: whether it has every blob in other repositories.
        elsewhere: where uploads are led to, before their path.
    """

    host: str = ""
    cuts: list[int] = field(default_factory=list)
    answers: list[tuple[str, int, str]] = field(default_factory=list)
    always: dict[str, tuple[int, str]] = field(default_factory=dict)
    forgets: bool = False
    loses: int = 0
    silent: bool = False
    commits_unheard: bool = False
    minimum: int | None = None
    mountable: bool = False
    elsewhere: str = ""
    uploads: dict[str, bytearray] = field(default_factory=dict)
    cancelled: list[str] = field(default_factory=list)
    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, bytes] = field(default_factory=dict)
    seen: list[Asked] = field(default_factory=list)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)

    def methods(self) -> list[str]:
        return [each.method for each in self.seen]

    def of(self, method: str) -> list[Asked]:
        return [each for each in self.seen if each.method == method]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            asked = _parsed(await reader.readuntil(b"\r\n\r\n"))
            self.seen.append(asked)
            found = await self._answer(asked, reader)
            if found is None:
                writer.transport.abort()
                return
            status, headers, body = found
            length = {} if status == 204 else {"Content-Length": str(len(body))}
            lines = [f"HTTP/1.1 {status} X", *(f"{name}: {text}" for name, text in {**length, **headers}.items())]
            writer.write("\r\n".join([*lines, "", ""]).encode() + (b"" if asked.method == "HEAD" else body))
            await writer.drain()

    async def _answer(self, asked: Asked, reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes] | None:
        told = next((each for each in self.answers if each[0] == asked.method), None)
        if told:
            self.answers.remove(told)
        scripted = told[1:] if told else self.always.get(asked.method)
        if scripted:
            async for _ in _body(asked, reader):
                pass
            status, code = scripted
            return status, {}, json.dumps({"errors": [{"code": code, "message": "as told"}]}).encode()
        if "/uploads/" in asked.path:
            return await self._upload(asked, reader)
        return await self._stored(asked, reader)

    async def _stored(self, asked: Asked, reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
        name = asked.path.rsplit("/", 1)[1]
        kept = self.manifests if "/manifests/" in asked.path else self.blobs
        if asked.method == "PUT":
            kept[name] = b"".join([piece async for piece in _body(asked, reader)])
            return 201, {}, b""
        found = kept.get(name)
        return (404, {}, b"") if found is None else (200, {}, found)

    async def _upload(self, asked: Asked, reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes] | None:
        name = asked.path.rsplit("/", 1)[1]
        if asked.method == "POST":
            return self._begin(asked)
        if name not in self.uploads:
            return 404, {}, b""
        kept = self.uploads[name]
        if asked.method == "DELETE":
            del self.uploads[name]
            self.cancelled.append(name)
            return 204, {}, b""
        if asked.method == "GET":
            return (204, {}, b"") if self.silent else (204, self._where(name), b"")
        return await self._take(asked, reader, name, kept)

    def _begin(self, asked: Asked) -> tuple[int, dict[str, str], bytes]:
        if self.mountable and "mount" in asked.query:
            return 201, {}, b""
        name = f"u{len([each for each in self.seen if each.method == 'POST'])}"
        self.uploads[name] = bytearray()
        least = {"OCI-Chunk-Min-Length": str(self.minimum)} if self.minimum else {}
        return 202, {**self._where(name), **least}, b""

    async def _take(
        self, asked: Asked, reader: asyncio.StreamReader, name: str, kept: bytearray
    ) -> tuple[int, dict[str, str], bytes] | None:
        if (span := asked.headers.get("content-range")) and int(span.partition("-")[0]) != len(kept):
            async for _ in _body(asked, reader):
                pass
            return 416, self._where(name), b""
        async for piece in _body(asked, reader):
            kept += piece
            self.arrived.set()
            if self.cuts and len(kept) >= self.cuts[0]:
                del kept[max(0, self.cuts.pop(0) - self.loses) :]
                if self.forgets:
                    del self.uploads[name]
                return None
        if asked.method == "PATCH":
            return 202, self._where(name), b""
        digest = f"sha256:{hashlib.sha256(kept).hexdigest()}"
        if asked.query.get("digest") != digest:
            return 400, {}, b'{"errors":[{"code":"DIGEST_INVALID","message":"not so"}]}'
        self.blobs[digest] = bytes(kept)
        del self.uploads[name]
        if self.commits_unheard:
            self.commits_unheard = False
            return None
        return 201, {}, b""

    def _where(self, name: str) -> dict[str, str]:
        last = max(0, len(self.uploads[name]) - 1)
        return {"Location": f"{self.elsewhere}/v2/a/b/blobs/uploads/{name}?state=s", "Range": f"0-{last}"}


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiving]:
    registry = Receiving()
    async with serving(registry.serve) as port:
        registry.host = f"127.0.0.1:{port}"
        yield registry


async def _body(asked: Asked, reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    left = int(asked.headers.get("content-length", 0))
    while left:
        piece = await reader.read(min(PIECE, left))
        if not piece:
            raise asyncio.IncompleteReadError(b"", left)
        left -= len(piece)
        asked.taken += len(piece)
        yield piece


def _parsed(head: bytes) -> Asked:
    first, *lines = head.decode().split("\r\n")[:-2]
    method, target, _ = first.split(" ")
    url = urlsplit(target)
    headers = {name.lower(): text for name, text in (line.split(": ", 1) for line in lines)}
    return Asked(method, url.path, dict(parse_qsl(url.query)), headers)
