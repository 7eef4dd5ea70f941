"""Push: blobs side by side, then each manifest after what it names, the tag last (distribution-spec, "Push")."""

from __future__ import annotations

from client.cache import Cache
from client.content import LayoutContent, descend
from client.session import Session
from client.tasks import side_by_side
from ocispec.descriptor import Descriptor
from ocispec.errors import CacheError
from ocispec.reference import Reference


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
    content = LayoutContent(cache.layout)
    nodes = await descend(content, root)
    blobs = {each.digest: each for node in nodes for each in node.manifest.blobs}

    async def send(blob: Descriptor) -> None:
        async with content.stream(blob) as pieces:
            await remote.upload(blob, lambda: pieces)

    await side_by_side(send, blobs.values(), session.jobs)
    for node in nodes[:-1]:
        await remote.put(node.descriptor.digest, node.manifest)
    await remote.put(reference.target, nodes[-1].manifest)
