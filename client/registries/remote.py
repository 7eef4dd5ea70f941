"""A repository at a registry and at its mirrors (distribution-spec, "Pull")."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from client.registries.api import PASSING, Api, counted, expect, origin, reached, refusal, within
from client.registries.retrying import Patience
from client.wire.exchange import Request, Response, read
from ocispec import mediatypes
from ocispec.descriptor import Descriptor
from ocispec.digest import Digest
from ocispec.errors import (
    BlobUnknown,
    ConfigurationError,
    ContentTruncated,
    DigestInvalid,
    DigestMismatch,
    GrammarError,
    HostUnreachable,
    LayerhouseError,
    ManifestUnknown,
    ResponseInvalid,
)
from ocispec.headers import ByteRange, ContentRange
from ocispec.manifest import Manifest
from ocispec.reference import Reference, Tag

MAX_MANIFEST = 4 * 1024 * 1024
# What the store behind a redirect answers when its signed address is no longer good.
_EXPIRED = frozenset({400, 401, 403, 404, 410})

_ACCEPT = {"Accept": mediatypes.ACCEPT}

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Body:
    """A blob's bytes on their way.

    Attributes:
        offset: of the first byte: what was asked for, or 0 where the host does not serve ranges.
        partial: whether only the range comes that was asked for.
        response: gives them.
    """

    offset: int
    partial: bool
    response: Response


class Remote:
    """The repository that a reference names, at the mirrors of its registry and then at the registry itself.

    A mirror that fails in any way is left for the next endpoint; the registry's own error is the one that is raised.
    Every error tells host, image, digest and cause in one line.

    Args:
        reference: the image.
        connect: gives the endpoints, in the order in which they are asked.
        patience: how often something is tried again.
        told: hears of each mirror that is given up.

    Attributes:
        told: the same.
    """

    def __init__(
        self,
        reference: Reference,
        connect: Callable[[], Awaitable[Sequence[Api]]],
        patience: Patience,
        told: Callable[[str], None],
    ) -> None:
        self.reference = reference
        self._connect = connect
        self._patience = patience
        self.told = told
        self._apis: Sequence[Api] = ()
        # Endpoints that are not asked again: for anything, or for what they do not have.
        self._given_up: set[Api | tuple[Api, Tag | Digest]] = set()
        self._moved: dict[tuple[Api, Digest], str] = {}

    @property
    def host(self) -> str:
        """The registry's host, as waits and slots call it."""
        return self.reference.host

    async def endpoints(self) -> Sequence[Api]:
        """Returns all endpoints, mirrors first, the registry itself last; raises ConfigurationError."""
        if not self._apis:
            self._apis = await self._connect()
        return self._apis

    async def pushing(self) -> Api:
        """Returns the endpoint that takes pushes.

        Raises:
            ConfigurationError: none does.
        """
        found = [each for each in await self.endpoints() if each.endpoint.pushes and not each.endpoint.mirror]
        if not found:
            raise ConfigurationError(f"{self.reference}: no endpoint takes pushes")
        return await reached(found, self.told)

    async def head(self, target: Tag | Digest) -> Digest | None:
        """Returns the digest that the registry says a manifest has; None where it does not say (end-3).

        Raises:
            HostUnreachable, Unauthorized: see the class.
        """

        async def ask(api: Api) -> Digest | None:
            async with api.send("HEAD", _manifest(api, target), headers=_ACCEPT, again=False) as response:
                if response.status in PASSING:
                    raise await refusal(response, ManifestUnknown)
                return _stated_digest(response) if response.status == 200 else None

        return await self._first(target, ask)

    async def manifest(self, target: Tag | Digest) -> tuple[Digest, Manifest]:
        """Fetches a manifest or index and verifies it against its digest (end-3).

        Raises:
            ManifestUnknown, Unauthorized, …: as the registry answers.
            ManifestInvalid: it cannot be read, or is of schema 1.
            DigestMismatch: its bytes are not those the digest names.
            ContentTruncated, HostUnreachable, ResponseInvalid: on the way.
        """

        async def ask(api: Api) -> tuple[Digest, Manifest]:
            async with api.send("GET", _manifest(api, target), headers=_ACCEPT, again=False) as response:
                await expect(response, 200, ManifestUnknown)
                stated = target if isinstance(target, Digest) else _stated_digest(response)
                raw = await read(counted(response), MAX_MANIFEST)
            if raw is None:
                raise ResponseInvalid(f"the manifest is longer than {MAX_MANIFEST} bytes")
            digest = stated or Digest.of(raw)
            if not digest.matches(raw):
                raise DigestMismatch(f"expected {digest}, its content hashes to {Digest.of(raw, digest.algorithm)}")
            return digest, Manifest.parse(raw, _manifest_type(response))

        return await self._first(target, ask)

    async def small_blob(self, wanted: Descriptor) -> bytes:
        """Returns a blob of at most 4 MiB, verified; see `blob` for errors, and DigestMismatch."""

        async def ask(api: Api) -> bytes:
            async with api.send("GET", _blob(api, wanted.digest), again=False) as response:
                await expect(response, 200, BlobUnknown)
                data = await read(counted(response), MAX_MANIFEST)
            if data is None or not wanted.digest.matches(data):
                raise DigestMismatch(f"its content does not hash to {wanted.digest}")
            return data

        return await self._first(wanted.digest, ask)

    @asynccontextmanager
    async def blob(self, digest: Digest) -> AsyncIterator[AsyncIterator[bytes]]:
        """Opens a blob, to be read piece by piece and verified by the reader (end-2).

        Raises:
            BlobUnknown, Unauthorized, …: as the registry answers.
            ContentTruncated: the body ended early; raised while it is read.
            HostUnreachable, ResponseInvalid: on the way.
        """
        async with self.part(digest, again=True) as body, aclosing(counted(body.response)) as pieces:
            with within(self.place(digest)):
                yield pieces

    @asynccontextmanager
    async def part(
        self, digest: Digest, span: ByteRange | None = None, *, mirrors: bool = True, again: bool = False
    ) -> AsyncIterator[Body]:
        """Opens a blob from one endpoint, or a range of it where that serves ranges; errors as `blob` (end-2).

        Args:
            digest: the blob.
            span: first and last byte; None for the whole.
            mirrors: whether mirrors are asked.
            again: whether it is tried again; who fetches in parts does that itself.

        Raises:
            ResponseInvalid: the host answered with another range than it was asked for.
        """
        headers = {"Range": str(span)} if span else {}

        async def ask(api: Api) -> tuple[Response, AsyncExitStack]:
            async with AsyncExitStack() as stack:
                response = await stack.enter_async_context(self._content(api, digest, headers))
                if not (span and response.status == 206):
                    await expect(response, 200, BlobUnknown)
                if api.endpoint.mirror:
                    stack.enter_context(self._watched(api, digest))
                return response, stack.pop_all()

        response, opened = await self._first(digest, ask, mirrors=mirrors, again=again)
        async with opened:
            with within(self.place(digest)):
                yield body_of(response, span)

    def place(self, target: Tag | Digest) -> str:
        """How messages call a manifest or blob of this image."""
        known = (self.reference.tag, self.reference.digest)
        return str(self.reference) if target in known else f"{self.reference}: {target}"

    @contextmanager
    def _watched(self, mirror: Api, digest: Digest) -> Iterator[None]:
        """Leaves the rest of a blob to the next endpoint where a mirror's bytes end early, or are none of it."""
        try:
            yield
        except (ContentTruncated, DigestMismatch, ResponseInvalid) as error:
            self._given_up.add((mirror, digest))
            self.told(f"{error.message} (from {mirror.endpoint.host}); going on with the next")
            raise

    @asynccontextmanager
    async def _content(self, api: Api, digest: Digest, headers: Mapping[str, str]) -> AsyncIterator[Response]:
        """Sends the request for a blob, straight to where the registry led the last one, while that is good."""
        if moved := self._moved.get((api, digest)):
            try:
                async with api.open(Request("GET", moved, headers, behind=api.endpoint.api)) as response:
                    if response.status not in _EXPIRED:
                        yield response
                        return
            except (HostUnreachable, ContentTruncated):
                self._moved.pop((api, digest), None)
                raise
            # Another part may have found it out before.
            self._moved.pop((api, digest), None)
        async with api.send("GET", _blob(api, digest), headers=headers, again=False) as response:
            # Only a blob that comes in several parts is asked for again.
            if response.status == 206 and origin(response.url) != origin(api.endpoint.api):
                self._moved[api, digest] = response.url
            yield response

    async def _first(
        self, target: Tag | Digest, ask: Callable[[Api], Awaitable[T]], *, mirrors: bool = True, again: bool = True
    ) -> T:
        """Asks one endpoint after the other."""
        by_tag = isinstance(target, Tag)
        found = [each for each in await self.endpoints() if mirrors or not each.endpoint.mirror]
        *others, last = [each for each in found if each.endpoint.resolves or not by_tag or not each.endpoint.mirror]
        for api in others:
            if {api, (api, target)} & self._given_up or not (api.endpoint.serves or by_tag):
                continue
            try:
                with within(f"{self.place(target)} at {api.endpoint.host}"):
                    return await ask(api)
            except LayerhouseError as error:
                # Of several ways to the registry itself, the first that leads there has the last word.
                if not (api.endpoint.mirror or isinstance(error, HostUnreachable)):
                    raise
                self._given_up.add(api if isinstance(error, HostUnreachable) else (api, target))
                self.told(f"{error.message}; going on with the next")
        with within(self._place_at(target, last)):
            asked = partial(ask, last)
            return await (self._patience.run(self.host, asked) if again else asked())

    def _place_at(self, target: Tag | Digest, api: Api) -> str:
        host = api.endpoint.host
        return self.place(target) if host == self.reference.host else f"{self.place(target)} at {host}"


