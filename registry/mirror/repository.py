"""A mirrored repository: what is here, and behind it what upstream has. What changes it concerns what is here alone."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress

from ocispec.descriptor import Descriptor
from ocispec.digest import Digest
from ocispec.errors import BlobUnknown, GrammarError, ManifestInvalid, ManifestUnknown, RegistryError, StorageError
from ocispec.manifest import Manifest
from ocispec.reference import RepositoryName, Tag
from registry.mirror.fetching import Fetches
from registry.mirror.marks import Kind
from registry.mirror.upstream import Refused, Upstream, answered
from registry.mirror.usage import Usage
from storage.engine import Content
from storage.repository import Blobs, Manifests, Page, Referrers, StoredManifest, TagLink, Tags

_log = logging.getLogger("registry")


class Sizes:
    """How long blobs are, as the manifests that name them say, the last `limit` of them.

    Each repository's for itself: what another one has may be none of this one's readers' business.
    """

    def __init__(self, limit: int = 100_000) -> None:
        self._limit = limit
        self._sizes: OrderedDict[tuple[RepositoryName, Digest], int] = OrderedDict()

    def get(self, name: RepositoryName, digest: Digest) -> int | None:
        return self._sizes.get((name, digest))

    def learn(self, name: RepositoryName, digest: Digest, manifest: Manifest) -> None:
        """Learns from a manifest, and that it was learnt from: its own size."""
        self._sizes[name, digest] = len(manifest.raw)
        for each in manifest.blobs:
            self._sizes[name, each.digest] = each.size
        while len(self._sizes) > self._limit:
            self._sizes.popitem(last=False)


class MirroredBlobs:
    """Implements `storage.repository.Blobs`."""

    def __init__(
        self, name: RepositoryName, here: Blobs, upstream: Upstream, fetches: Fetches, sizes: Sizes, *, usage: Usage
    ) -> None:
        self._name = name
        self._here = here
        self._upstream = upstream
        self._fetches = fetches
        self._sizes = sizes
        self._usage = usage

    async def size(self, digest: Digest) -> int:
        with suppress(BlobUnknown):
            return await self._here.size(digest)
        return await self._size_there(digest)

    async def open(self, digest: Digest) -> Content:
        with suppress(BlobUnknown):
            found = await self._here.open(digest)
            self._usage.used(self._name, digest)
            return found
        fetch = self._fetches.of(self._name, digest, await self._size_there(digest))
        return await fetch.content() or await self._here.open(digest)

    async def mount(
        self, digest: Digest, source: RepositoryName | None, readable: Callable[[RepositoryName], bool]
    ) -> bool:
        return await self._here.mount(digest, source, readable)

    async def delete(self, digest: Digest) -> None:
        await self._here.delete(digest)

    async def _size_there(self, digest: Digest) -> int:
        known = self._sizes.get(self._name, digest)
        if known is not None:
            return known
        with answered():
            return await self._upstream.size(self._name, digest)


class MirroredManifests:
    """Implements `storage.repository.Manifests`.

    A tag is asked of upstream each time, by a HEAD, which Docker Hub does not count; the manifest is fetched only
    where it stands for another digest than here. Where upstream does not answer, what is here is served.
    """

    def __init__(
        self,
        name: RepositoryName,
        here: Manifests,
        upstream: Upstream,
        sizes: Sizes,
        usage: Usage,
    ) -> None:
        self._name = name
        self._here = here
        self._upstream = upstream
        self._sizes = sizes
        self._usage = usage

    async def get(self, reference: Tag | Digest) -> StoredManifest:
        found = await self._at_hand(reference)
        if found and isinstance(reference, Digest):
            return found
        try:
            with answered():
                return await self._current(reference, found)
        except RegistryError as error:
            if found is None or _is_gone(error):
                raise
            _log.warning("%s:%s is served as it is here: %s", self._name, reference, error.message)
            return found

    async def put(
        self, reference: Tag | Digest, raw: bytes, media_type: str | None, tags: Sequence[Tag] = ()
    ) -> tuple[StoredManifest, Digest | None]:
        return await self._here.put(reference, raw, media_type, tags)

    async def delete(self, digest: Digest) -> tuple[Tag, ...]:
        return await self._here.delete(digest)

    async def _at_hand(self, reference: Tag | Digest) -> StoredManifest | None:
        try:
            found = await self._here.get(reference)
        except ManifestUnknown:
            return None
        self._usage.used(self._name, found.digest)
        if self._sizes.get(self._name, found.digest) is None:
            with suppress(ManifestInvalid):
                manifest = await asyncio.to_thread(Manifest.parse, found.raw, found.media_type)
                self._sizes.learn(self._name, found.digest, manifest)
        return found

    async def _current(self, reference: Tag | Digest, found: StoredManifest | None) -> StoredManifest:
        remote = self._upstream.remote(self._name)
        if isinstance(reference, Tag):
            stated = await remote.head(reference)
            if found and stated == found.digest:
                return found
        digest, manifest = await remote.manifest(reference)
        self._sizes.learn(self._name, digest, manifest)
        tags = (reference,) if isinstance(reference, Tag) else ()
        try:
            async with self._usage.fetched(self._name, digest, len(manifest.raw), Kind.MANIFEST):
                stored, _ = await self._here.put(digest, manifest.raw, manifest.media_type, tags)
        except StorageError as error:
            # A full disk here is no reason to go without what is there.
            _log.error("%s:%s cannot be kept: %s", self._name, reference, error.message)
            return StoredManifest(digest, manifest.media_type, manifest.raw)
        return stored


class MirroredTags:
    """Implements `storage.repository.Tags`: upstream's list; what is here where upstream does not answer."""

    def __init__(self, name: RepositoryName, here: Tags, upstream: Upstream) -> None:
        self._name = name
        self._here = here
        self._upstream = upstream

    async def page(self, after: str, limit: int) -> Page:
        try:
            with answered():
                names = await self._upstream.tags(self._name)
        except RegistryError as error:
            if _is_gone(error):
                raise
            _log.warning("%s: the tags that are here are listed: %s", self._name, error.message)
            return await self._here.page(after, limit)
        return Page.of(sorted({each for each in names if each > after and _is_tag(each)})[: limit + 1], limit)

    async def link(self, tag: Tag) -> TagLink:
        return await self._here.link(tag)

    async def delete(self, tag: Tag) -> None:
        await self._here.delete(tag)


class MirroredReferrers:
    """Implements `storage.repository.Referrers`: upstream's; what is here where upstream does not answer."""

    def __init__(self, name: RepositoryName, here: Referrers, upstream: Upstream) -> None:
        self._name = name
        self._here = here
        self._upstream = upstream

    async def of(self, subject: Digest) -> tuple[Descriptor, ...]:
        try:
            with answered():
                return await self._upstream.referrers(self._name, subject)
        except RegistryError as error:
            _log.warning("%s: the referrers that are here are listed: %s", self._name, error.message)
            return await self._here.of(subject)


def _is_gone(error: RegistryError) -> bool:
    """Whether upstream knows better than what is here; anything else is a reason to serve that."""
    return error.status == 404 and not isinstance(error, Refused)


def _is_tag(text: str) -> bool:
    try:
        Tag.parse(text)
    except (RegistryError, GrammarError):
        return False
    return True
