"""From a name to the one image that runs on a platform."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

from client.registries.api import within
from client.registries.remote import Remote
from client.transfers.content import MAX_DEPTH, Node
from ocispec.descriptor import Descriptor
from ocispec.digest import Digest
from ocispec.errors import ManifestInvalid, PlatformUnknown, StorageError
from ocispec.manifest import ImageConfig, Manifest
from ocispec.mediatypes import IMAGE_CONFIGS
from ocispec.platform import Platform, best
from ocispec.reference import Reference, Tag
from storage.layout import ImageLayout


@dataclass(frozen=True, slots=True)
class Resolution:
    """What a name stands for.

    Attributes:
        reference: the name.
        chain: what the name points at, then each index's choice, the image last.
        platform: what the image runs on; None where only its config says so.
    """

    reference: Reference
    chain: tuple[Node, ...]
    platform: Platform | None

    @property
    def root(self) -> Node:
        return self.chain[0]

    @property
    def image(self) -> Node:
        return self.chain[-1]


class Source(Protocol):
    """Where manifests come from."""

    async def manifest(self, target: Tag | Digest, media_type: str | None = None) -> Node: ...
    async def config(self, wanted: Descriptor) -> bytes: ...


async def choose(reference: Reference, source: Source, platform: Platform | None) -> Resolution:
    """Follows a name through its indexes to one image.

    Args:
        reference: the name.
        source: gives its manifests, verified.
        platform: what the image has to run on; None for this machine, and for an image that stands without an index.

    Raises:
        PlatformUnknown: no image runs there; tells which there are.
        ManifestInvalid: indexes within indexes, more than `MAX_DEPTH` deep.
        LayerhouseError: whatever the source raises.
    """
    chain = [await source.manifest(reference.target)]
    chosen: Platform | None = None
    while chain[-1].manifest.is_index:
        if len(chain) > MAX_DEPTH:
            raise ManifestInvalid(f"{reference}: indexes lie more than {MAX_DEPTH} deep in each other")
        child = _child(reference, chain[-1].manifest, platform or Platform.here())
        found = await source.manifest(child.digest, child.media_type)
        chain.append(replace(found, descriptor=replace(found.descriptor, platform=child.platform)))
        chosen = child.platform
    if platform and not chosen:
        chosen = await _checked(reference, source, chain[-1].manifest, platform)
    return Resolution(reference, tuple(chain), chosen)


def _child(reference: Reference, index: Manifest, wanted: Platform) -> Descriptor:
    named = [(each.platform, each) for each in index.manifests if each.platform]
    if not named and len(index.manifests) == 1:
        return index.manifests[0]
    found = best(wanted, named)
    if found is None:
        # An attestation is no image: buildkit marks it with a platform that nothing has.
        offered = {str(each): None for each, _ in named if each.os != "unknown"}
        raise PlatformUnknown(f"{reference}: no image for {wanted}; there are: {', '.join(offered) or 'none'}")
    return found


async def _checked(reference: Reference, source: Source, image: Manifest, wanted: Platform) -> Platform | None:
    if not image.config or image.config.media_type not in IMAGE_CONFIGS:
        return None
    with within(str(reference)):
        platform = ImageConfig.parse(await source.config(image.config)).platform
    if wanted.rank(platform) is None:
        raise PlatformUnknown(f"{reference}: no image for {wanted}; there are: {platform}")
    return platform


class RemoteSource:
    """Manifests as the registry has them now."""

    def __init__(self, remote: Remote) -> None:
        self._remote = remote

    async def manifest(self, target: Tag | Digest, media_type: str | None = None) -> Node:
        del media_type
        digest, manifest = await self._remote.manifest(target)
        return _node(digest, manifest)

    async def config(self, wanted: Descriptor) -> bytes:
        return await self._remote.small_blob(wanted)


class CachedSource:
    """Manifests out of a cache where it has them, for what a digest names never changes; else from the registry.

    A tag is always asked for, but its manifest is fetched only where the digest is new.
    """

    def __init__(self, reference: Reference, layout: ImageLayout, remote: Remote) -> None:
        self._reference = reference
        self._layout = layout
        self._remote = remote
        self._registry = RemoteSource(remote)

    async def manifest(self, target: Tag | Digest, media_type: str | None = None) -> Node:
        digest = target if isinstance(target, Digest) else await self._unchanged(target)
        return (await self._cached(digest, media_type) if digest else None) or await self._registry.manifest(target)

    async def config(self, wanted: Descriptor) -> bytes:
        try:
            return await self._layout.read(wanted.digest)
        except StorageError:
            return await self._registry.config(wanted)

    async def _unchanged(self, tag: Tag) -> Digest | None:
        known = await self._layout.find(str(self._reference))
        return known.digest if known and known.digest == await self._remote.head(tag) else None

    async def _cached(self, digest: Digest, media_type: str | None) -> Node | None:
        try:
            return _node(digest, Manifest.parse(await self._layout.read(digest), media_type))
        except (StorageError, ManifestInvalid):
            return None


def _node(digest: Digest, manifest: Manifest) -> Node:
    return Node(Descriptor(manifest.media_type, digest, len(manifest.raw)), manifest)