def _manifest(api: Api, target: Tag | Digest) -> str:
    return f"{api.endpoint.repository}/manifests/{target}"


def _blob(api: Api, digest: Digest) -> str:
    return f"{api.endpoint.repository}/blobs/{digest}"


def body_of(response: Response, span: ByteRange | None) -> Body:
    """Reads from an answer which bytes it brings; raises ResponseInvalid where they are not those of `span`."""
    if response.status != 206 or span is None:
        return Body(0, partial=False, response=response)
    given = response.headers.get("content-range", "")
    try:
        found = ContentRange.parse(given)
    except GrammarError as error:
        raise ResponseInvalid(error.message) from error
    length = response.headers.get("content-length")
    exact = (found.first, found.last) == (span.first, span.last)
    if not exact or (length and length != str((found.last or 0) - (found.first or 0) + 1)):
        raise ResponseInvalid(f"asked for {span}, the answer has Content-Range {given[:80]!r}, {length!r:.20} bytes")
    return Body(found.first or 0, partial=True, response=response)


def _stated_digest(response: Response) -> Digest | None:
    stated = response.headers.get("docker-content-digest")
    try:
        return Digest.parse(stated) if stated else None
    except DigestInvalid as error:
        raise ResponseInvalid(f"Docker-Content-Digest: {error.message}") from error


def _manifest_type(response: Response) -> str | None:
    # Servers that keep manifests as plain files say text/plain or the like, and then the manifest itself decides.
    given = mediatypes.essence(response.headers.get("content-type", ""))
    return given if given in mediatypes.MANIFESTS | mediatypes.SCHEMA_1 else None
