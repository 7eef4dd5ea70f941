"""Which manifests of a cached image are saved."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NoReturn

from client.caching.cache import Cache
from client.transfers.content import MAX_DEPTH, Content, LayoutContent, Node, descend
from ocispec.descriptor import Descriptor
from ocispec.digest import Digest
from ocispec.errors import CacheError, ManifestInvalid, PathUnknown, PlatformUnknown
from ocispec.manifest import ImageConfig, Manifest
from ocispec.mediatypes import IMAGE_CONFIGS, is_foreign
from ocispec.platform import Platform, best
from ocispec.reference import Reference


@dataclass(frozen=True, slots=True)
class Chosen:
    """What is saved under one name.

    Attributes:
        reference: the name.
        nodes: manifests, each after those that it names; the last is what the name points at.
        blobs: configs and layers, each digest once; foreign ones that the cache does not have are left out.
        content: gives all of them.
    """

    reference: Reference
    nodes: tuple[Node, ...]
    blobs: tuple[Descriptor, ...]
    content: Content

    @property
    def top(self) -> Node:
        return self.nodes[-1]


async def choose(cache: Cache, reference: Reference, platform: Platform | None, *, everything: bool) -> Chosen:
    """Finds an image that is whole in the cache.

    Args:
        cache: where it is.
        reference: its name there.
        platform: what it has to run on; None for this machine, or for the one image that is there.
        everything: take the whole index in place of one image.

    Raises:
        CacheError: it is not in the cache, or not whole.
        PlatformUnknown: it is there for other platforms only.
        StorageError: the cache is damaged.
    """
    top = await named(cache, reference)
    content = LayoutContent(cache.layout)
    try:
        nodes = await descend(content, top) if everything else [await _Finder(cache, reference).image(top, platform)]
    except PathUnknown as error:
        raise _not_whole(cache, reference, everything=everything) from error
    blobs = {each.digest: each for node in nodes for each in node.manifest.blobs}.values()
    missing = {each.digest: each for each in await cache.layout.missing(blobs)}
    if _needed(missing.values()):
        raise _not_whole(cache, reference, everything=everything)
    return Chosen(reference, tuple(nodes), tuple(each for each in blobs if each.digest not in missing), content)


async def named(cache: Cache, reference: Reference) -> Descriptor:
    """Returns what a name points at; raises CacheError: it is not in the cache."""
    top = await cache.layout.find(str(reference))
    if top is None:
        raise CacheError(f"{reference} is not in the cache {cache.root}")
    return top


def _needed(missing: Iterable[Descriptor]) -> list[Descriptor]:
    return [each for each in missing if not (is_foreign(each.media_type) and each.urls)]


def _not_whole(cache: Cache, reference: Reference, *, everything: bool) -> CacheError:
    remedy = "pull it with --all-platforms" if everything else "pull it again"
    return CacheError(f"{reference} is not whole in the cache {cache.root}: {remedy}")


class _Finder:
    """Finds the one image; of an index only what is whole counts."""

    def __init__(self, cache: Cache, reference: Reference) -> None:
        self._layout = cache.layout
        self._reference = reference
        # Indexes that name each other's images again and again are looked into once.
        self._met: set[Digest] = set()

    async def image(self, top: Descriptor, wanted: Platform | None) -> Node:
        node = await self._node(top)
        if not node.manifest.is_index:
            return await self._alone(node, wanted)
        images = await self._whole(node, 0)
        # Attestations have a platform that nothing has.
        named = [(each, image) for each, image in images if each is None or each.os != "unknown"]
        found = best(wanted or Platform.here(), [(each, image) for each, image in named if each])
        if found is None and wanted is None and len(named) == 1:
            return named[0][1]
        if found is None:
            self._refuse(wanted or Platform.here(), [each for each, _ in named])
        return found

    async def _alone(self, node: Node, wanted: Platform | None) -> Node:
        platform = await self._platform(node)
        if wanted and platform and wanted.rank(platform) is None:
            self._refuse(wanted, [platform])
        return node

    def _refuse(self, wanted: Platform, offered: list[Platform | None]) -> NoReturn:
        names = ", ".join(sorted({str(each) for each in offered if each})) or "none"
        raise PlatformUnknown(f"{self._reference}: no image for {wanted} in the cache; there are: {names}")

    async def _whole(self, index: Node, depth: int) -> list[tuple[Platform | None, Node]]:
        if depth > MAX_DEPTH:
            raise ManifestInvalid(f"{self._reference}: indexes lie more than {MAX_DEPTH} deep in each other")
        found: list[tuple[Platform | None, Node]] = []
        for child in index.manifest.manifests:
            if child.digest in self._met:
                continue
            self._met.add(child.digest)
            try:
                node = await self._node(child)
            except PathUnknown:
                continue
            if node.manifest.is_index:
                found += await self._whole(node, depth + 1)
            elif not _needed(await self._layout.missing(node.manifest.blobs)):
                found.append((await self._platform(node), node))
        return found

    async def _node(self, wanted: Descriptor) -> Node:
        return Node(wanted, Manifest.parse(await self._layout.read(wanted.digest), wanted.media_type))

    async def _platform(self, node: Node) -> Platform | None:
        config = node.manifest.config
        if node.descriptor.platform or config is None or config.media_type not in IMAGE_CONFIGS:
            return node.descriptor.platform
        return ImageConfig.parse(await self._layout.read(config.digest)).platform
