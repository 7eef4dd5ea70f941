"""Stores written object by object, each as old as a test wants it, on any engine."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

from ocispec.digest import Digest
from ocispec.reference import RepositoryName, Tag
from storage import paths
from storage.engine import Engine
from storage.files import FilesEngine
from storage.memory import MemoryEngine
from tests.support.images import CONFIG, INDEX, LAYER, MANIFEST

HOUR = 3600.0
TOP = paths.ROOT.partition("/")[0]


class Builder:
    """Writes what a registry writes; what is not `young` was written two hours ago.

    Attributes:
        before: seconds since the epoch, an hour ago: the age from which things may go.
    """

    def __init__(self, engine: Engine, root: Path | None = None) -> None:
        self.engine = engine
        self.root = root
        self.before = time.time() - HOUR

    @classmethod
    def on_files(cls, root: Path) -> Builder:
        return cls(FilesEngine(root), root)

    @classmethod
    def in_memory(cls) -> Builder:
        return cls(MemoryEngine())

    def copy(self) -> Builder:
        """The same store once more; in memory only."""
        assert isinstance(self.engine, MemoryEngine)
        made = Builder.in_memory()
        assert isinstance(made.engine, MemoryEngine)
        for path, found in _objects(self.engine._root):
            made.engine._put(path, found)
        made.before = self.before
        return made

    async def write(self, path: str, data: bytes, *, young: bool = False) -> None:
        await self.engine.write(path, data, durable=False)
        self.age(path, young=young)

    def age(self, path: str, *, young: bool) -> None:
        modified = self.before + (HOUR / 2 if young else -HOUR)
        if isinstance(self.engine, MemoryEngine):
            self.engine._object(path).modified = modified
        else:
            assert self.root is not None
            os.utime(self.root / path, (modified, modified))

    async def content(self, data: bytes, *, algorithm: str = "sha256", young: bool = False) -> Digest:
        """Bytes that nothing links."""
        digest = Digest.of(data, algorithm)
        await self.write(paths.blob_data(digest), data, young=young)
        return digest

    async def blob(self, repo: str, data: bytes, *, young: bool = False) -> Digest:
        digest = await self.content(data)
        await self.link(repo, digest, young=young)
        return digest

    async def link(self, repo: str, digest: Digest, target: Digest | None = None, *, young: bool = False) -> None:
        await self.write(paths.layer_link(RepositoryName(repo), digest), str(target or digest).encode(), young=young)

    async def image(
        self, repo: str, *layers: bytes, tag: str | None = None, young: bool = False, **more: Any
    ) -> Digest:
        """An image whose config is as particular as its layers."""
        digests = [await self.blob(repo, layer) for layer in layers]
        config = await self.blob(repo, b"config of " + b" ".join(layers))
        return await self.manifest(repo, image(config, digests, **more), tag=tag, young=young)

    async def index(
        self, repo: str, *children: Digest, tag: str | None = None, young: bool = False, **more: Any
    ) -> Digest:
        return await self.manifest(repo, index(children, **more), tag=tag, young=young)

    async def manifest(
        self, repo: str, manifest: Mapping[str, Any] | bytes, *, tag: str | None = None, young: bool = False
    ) -> Digest:
        raw = manifest if isinstance(manifest, bytes) else json.dumps(manifest).encode()
        digest = await self.content(raw)
        await self.write(paths.revision_link(RepositoryName(repo), digest), str(digest).encode(), young=young)
        if tag:
            await self.tag(repo, tag, digest)
        return digest

    async def tag(self, repo: str, tag: str, digest: Digest) -> None:
        name = RepositoryName(repo)
        await self.write(paths.tag_index_link(name, Tag(tag), digest), str(digest).encode())
        await self.write(paths.tag_current_link(name, Tag(tag)), str(digest).encode())

    async def referrer(self, repo: str, subject: Digest, digest: Digest, *, young: bool = False) -> None:
        await self.write(paths.referrer(RepositoryName(repo), subject, digest), b"{}", young=young)

    async def upload(self, repo: str, data: bytes) -> None:
        await self.write(paths.upload_data(RepositoryName(repo), uuid5(UUID(int=0), repr((repo, data)))), data)

    async def snapshot(self) -> dict[str, bytes]:
        """Path → bytes of every object."""
        if isinstance(self.engine, MemoryEngine):
            return {path: bytes(found.data) for path, found in sorted(_objects(self.engine._root))}
        return await asyncio.to_thread(self._read)

    def _read(self) -> dict[str, bytes]:
        assert self.root is not None
        files = sorted(each for each in (self.root / TOP).rglob("*") if each.is_file())
        return {str(each.relative_to(self.root)): each.read_bytes() for each in files}


def _objects(folder: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, entry in folder.entries.items():
        if hasattr(entry, "entries"):
            yield from _objects(entry, f"{prefix}{name}/")
        else:
            yield prefix + name, entry


def image(config: Digest, layers: Iterable[Digest] = (), **more: Any) -> dict[str, Any]:
    return {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": described(config, CONFIG),
        "layers": [described(each, LAYER) for each in layers],
        **more,
    }


def index(children: Iterable[Digest], **more: Any) -> dict[str, Any]:
    manifests = [described(each, MANIFEST) for each in children]
    return {"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests, **more}


def described(digest: Digest, media_type: str = MANIFEST) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": str(digest), "size": 1}
