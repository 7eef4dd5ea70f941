"""Pulling blobs and manifests (end-2, end-3), the requests that registries spend their time on.

Answered before FastAPI's routing, in plain ASGI: measured, routing and dependencies cost more than the work itself
(docs/performance.md).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass

from starlette.types import ASGIApp, Receive, Scope, Send

from ocispec import mediatypes
from ocispec.digest import Digest
from ocispec.errors import GrammarError, ManifestUnknown, RangeInvalid
from ocispec.headers import ByteRange, ContentRange
from ocispec.manifest import Manifest
from ocispec.platform import Platform, best
from ocispec.reference import RepositoryName, Tag, parse_tag_or_digest
from registry.events import Events, Target, What
from storage.engine import Content
from storage.repository import Repository, StoredManifest
from storage.store import Store

PATH = re.compile(r"/v2/(.*)/(manifests|blobs)/([^/]+)", re.DOTALL)
METHODS = frozenset({"GET", "HEAD"})
_FOREVER = (b"cache-control", b"max-age=31536000")
_RANGES = (b"accept-ranges", b"bytes")
# What docker was given by Distribution when it could not read an index.
_FALLBACK = Platform.parse("linux/amd64")

Headers = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class _Request:
    scope: Scope
    send: Send

    def header(self, name: bytes) -> str | None:
        """All values of a header, joined as RFC 9110 section 5.3 has it; None where it does not stand."""
        values = [value for key, value in self.scope["headers"] if key == name]
        return b", ".join(values).decode("latin-1") if values else None

    @property
    def is_head(self) -> bool:
        return bool(self.scope["method"] == "HEAD")

    async def start(self, status: int, headers: Headers) -> None:
        await self.send({"type": "http.response.start", "status": status, "headers": headers})

    async def answer(self, status: int, headers: Headers, body: bytes = b"") -> None:
        await self.start(status, headers)
        await self.send({"type": "http.response.body", "body": body})


class PullEndpoints:
    """Answers GET and HEAD of manifests and blobs; hands everything else on."""

    def __init__(self, app: ASGIApp, store: Store, events: Events) -> None:
        self._app = app
        self._store = store
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        match = scope["type"] == "http" and scope["method"] in METHODS and PATH.fullmatch(scope["path"])
        if not match:
            await self._app(scope, receive, send)
            return
        name, kind, reference = match.groups()
        repository = self._store.repository(RepositoryName.parse(name))
        endpoint: Callable[[_Request, Repository, str], Awaitable[Target | None]]
        endpoint = _blob if kind == "blobs" else _manifest
        target = await endpoint(_Request(scope, send), repository, reference)
        if target and self._events.wanted:
            await self._events.tell(What.PULL, scope, target)


async def _manifest(request: _Request, repository: Repository, reference: str) -> Target | None:
    """end-3: a manifest by tag or digest."""
    wanted = parse_tag_or_digest(reference)
    stored = await repository.manifests.get(wanted)
    accept = request.header(b"accept")
    if isinstance(wanted, Tag) and accept and not _accepts(accept, stored.media_type):
        stored = await _readable(repository, stored, accept)
    headers = _identity(stored.digest)
    if isinstance(wanted, Tag):
        headers.append((b"vary", b"accept"))
    if _is_known(request, stored.digest):
        await request.answer(304, headers)
        return None
    headers += (b"content-type", stored.media_type.encode()), (b"content-length", b"%d" % len(stored.raw))
    await request.answer(200, headers, b"" if request.is_head else stored.raw)
    return Target(repository.name, stored.digest, wanted if isinstance(wanted, Tag) else None, stored)


async def _blob(request: _Request, repository: Repository, reference: str) -> Target | None:
    """end-2: a blob, whole or a range of it."""
    digest = Digest.parse(reference)
    headers = [*_identity(digest), _FOREVER, _RANGES, (b"content-type", mediatypes.OCTET_STREAM.encode())]
    if _is_known(request, digest):
        await repository.blobs.size(digest)
        await request.answer(304, headers)
        return None
    if request.is_head:
        size = await repository.blobs.size(digest)
        await request.answer(200, [*headers, (b"content-length", b"%d" % size)])
        return Target(repository.name, digest, size=size)
    content = await repository.blobs.open(digest)
    try:
        await _send_content(request, content, digest, headers)
    finally:
        await content.close()
    return Target(repository.name, digest, size=content.size)


async def _send_content(request: _Request, content: Content, digest: Digest, headers: Headers) -> None:
    span = _span(request, content.size, digest)
    offset, count = span or (0, content.size)
    headers.append((b"content-length", b"%d" % count))
    if span:
        shown = ContentRange(offset, offset + count - 1, content.size)
        headers.append((b"content-range", str(shown).encode()))
    status = 206 if span else 200
    if content.data is not None:
        await request.answer(status, headers, content.data[offset : offset + count])
        return
    await request.start(status, headers)
    if "http.response.pathsend" in request.scope.get("extensions", ()) and (fd := content.detach()) is not None:
        await request.send({"type": "http.response.pathsend", "file": fd, "offset": offset, "count": count})
        return
    async with aclosing(content.stream(offset, count)) as pieces:
        async for piece in pieces:
            await request.send({"type": "http.response.body", "body": piece, "more_body": True})
    await request.send({"type": "http.response.body", "body": b""})


def _span(request: _Request, size: int, digest: Digest) -> tuple[int, int] | None:
    """Offset and length that the client asked for; None for all (RFC 9110, section 14.2)."""
    header = request.header(b"range")
    condition = request.header(b"if-range")
    if header is None or (condition is not None and condition != f'"{digest}"'):
        return None
    try:
        wanted = ByteRange.parse(header)
    except GrammarError:
        return None
    span = wanted.within(size)
    if span is None:
        unsatisfied = ContentRange(None, None, size)
        raise RangeInvalid(f"{header[:120]} lies outside of {size} bytes", headers={"Content-Range": str(unsatisfied)})
    return span


def _identity(digest: Digest) -> Headers:
    text = str(digest).encode()
    return [(b"docker-content-digest", text), (b"etag", b'"%b"' % text)]


def _is_known(request: _Request, digest: Digest) -> bool:
    known = request.header(b"if-none-match")
    if known is None:
        return False
    # Distribution's clients leave the quotes out.
    tags = {each.strip().removeprefix("W/").strip('"') for each in known.split(",")}
    return str(digest) in tags or "*" in tags


def _accepts(accept: str, media_type: str) -> bool:
    return media_type in accept or "*/*" in accept or "application/*" in accept


async def _readable(repository: Repository, stored: StoredManifest, accept: str) -> StoredManifest:
    """What a client that cannot read an index gets: the image in it for linux/amd64.

    Everything else is served as it is stored: a client that asked for too little still learns what there is.
    """
    if stored.media_type not in mediatypes.INDEXES:
        return stored
    index = await asyncio.to_thread(Manifest.parse, stored.raw)
    children = [(each.platform, each) for each in index.manifests if each.platform]
    child = best(_FALLBACK, children)
    if child is None or not _accepts(accept, child.media_type):
        return stored
    try:
        return await repository.manifests.get(child.digest)
    except ManifestUnknown:
        return stored
