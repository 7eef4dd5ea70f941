"""Where the manifests and blobs of an image can be read, whatever holds them: a cache, an archive, a registry."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

from ocispec.descriptor import Descriptor
from ocispec.digest import Digest
from ocispec.errors import ManifestInvalid
from ocispec.manifest import Manifest
from storage.ingest import storage_errors
from storage.layout import ImageLayout
from storage.threads import finish

MAX_DEPTH = 4
_PIECE = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Node:
    """A manifest or index, and the descriptor that names it."""

    descriptor: Descriptor
    manifest: Manifest


class Manifests(Protocol):
    """Gives small content by its descriptor."""

    async def read(self, wanted: Descriptor) -> bytes:
        """Returns a manifest or config, verified, of at most 4 MiB.

        Raises:
            LayerhouseError: it is not there (`StorageError`, `ManifestUnknown`, …), or is not what its digest names.
        """


class Content(Manifests, Protocol):
    """Gives any content by its descriptor."""

    def stream(self, wanted: Descriptor) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Opens a blob, read piece by piece; whoever reads it verifies it.

        Raises:
            LayerhouseError: it is not there, or reading fails.
        """


class LayoutContent:
    """`Content` of an OCI image layout."""

    def __init__(self, layout: ImageLayout) -> None:
        self._layout = layout

    async def read(self, wanted: Descriptor) -> bytes:
        return await self._layout.read(wanted.digest)

    @asynccontextmanager
    async def stream(self, wanted: Descriptor) -> AsyncIterator[AsyncIterator[bytes]]:
        path = self._layout.path(wanted.digest)
        with storage_errors(path), path.open("rb", buffering=0) as file:

            async def pieces() -> AsyncIterator[bytes]:
                while piece := await finish(file.read, _PIECE):
                    yield piece

            yield pieces()


async def descend(content: Manifests, top: Descriptor) -> list[Node]:
    """Returns a manifest and all manifests below it, each once, and after those that it names.

    Raises:
        ManifestInvalid: indexes within indexes, more than `MAX_DEPTH` deep.
        LayerhouseError: whatever the content raises.
    """
    found: dict[Digest, Node] = {}
    await _descend(content, top, 0, found)
    return list(found.values())


async def _descend(content: Manifests, top: Descriptor, depth: int, found: dict[Digest, Node]) -> None:
    if depth > MAX_DEPTH:
        raise ManifestInvalid(f"{top.digest}: indexes lie more than {MAX_DEPTH} deep in each other")
    manifest = Manifest.parse(await content.read(top), top.media_type)
    for child in manifest.manifests:
        # An index may name a child many times, and so may each of its children: 4 MiB would become billions of visits.
        if child.digest not in found:
            await _descend(content, child, depth + 1, found)
    found[top.digest] = Node(top, manifest)
