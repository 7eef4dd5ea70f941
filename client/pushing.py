"""Push: blobs side by side, then each manifest after what it names, the tag last (distribution-spec, "Push")."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

from client.cache import Cache
from client.download import side_by_side
from client.session import Session
from ocispec.descriptor import Descriptor
from ocispec.errors import CacheError
from ocispec.manifest import Manifest
from ocispec.reference import Reference
from storage.ingest import storage_errors
from storage.threads import finish

_PIECE = 1024 * 1024


async def push_in(session: Session, cache: Cache, reference: Reference) -> None:
    """Sends an image of the cache, with everything its index names, to the repository its name tells.

    Blobs that the registry has are not sent again. Cancelled, it leaves the tag as it was.

    Raises:
        CacheError: the cache has no such image.
        StorageError: a part of it is not in the cache.
        LayerhouseError: see `Remote.upload`.
    """
    root = await cache.layout.find(str(reference))
    if root is None:
        raise CacheError(f"{reference} is not in the cache {cache.root}")
    remote = session.remote(reference, "pull", "push")
    nodes = await _nodes(cache, root)
    blobs = {each.digest: each for _, manifest in nodes for each in manifest.blobs}

    async def send(blob: Descriptor) -> None:
        await remote.upload(blob, lambda: _content(cache.layout.path(blob.digest)))

    await side_by_side(send, blobs.values(), session.jobs)
    for descriptor, manifest in nodes[:-1]:
        await remote.put(descriptor.digest, manifest)
    await remote.put(reference.target, nodes[-1][1])


async def _nodes(cache: Cache, top: Descriptor) -> list[tuple[Descriptor, Manifest]]:
    """Returns a manifest and all below it, each after what it names."""
    manifest = Manifest.parse(await cache.layout.read(top.digest), top.media_type)
    below = [node for child in manifest.manifests for node in await _nodes(cache, child)]
    return [*below, (top, manifest)]


async def _content(path: Path) -> AsyncIterator[bytes]:
    with storage_errors(path), path.open("rb", buffering=0) as file:
        while piece := await finish(file.read, _PIECE):
            yield piece
