"""A mirrored repository: what is here, and behind it what upstream has. What changes it concerns what is here alone."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

from ocispec.digest import Digest
from ocispec.errors import (
    BlobUnknown,
    ManifestInvalid,
    ManifestUnknown,
    NameUnknown,
    RegistryError,
    StorageError,
    Unavailable,
)
from ocispec.manifest import Manifest
from ocispec.reference import RepositoryName, Tag
from registry.mirror.asked import tell_stale
from registry.mirror.counting import Counts
from registry.mirror.fetching import Fetches
from registry.mirror.flights import Flights, copy
from registry.mirror.lists import Lists, is_gone
from registry.mirror.marks import Kind
from registry.mirror.reading import Fetch
from registry.mirror.remembering import Freshness, Remembered
from registry.mirror.upstream import Upstream, answered
from registry.mirror.usage import Usage
from storage.engine import Content
from storage.repository import Blobs, Manifests, StoredManifest

_log = logging.getLogger("registry")
# What upstream has not is not asked for again for so many seconds.
ABSENT_SECONDS = 5.0
_MOST_ABSENT = 10_000
# Manifests of one repository that it is remembered of that their blobs are known.
_MOST_LEARNT = 1000
# How often a blob is fetched for one request that finds it evicted when it has come.
_TRIES = 3


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


@dataclass(frozen=True, slots=True)
class Behind:
    """What stands behind the repositories of one upstream.

    Attributes:
        upstream: the registry that is asked.
        fetches: its blobs on their way.
        flights: its questions on their way.
        freshness: when its tags were confirmed.
        lists: its lists.
        sizes: how long its blobs are.
        usage: is told what was fetched and used.
        counts: is told what was asked for.
        absent: what it said lately that it has not.
    """

    upstream: Upstream
    fetches: Fetches
    flights: Flights
    freshness: Freshness
    lists: Lists
    sizes: Sizes
    usage: Usage
    counts: Counts
    absent: Remembered[tuple[RepositoryName, Tag | Digest], RegistryError] = field(
        default_factory=lambda: Remembered(_MOST_ABSENT)
    )


class MirroredBlobs:
    """Implements `storage.repository.Blobs`."""

    def __init__(self, name: RepositoryName, there: RepositoryName, here: Blobs, behind: Behind) -> None:
        self._name = name
        self._there = there
        self._here = here
        self._behind = behind

    async def size(self, digest: Digest) -> int:
        with suppress(BlobUnknown):
            return await self._here.size(digest)
        return await self._size_there(digest)

    async def open(self, digest: Digest) -> Content:
        count = self._behind.counts.blobs
        try:
            found = await self._here.open(digest)
        except BlobUnknown:
            size = await self._size_there(digest)
        else:
            self._behind.usage.used(self._name, digest)
            count.hit(found.size)
            return found
        count.missed(size)
        for _ in range(_TRIES):
            fetch = await self._fetch(digest, size)
            if content := await fetch.content():
                return content
            # It is here, unless it has made room for others since.
            with suppress(BlobUnknown):
                return await self._here.open(digest)
        raise Unavailable(f"{digest} goes as soon as it has come: the mirror's cap is too small")

    async def mount(
        self, digest: Digest, source: RepositoryName | None, readable: Callable[[RepositoryName], bool]
    ) -> bool:
        return await self._here.mount(digest, source, readable)

    async def delete(self, digest: Digest) -> None:
        await self._here.delete(digest)

    async def _fetch(self, digest: Digest, size: int) -> Fetch:
        """Returns the blob on its way; raises BlobUnknown where it is here for others, and upstream has it not for us.

        A manifest may name what its repository does not have: a foreign layer, for one (as CVE-2024-39897 was).
        """
        fetches = self._behind.fetches
        is_theirs = await fetches.is_of_others(self._name, digest, size)
        if is_theirs:
            await self._told_size(digest)
        return fetches.of(self._name, digest, size, self._there, is_theirs=is_theirs)

    async def _size_there(self, digest: Digest) -> int:
        """Returns how long a blob is, as upstream's manifests say, or upstream itself."""
        known = self._behind.sizes.get(self._name, digest)
        return await self._told_size(digest) if known is None else known

    async def _told_size(self, digest: Digest) -> int:
        """Returns how long a blob is, as upstream itself says, whose repository then has it."""
        key = self._name, digest
        if absent := self._behind.absent.get(key, ABSENT_SECONDS):
            raise copy(absent)
        try:
            return await self._behind.flights.join(("blob", *key), partial(self._asked, digest))
        except RegistryError as error:
            if error.status == BlobUnknown.status:
                self._behind.absent.put(key, error)
            raise

    async def _asked(self, digest: Digest) -> int:
        with answered():
            return await self._behind.upstream.size(self._there, digest)


