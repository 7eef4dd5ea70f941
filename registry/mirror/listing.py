"""What images a mirror has, as the index and the tree tell."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

from client.display import size_text
from ocispec import mediatypes
from ocispec.digest import Digest
from ocispec.errors import ManifestInvalid, ObjectTooLong, PathUnknown
from ocispec.manifest import Manifest
from ocispec.reference import RepositoryName
from registry.mirror import tree
from registry.mirror.index import Index
from registry.mirror.marks import Kind
from registry.mirror.usage import Usage
from storage import paths
from storage.repository import MAX_MANIFEST

__all__ = ["Kept", "images", "size_text"]


@dataclass(frozen=True, slots=True)
class Kept:
    """An image that was fetched.

    Attributes:
        name: the repository's.
        tag: None where only its digest is known.
        digest: of its manifest, or of its index.
        platforms: of an index: those whose manifests are here.
        of: how many platforms the index has; 0 where it is none.
        size: bytes that are here of it; what several images share counts for each.
        whole: bytes that it has, of an index for those platforms.
        used: when something of it was last used, in seconds since the epoch.
        pinned: whether it stays.
    """

    name: RepositoryName
    tag: str | None
    digest: Digest
    platforms: tuple[str, ...]
    of: int
    size: int
    whole: int
    used: float
    pinned: bool


async def images(usage: Usage) -> AsyncIterator[Kept]:
    """Yields all images that were fetched, by name and tag; raises StorageError."""
    for name in await usage.index.do(Index.names):
        async for each in _images(usage, name):
            yield each


async def _images(usage: Usage, name: RepositoryName) -> AsyncIterator[Kept]:
    links = await usage.index.do(Index.links_of, name, Kind.MANIFEST)
    read = [(link.digest, await _manifest(usage, link.digest)) for link in links]
    manifests = {digest: manifest for digest, manifest in read if manifest}
    pinned = await (await usage.pins()).roots(usage.engine, name)
    tagged = [each async for each in tree.tags(usage.engine, name)]
    named = {digest for _, digest in tagged}
    named |= {child.digest for manifest in manifests.values() for child in manifest.manifests}
    rest: list[tuple[str | None, Digest]] = [(None, each) for each in sorted(manifests.keys() - named)]
    for tag, digest in [*tagged, *rest]:
        if digest in manifests:
            yield await _kept(usage, name, tag, digest, manifests, pinned=digest in pinned)


async def _kept(
    usage: Usage,
    name: RepositoryName,
    tag: str | None,
    digest: Digest,
    manifests: Mapping[Digest, Manifest],
    *,
    pinned: bool,
) -> Kept:
    sizes = _sizes(digest, manifests)
    contents = await usage.index.do(Index.contents, sizes)
    children = manifests[digest].manifests
    platforms = tuple(str(each.platform) for each in children if each.platform and each.digest in manifests)
    size = sum(each.size for each in contents.values())
    used = max((each.used for each in contents.values()), default=0.0)
    return Kept(name, tag, digest, platforms, len(children), size, sum(sizes.values()), used, pinned)


def _sizes(root: Digest, manifests: Mapping[Digest, Manifest]) -> dict[Digest, int]:
    """What an image has, as far as its manifests are here, with the bytes of each."""
    found: dict[Digest, int] = {}
    waiting = [root]
    while waiting:
        digest = waiting.pop()
        manifest = manifests[digest]
        found[digest] = len(manifest.raw)
        found |= {blob.digest: blob.size for blob in manifest.blobs if not mediatypes.is_foreign(blob.media_type)}
        waiting += [each.digest for each in manifest.manifests if each.digest in manifests.keys() - found.keys()]
    return found


async def _manifest(usage: Usage, digest: Digest) -> Manifest | None:
    try:
        return Manifest.parse(await usage.engine.read(paths.blob_data(digest), MAX_MANIFEST))
    except (PathUnknown, ObjectTooLong, ManifestInvalid):
        return None
