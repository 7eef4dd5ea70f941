"""Bringing whole images in before anybody asks for them, by the way on which clients' questions bring them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field

from ocispec import mediatypes
from ocispec.descriptor import Descriptor
from ocispec.digest import Digest
from ocispec.errors import LayerhouseError, ManifestUnknown
from ocispec.manifest import Manifest
from ocispec.platform import Platform, best
from registry.mirror.mirror import Mirror
from registry.mirror.naming import Image
from storage.blobs import HostedBlobs
from storage.engine import Content, Engine
from storage.repository import Repository, StoredManifest
from storage.store import Store

# How many blobs of an image come at once.
_AT_ONCE = 4

Tell = Callable[[str], None]


@dataclass(slots=True)
class Warmed:
    """What there is of an image now.

    Attributes:
        fetched: blobs that came, by digest, with their sizes in bytes.
        here: how many were here before.
    """

    fetched: dict[Digest, int] = field(default_factory=dict)
    here: int = 0


class Warmer:
    """Brings images in; see `warming`.

    Args:
        engine: where they rest.
        store: gives the mirrored repositories.
        platforms: which of an index's images come: those that run best on these; None: all.
        tell: is told what comes, a line each.
    """

    def __init__(self, engine: Engine, store: Store, platforms: tuple[Platform, ...] | None, tell: Tell) -> None:
        self._engine = engine
        self._store = store
        self._platforms = platforms
        self._tell = tell

    async def warm(self, image: Image) -> Warmed:
        """Brings one image in whole.

        Raises:
            RegistryError: upstream has it not, or does not give it; what came stays.
            StorageError: it cannot be kept.
        """
        repository = self._store.repository(image.name)
        stored = await repository.manifests.get(image.wanted)
        manifest = _parsed(stored)
        self._tell(f"{image}: {stored.digest}{f', {len(manifest.manifests)} platforms' if manifest.is_index else ''}")
        warmed, slots = Warmed(), asyncio.Semaphore(_AT_ONCE)
        for each in await self._manifests(repository, manifest):
            blobs = {blob.digest: blob for blob in each.blobs if not mediatypes.is_foreign(blob.media_type)}
            async with asyncio.TaskGroup() as tasks:
                for blob in blobs.values():
                    tasks.create_task(self._bring(repository, blob, slots, warmed))
        return warmed

    async def _manifests(self, repository: Repository, manifest: Manifest) -> list[Manifest]:
        if not manifest.is_index:
            return [manifest]
        found = []
        for child in self._chosen(manifest):
            below = _parsed(await repository.manifests.get(child.digest))
            self._tell(f"  {child.platform or 'manifest'}: {child.digest}")
            found += await self._manifests(repository, below)
        return found

    def _chosen(self, index: Manifest) -> list[Descriptor]:
        if self._platforms is None:
            return list(index.manifests)
        choices = [(each.platform, each) for each in index.manifests if each.platform]
        found = {}
        for platform in self._platforms:
            chosen = best(platform, choices)
            if chosen is None:
                there = ", ".join(sorted({str(each) for each, _ in choices})) or "none"
                raise ManifestUnknown(f"it has no image for {platform}: expected one of {there}")
            found[chosen.digest] = chosen
        return list(found.values())

    async def _bring(self, repository: Repository, blob: Descriptor, slots: asyncio.Semaphore, warmed: Warmed) -> None:
        async with slots:
            if await HostedBlobs(self._engine, repository.name).has(blob.digest):
                warmed.here += 1
                return
            content = await repository.blobs.open(blob.digest)
            try:
                await _drained(content)
            finally:
                await content.close()
            warmed.fetched[blob.digest] = content.size
            self._tell(f"  {blob.digest}: {content.size} bytes")


@asynccontextmanager
async def warming(mirror: Mirror, platforms: tuple[Platform, ...] | None, tell: Tell) -> AsyncIterator[Warmer]:
    """Gives a warmer while the mirror's fetches run in this process, beside those of servers."""
    running = asyncio.create_task(mirror.run())
    try:
        # They are there once they had a turn.
        while not mirror.is_running and not running.done():  # noqa: ASYNC110 - some steps of the loop
            await asyncio.sleep(0.001)
        engine = mirror.usage.engine
        yield Warmer(engine, Store(engine, sparse_images=True, dressed=mirror.dressed), platforms, tell)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def each_warmed(warmer: Warmer, images: list[Image], tell: Tell, complain: Tell) -> bool:
    """Brings images in, one after the other; says whether all came."""
    good = True
    for image in images:
        try:
            warmed = await warmer.warm(image)
        except* LayerhouseError as errors:
            good = False
            complain(f"{image}: {_first(errors).message}")
        else:
            size = sum(warmed.fetched.values())
            tell(f"{image}: {len(warmed.fetched)} blobs fetched, {size} bytes; {warmed.here} were here")
    return good


def _first(errors: BaseExceptionGroup[LayerhouseError]) -> LayerhouseError:
    first = errors.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first


def _parsed(stored: StoredManifest) -> Manifest:
    return Manifest.parse(stored.raw, stored.media_type)


async def _drained(content: Content) -> None:
    """Waits for the last byte: it comes once the whole is verified and in its place."""
    if content.data is None:
        async with aclosing(content.stream(0, content.size)) as pieces:
            async for _ in pieces:
                pass
