"""A mirror's space without an upstream: what is fetched is entered as a mirror enters it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ocispec.digest import Digest
from ocispec.errors import StorageError
from ocispec.reference import RepositoryName, Tag
from registry.mirror.index import Index
from registry.mirror.marks import Kind
from registry.mirror.space import Share, Space
from registry.mirror.usage import Usage
from storage import paths
from storage.blobs import HostedBlobs
from storage.engine import Engine
from storage.store import Store
from tests.support.images import INDEX
from tests.support.stores import image

A, B, C = (RepositoryName(each) for each in ("docker.io/library/a", "docker.io/library/b", "ghcr.io/org/c"))
HOSTED = RepositoryName("team/app")
SHARES = (Share("docker.io", "docker.io/"), Share("ghcr.io", "ghcr.io/"))


class Crash(StorageError):
    """The process ends here."""


class Crashing:
    """An engine that stops at the `at`-th change: before it is made, or right after; 0 never does."""

    def __init__(self, engine: Any, at: int = 0, *, done: bool = False) -> None:
        self._engine, self.left, self.done = engine, at, done

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    async def delete(self, path: str, *, durable: bool = True) -> None:
        await self._change(self._engine.delete(path, durable=durable))

    async def move(self, source: str, target: str) -> None:
        await self._change(self._engine.move(source, target))

    async def write(self, path: str, data: bytes, *, durable: bool = True) -> None:
        await self._change(self._engine.write(path, data, durable=durable))

    async def _change(self, change: Any) -> None:
        self.left -= 1
        if self.left == 0 and not self.done:
            change.close()
            raise Crash("before")
        await change
        if self.left == 0:
            raise Crash("behind")


class Keeping:
    """A mirror's tree and what it knows of it.

    Attributes:
        now: the time, in seconds since the epoch.
    """

    def __init__(self, engine: Any, folder: Path, space: Space | None = None) -> None:
        self.engine: Any = engine
        self.store = Store(engine, sparse_images=True)
        self.folder = folder
        self.space = space or Space(SHARES)
        self.now = 2_000_000_000.0
        self.restart()

    def restart(self) -> None:
        self.usage = Usage(
            self.engine, self.space, scratch=self.folder / "scratch", state=self.folder, clock=lambda: self.now
        )
        self.usage.remover._pause = self.pause

    async def pause(self) -> None:
        """While something is removed."""

    async def fetch_blob(self, name: RepositoryName, data: bytes) -> Digest:
        self.now += 1
        digest = Digest.of(data)
        if not await HostedBlobs(self.engine, name).has(digest):
            if not await has(self.engine, digest):
                await self.engine.write(paths.blob_data(digest), data)
            async with self.usage.fetched(name, digest, len(data), Kind.BLOB):
                await HostedBlobs(self.engine, name).link(digest)
        self.usage.used(name, digest)
        return digest

    async def fetch(
        self, name: RepositoryName, manifest: bytes, blobs: Iterable[bytes] = (), tag: str | None = None
    ) -> Digest:
        """Fetches an image, or a part of it."""
        self.now += 1
        digest = Digest.of(manifest)
        async with self.usage.fetched(name, digest, len(manifest), Kind.MANIFEST):
            await self.store.repository(name).manifests.put(digest, manifest, None, [Tag(tag)] if tag else [])
        self.usage.used(name, digest)
        for data in blobs:
            await self.fetch_blob(name, data)
        return digest

    async def push(self, name: RepositoryName, manifest: bytes, blobs: Iterable[bytes], tag: str = "latest") -> Digest:
        for data in blobs:
            digest = Digest.of(data)
            if not await HostedBlobs(self.engine, name).has(digest):
                await self.engine.write(paths.blob_data(digest), data)
                await HostedBlobs(self.engine, name).link(digest)
        stored, _ = await self.store.repository(name).manifests.put(Tag(tag), manifest, None)
        return stored.digest

    async def entered(self) -> set[tuple[str, str, str]]:
        """What the index has."""
        found = set()
        for name in await self.usage.index.do(Index.names):
            found |= {
                (str(name), str(each.kind), str(each.digest))
                for each in await self.usage.index.do(Index.links_of, name)
            }
        return found

    async def kept(self, prefix: str = "") -> int:
        return await self.usage.index.do(Index.kept, prefix)

    async def bytes_here(self) -> set[Digest]:
        """What lies in the tree, linked or not."""
        found = set()
        for prefix in await self.engine.children(f"{paths.BLOBS}/sha256"):
            for name in await self.engine.children(f"{paths.BLOBS}/sha256/{prefix}"):
                if await has(self.engine, digest := Digest.parse(f"sha256:{name}")):
                    found.add(digest)
        return found


async def has(engine: Engine, digest: Digest) -> bool:
    try:
        await engine.stat(paths.blob_data(digest))
    except StorageError:
        return False
    return True


def manifest(*layers: bytes, **more: Any) -> bytes:
    """An image whose config is its last layer."""
    *rest, config = map(Digest.of, layers)
    return json.dumps(image(config, rest, **more)).encode()


def index(*children: bytes) -> bytes:
    described = [
        {
            "mediaType": json.loads(each)["mediaType"],
            "digest": str(Digest.of(each)),
            "size": len(each),
            "platform": {"os": "linux", "architecture": architecture},
        }
        for each, architecture in zip(children, ("amd64", "arm64", "s390x"), strict=False)
    ]
    return json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": described}).encode()