class MirroredManifests:
    """Implements `storage.repository.Manifests`.

    A tag is believed for a while, then asked for by a HEAD, which Docker Hub does not count; a manifest is fetched only
    where it stands for another one than here. Where upstream cannot be asked, what is here is served, and the answer
    says so. Of many who ask at once, one asks upstream.
    """

    def __init__(self, name: RepositoryName, there: RepositoryName, here: Manifests, behind: Behind) -> None:
        self._name = name
        self._there = there
        self._here = here
        self._behind = behind
        self._upstream = behind.upstream
        self._learnt: set[Digest] = set()

    async def get(self, reference: Tag | Digest) -> StoredManifest:
        count = self._behind.counts.manifests
        try:
            # As `_at_hand`, without its microsecond.
            found = await self._here.get(reference)
        except ManifestUnknown:
            found = await self._missing(reference)
            count.missed(len(found.raw))
            return found
        self._behind.usage.used(self._name, found.digest)
        if found.digest not in self._learnt:
            await self._learn(found)
        if isinstance(reference, Tag) and not self._behind.freshness.is_fresh(self._name, reference):
            found = await self._confirmed(reference, found)
        count.hit(len(found.raw))
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
        self._behind.usage.used(self._name, found.digest)
        if found.digest not in self._learnt:
            await self._learn(found)
        return found

    async def _learn(self, found: StoredManifest) -> None:
        """Learns how long the blobs are that a manifest names, once."""
        if len(self._learnt) >= _MOST_LEARNT:
            self._learnt.clear()
        self._learnt.add(found.digest)
        with suppress(ManifestInvalid):
            manifest = await asyncio.to_thread(Manifest.parse, found.raw, found.media_type)
            self._behind.sizes.learn(self._name, found.digest, manifest)

    async def _missing(self, reference: Tag | Digest) -> StoredManifest:
        """Fetches what is not here, unless upstream just said that it has none."""
        key = self._name, reference
        if absent := self._behind.absent.get(key, ABSENT_SECONDS):
            raise copy(absent)
        try:
            return await self._behind.flights.join(("manifest", *key), partial(self._arrived, reference))
        except RegistryError as error:
            if error.status == NameUnknown.status:
                self._behind.absent.put(key, error)
            raise

    async def _arrived(self, reference: Tag | Digest) -> StoredManifest:
        # The flight before this one may have brought it since it was looked for.
        return await self._at_hand(reference) or await self._fetched(reference)

    async def _confirmed(self, tag: Tag, found: StoredManifest) -> StoredManifest:
        """Returns what a tag stands for now, or what it stood for when that cannot be found out."""
        try:
            return await self._behind.flights.join(("tag", self._name, tag), partial(self._current, tag, found))
        except RegistryError as error:
            if is_gone(error) or not await self._behind.freshness.is_usable(self._name, tag):
                raise
            _log.debug("%s:%s is served as it is here: %s", self._name, tag, error.message)
            tell_stale()
            return found

    async def _current(self, tag: Tag, found: StoredManifest) -> StoredManifest:
        stated = await self._upstream.head(self._there, tag)
        if stated == found.digest:
            await self._behind.freshness.confirmed(self._name, tag)
            return found
        known = await self._at_hand(stated) if stated else None
        if known is None:
            return await self._fetched(tag, briefly=True)
        await self._here.put(known.digest, known.raw, known.media_type, (tag,))
        await self._behind.freshness.confirmed(self._name, tag)
        return known

    async def _fetched(self, reference: Tag | Digest, *, briefly: bool = False) -> StoredManifest:
        digest, manifest = await self._upstream.manifest(self._there, reference, briefly=briefly)
        self._behind.counts.manifests.pulled += len(manifest.raw)
        self._behind.sizes.learn(self._name, digest, manifest)
        tags = (reference,) if isinstance(reference, Tag) else ()
        try:
            async with self._behind.usage.fetched(self._name, digest, len(manifest.raw), Kind.MANIFEST):
                stored, _ = await self._here.put(digest, manifest.raw, manifest.media_type, tags)
        except StorageError as error:
            # A full disk here is no reason to go without what is there.
            _log.error("%s:%s cannot be kept: %s", self._name, reference, error.message)
            return StoredManifest(digest, manifest.media_type, manifest.raw)
        for tag in tags:
            await self._behind.freshness.confirmed(self._name, tag)
        return stored
