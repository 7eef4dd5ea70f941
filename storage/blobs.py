"""Blobs of a hosted repository: a link in the repository, the data once for all repositories."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from ocispec.digest import Digest
from ocispec.errors import BlobUnknown, PathUnknown
from ocispec.reference import RepositoryName
from storage import links, paths
from storage.catalog import repositories
from storage.engine import Content, Engine

T = TypeVar("T")

# How many repositories a mount without a source looks into before the client is asked to upload.
MOUNT_SEARCH = 1000


class HostedBlobs:
    """Implements `storage.repository.Blobs`."""

    def __init__(self, engine: Engine, name: RepositoryName) -> None:
        self._engine = engine
        self._name = name

    async def size(self, digest: Digest) -> int:
        return (await self._found(digest, self._engine.stat)).size

    async def open(self, digest: Digest) -> Content:
        return await self._found(digest, self._engine.open)

    async def mount(
        self, digest: Digest, source: RepositoryName | None, readable: Callable[[RepositoryName], bool]
    ) -> bool:
        if source is not None:
            return readable(source) and await self._take(digest, source)
        searched = 0
        async for each in repositories(self._engine, holding=paths.LAYERS):
            if readable(each) and await self._take(digest, each):
                return True
            searched += 1
            if searched == MOUNT_SEARCH:
                break
        return False

    async def delete(self, digest: Digest) -> None:
        if await links.read(self._engine, paths.layer_link(self._name, digest)) is None:
            raise _unknown(digest)
        await self._engine.delete(paths.layer(self._name, digest))

    async def link(self, digest: Digest) -> None:
        """Makes a blob, whose data is durable already, part of this repository."""
        await links.write(self._engine, paths.layer_link(self._name, digest), digest)

    async def has(self, digest: Digest) -> bool:
        try:
            await self.size(digest)
        except BlobUnknown:
            return False
        return True

    async def _take(self, digest: Digest, source: RepositoryName) -> bool:
        if not await HostedBlobs(self._engine, source).has(digest):
            return False
        await self.link(digest)
        return True

    async def _found(self, digest: Digest, use: Callable[[str], Awaitable[T]]) -> T:
        target = await links.read(self._engine, paths.layer_link(self._name, digest))
        if target is None:
            raise _unknown(digest)
        try:
            return await use(paths.blob_data(target))
        except PathUnknown:
            raise _unknown(digest) from None


def _unknown(digest: Digest) -> BlobUnknown:
    return BlobUnknown(detail={"digest": str(digest)})
