"""Manifests of a hosted repository."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence

from ocispec import mediatypes
from ocispec.digest import Digest
from ocispec.errors import (
    DigestInvalid,
    ManifestBlobUnknown,
    ManifestInvalid,
    ManifestTooLarge,
    ManifestUnknown,
    ObjectTooLong,
    PathUnknown,
)
from ocispec.manifest import Manifest
from ocispec.reference import RepositoryName, Tag
from storage import links, paths
from storage.blobs import HostedBlobs
from storage.engine import Engine
from storage.referrers import HostedReferrers
from storage.repository import MAX_MANIFEST, StoredManifest
from storage.rules import Rules
from storage.tags import HostedTags
from storage.threads import paced


class ManifestCache:
    """Manifests read lately, up to `limit` bytes in all.

    Content under a digest never changes, so nothing here can be stale; whether a repository holds the digest is not
    asked here but of its link, every time.
    """

    def __init__(self, limit: int = 32 * 1024 * 1024) -> None:
        self._limit = limit
        self._size = 0
        self._entries: OrderedDict[Digest, StoredManifest] = OrderedDict()

    def get(self, digest: Digest) -> StoredManifest | None:
        found = self._entries.get(digest)
        if found:
            self._entries.move_to_end(digest)
        return found

    def put(self, manifest: StoredManifest) -> None:
        if manifest.digest not in self._entries:
            self._size += len(manifest.raw)
            self._entries[manifest.digest] = manifest
        while self._size > self._limit:
            _, oldest = self._entries.popitem(last=False)
            self._size -= len(oldest.raw)


class HostedManifests:
    """Implements `storage.repository.Manifests`.

    Args:
        engine: where the bytes rest.
        name: the repository's.
        cache: shared by all repositories.
        required: where the blobs of an image must lie before it is taken; None where they need not.
        rules: what else is asked of a manifest.
        tags: the repository's.
        referrers: the repository's.
    """

    def __init__(
        self,
        engine: Engine,
        name: RepositoryName,
        *,
        cache: ManifestCache,
        required: HostedBlobs | None,
        rules: Rules,
        tags: HostedTags,
        referrers: HostedReferrers,
    ) -> None:
        self._engine = engine
        self._name = name
        self._cache = cache
        self._required = required
        self._rules = rules
        self._tags = tags
        self._referrers = referrers

    async def get(self, reference: Tag | Digest) -> StoredManifest:
        digest = reference if isinstance(reference, Digest) else await self._tags.resolve(reference)
        target = digest and await links.read(self._engine, paths.revision_link(self._name, digest))
        if target is None:
            raise _unknown(reference)
        return self._cache.get(target) or await self._load(target, reference)

    async def put(
        self, reference: Tag | Digest, raw: bytes, media_type: str | None, tags: Sequence[Tag] = ()
    ) -> tuple[StoredManifest, Digest | None]:
        if len(raw) > MAX_MANIFEST:
            raise ManifestTooLarge(f"manifest of {len(raw)} bytes: at most {MAX_MANIFEST} are accepted")
        digest = await asyncio.to_thread(_digest, reference, raw)
        manifest = await asyncio.to_thread(self._accepted, raw, media_type)
        missing = [str(digest) async for digest in self._missing(manifest)]
        if missing:
            raise ManifestBlobUnknown(
                f"manifest references what is unknown to {self._name}: {', '.join(missing)}",
                detail=[{"digest": digest} for digest in missing],
            )
        await self._engine.write(paths.blob_data(digest), raw)
        if manifest.subject:
            # Before the link: what the index names without a link does not count, the other way round would be lost.
            await self._referrers.add(manifest.subject.digest, manifest.descriptor(digest))
        await links.write(self._engine, paths.revision_link(self._name, digest), digest)
        for tag in tags if isinstance(reference, Digest) else (reference, *tags):
            await self._tags.point(tag, digest)
        stored = StoredManifest(digest, manifest.media_type, raw)
        self._cache.put(stored)
        return stored, manifest.subject.digest if manifest.subject else None

    async def delete(self, digest: Digest) -> tuple[Tag, ...]:
        if await links.read(self._engine, paths.revision_link(self._name, digest)) is None:
            raise _unknown(digest)
        tags = await self._tags.delete_pointing_at(digest)
        await self._engine.delete(paths.revision(self._name, digest))
        return tags

    async def _load(self, digest: Digest, reference: Tag | Digest) -> StoredManifest:
        try:
            raw = await self._engine.read(paths.blob_data(digest), MAX_MANIFEST)
        except PathUnknown:
            raise _unknown(reference) from None
        except ObjectTooLong as error:
            raise _unknown(reference, f"manifest {digest} is damaged in storage: {error.message}") from error
        try:
            stored = await asyncio.to_thread(_verified, digest, raw)
        except ManifestInvalid as error:
            raise _unknown(reference, f"manifest {digest} is damaged in storage: {error.message}") from error
        self._cache.put(stored)
        return stored

    def _accepted(self, raw: bytes, media_type: str | None) -> Manifest:
        manifest = Manifest.parse(raw, media_type)
        self._rules.accept(manifest)
        return manifest

    async def _missing(self, manifest: Manifest) -> AsyncIterator[Digest]:
        """Yields what has to lie here and does not: blobs of an image, and children of an index as the rules want."""
        children = dict.fromkeys(each.digest for each in manifest.manifests if self._rules.children(each))
        async for digest in paced(children):
            if not await self._has(digest):
                yield digest
        # Foreign layers never come.
        blobs = dict.fromkeys(each.digest for each in manifest.blobs if not mediatypes.is_foreign(each.media_type))
        async for digest in paced(blobs if self._required else ()):
            if self._required and not await self._required.has(digest):
                yield digest

    async def _has(self, digest: Digest) -> bool:
        target = await links.read(self._engine, paths.revision_link(self._name, digest))
        try:
            return target is not None and bool(await self._engine.stat(paths.blob_data(target)))
        except PathUnknown:
            return False


def _digest(reference: Tag | Digest, raw: bytes) -> Digest:
    if not isinstance(reference, Digest):
        return Digest.of(raw)
    actual = Digest.of(raw, reference.algorithm)
    if actual != reference:
        raise DigestInvalid(
            f"the manifest's digest is {actual}, not {reference}",
            detail={"expected": str(reference), "actual": str(actual)},
        )
    return reference


def _verified(digest: Digest, raw: bytes) -> StoredManifest:
    if not digest.matches(raw):
        raise ManifestInvalid(f"its bytes hash to {Digest.of(raw, digest.algorithm)}")
    return StoredManifest(digest, Manifest.parse(raw).media_type, raw)


def _unknown(reference: Tag | Digest, message: str | None = None) -> ManifestUnknown:
    kind = "digest" if isinstance(reference, Digest) else "tag"
    return ManifestUnknown(message, detail={kind: str(reference)})
