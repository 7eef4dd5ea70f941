"""The manifests below a name: of an index that names what is elsewhere, those that are there."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable

from client.transfers.content import MAX_DEPTH, Manifests, Node
from ocispec.descriptor import Descriptor
from ocispec.digest import Digest
from ocispec.errors import ManifestInvalid, ManifestUnknown
from ocispec.manifest import Manifest
from ocispec.mediatypes import MANIFESTS

Holds = Callable[[Descriptor], Awaitable[bool]]


async def nodes_of(content: Manifests, holds: Holds, top: Descriptor) -> tuple[Node, ...]:
    """Returns a manifest and those below it, each once, and after those that it names.

    Args:
        content: gives manifests.
        holds: whether a child is there. An engine saves the whole index with the images that it has of it.
        top: what the name stands for.

    Raises:
        ManifestInvalid: what is there is none, or indexes lie more than `MAX_DEPTH` deep in each other.
        ManifestUnknown: nothing of what an index names is there.
        LayerhouseError: whatever the content raises.
    """
    found: dict[Digest, Node] = {}
    await _descend(content, holds, top, 0, found)
    return tuple(found.values())


async def _descend(content: Manifests, holds: Holds, top: Descriptor, depth: int, found: dict[Digest, Node]) -> None:
    if depth > MAX_DEPTH:
        raise ManifestInvalid(f"{top.digest}: indexes lie more than {MAX_DEPTH} deep in each other")
    try:
        manifest = Manifest.parse(await content.read(top), top.media_type)
    except ManifestInvalid as error:
        raise ManifestInvalid(f"{top.digest}: {error.message}") from error
    children = [each for each in manifest.manifests if each.media_type in MANIFESTS]
    there = [each for each in children if each.digest in found or await holds(each)]
    if children and not there:
        raise ManifestUnknown(f"{top.digest}: of the images that this index names, none is there")
    for child in there:
        if child.digest not in found:
            await _descend(content, holds, child, depth + 1, found)
    found[top.digest] = Node(top, manifest)


def blobs_of(nodes: Iterable[Node]) -> tuple[Descriptor, ...]:
    """Returns configs and layers, each digest once."""
    return tuple({each.digest: each for node in nodes for each in node.manifest.blobs}.values())
