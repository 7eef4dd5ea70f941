"""Images of a registry's storage into an archive: each blob once, verified, in a file that appears whole."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from client.archive.choosing import Chosen
from client.archive.formats import Format, checked
from client.archive.saving import save_chosen
from client.transfers.content import Node
from ocispec.descriptor import Descriptor
from ocispec.digest import Digest
from ocispec.errors import (
    BlobUnknown,
    ConfigurationError,
    ManifestInvalid,
    ManifestUnknown,
    PlatformUnknown,
    StorageError,
)
from ocispec.manifest import ImageConfig
from ocispec.mediatypes import IMAGE_CONFIGS, MANIFESTS, is_foreign
from ocispec.platform import Platform, best
from ocispec.reference import DEFAULT_TAG, Tag
from registry.archives import telling
from registry.archives.naming import LOCALHOST, Name
from registry.archives.nodes import blobs_of, nodes_of
from registry.archives.telling import Told
from storage.repository import MAX_MANIFEST, Repository
from storage.store import Store

STANDARD_OUTPUT = Path("-")
__all__ = ["Format", "StoredContent", "Wanted", "export_archive"]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What goes into an archive.

    Attributes:
        format: an oci-archive has all images of an index; a docker-archive has one image a name.
        platform: of an index, the image for this platform alone; for a docker-archive this machine's, or the only
            one, unless told.
        referrers: whether signatures, SBOMs and whatever else refers to the images goes along.
        host: of the registry, which the names in the archive begin with.
    """

    format: Format = Format.OCI_ARCHIVE
    platform: Platform | None = None
    referrers: bool = False
    host: str = LOCALHOST

    @property
    def one_image(self) -> bool:
        return self.platform is not None or self.format is Format.DOCKER_ARCHIVE


async def export_archive(store: Store, names: Sequence[Name], target: Path, wanted: Wanted, told: Told) -> None:
    """Writes images into an archive; the same images give the same bytes. See `client.archive.saving.save`.

    Args:
        store: where they are.
        names: which.
        target: a file, `-` for standard output, or a folder for `Format.OCI`.
        wanted: what of them, and how.
        told: hears of every image.

    Raises:
        ConfigurationError: what is wanted contradicts itself.
        ManifestUnknown, BlobUnknown: an image is not there, or not whole.
        PlatformUnknown: an image is there for other platforms only.
        ArchiveInvalid: the format cannot hold the image.
        StorageError: the target cannot be written, or what is stored is damaged.
    """
    to_stream = target == STANDARD_OUTPUT
    checked(wanted.format, stream=to_stream, platform=wanted.platform is not None, all_platforms=False)
    if wanted.referrers and wanted.format is Format.DOCKER_ARCHIVE:
        raise ConfigurationError("a docker-archive holds images alone: export referrers as oci-archive or oci")
    chosen: dict[Name, Chosen] = {}
    for name in dict.fromkeys(names):
        for called, image in await _chosen(store.repository(name.repository), name, wanted):
            if called not in chosen:
                told(telling.image(called, image.nodes))
            chosen.setdefault(called, image)
    await save_chosen(list(chosen.values()), 1 if to_stream else target, wanted.format)


async def _chosen(repository: Repository, name: Name, wanted: Wanted) -> list[tuple[Name, Chosen]]:
    content = StoredContent(repository)
    nodes = await nodes_of(content, content.holds, await _top(repository, name))
    if wanted.one_image:
        nodes = (await _image(content, name, nodes, wanted.platform),)
    found = [(name, nodes)]
    if wanted.referrers:
        found += [
            (Name(name.repository, digest=each[-1].descriptor.digest), each)
            for each in await _referrers(repository, content, nodes)
        ]
    return [(called, await _whole(content, called, each, wanted.host)) for called, each in found]


async def _top(repository: Repository, name: Name) -> Descriptor:
    try:
        stored = await repository.manifests.get(name.digest or name.tag or Tag(DEFAULT_TAG))
    except ManifestUnknown as error:
        is_absent = error.message == ManifestUnknown.summary
        raise ManifestUnknown(f"{name} is not in the registry" if is_absent else f"{name}: {error.message}") from error
    return Descriptor(stored.media_type, stored.digest, len(stored.raw))


async def _whole(content: StoredContent, name: Name, nodes: tuple[Node, ...], host: str) -> Chosen:
    blobs = []
    for each in blobs_of(nodes):
        if await content.holds(each):
            blobs.append(each)
        elif not (is_foreign(each.media_type) and each.urls):
            raise BlobUnknown(f"{name} is not whole: the blob {each.digest} is not in its repository")
    return Chosen(name.at(host), nodes, tuple(blobs), content)


async def _image(content: StoredContent, name: Name, nodes: tuple[Node, ...], wanted: Platform | None) -> Node:
    """Returns the one image that a platform has."""
    if wanted is None and not nodes[-1].manifest.is_index:
        return nodes[-1]
    images = [(await _platform(content, node), node) for node in nodes if not node.manifest.is_index]
    # Attestations have a platform that nothing has.
    images = [(each, node) for each, node in images if each is None or each.os != "unknown"]
    found = best(wanted or Platform.here(), [(each, node) for each, node in images if each])
    if found is None and wanted is None and len(images) == 1:
        return images[0][1]
    if found is None:
        there = ", ".join(sorted({str(each) for each, _ in images if each})) or "none"
        raise PlatformUnknown(f"{name}: no image for {wanted or Platform.here()}; there are: {there}")
    return found


async def _platform(content: StoredContent, node: Node) -> Platform | None:
    config = node.manifest.config
    if node.descriptor.platform or config is None or config.media_type not in IMAGE_CONFIGS:
        return node.descriptor.platform
    try:
        return ImageConfig.parse(await content.read(config)).platform
    except ManifestInvalid:
        return None


async def _referrers(repository: Repository, content: StoredContent, nodes: Sequence[Node]) -> list[tuple[Node, ...]]:
    """Returns what refers to manifests, and what refers to that, each with all below it."""
    known = {node.descriptor.digest for node in nodes}
    waiting, found = list(known), list[tuple[Node, ...]]()
    while waiting:
        for each in await repository.referrers.of(waiting.pop()):
            if each.digest not in known:
                found.append(await nodes_of(content, content.holds, each))
                new = {node.descriptor.digest for node in found[-1]} - known
                known |= new
                waiting += new
    return sorted(found, key=lambda each: each[-1].descriptor.digest)


class StoredContent:
    """`client.transfers.content.Content` of a repository."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository

    async def holds(self, wanted: Descriptor) -> bool:
        """Whether it is in the repository, with its size."""
        try:
            if wanted.media_type in MANIFESTS:
                return len((await self._repository.manifests.get(wanted.digest)).raw) == wanted.size
            return await self._repository.blobs.size(wanted.digest) == wanted.size
        except (ManifestUnknown, BlobUnknown):
            return False

    async def read(self, wanted: Descriptor) -> bytes:
        if wanted.media_type in MANIFESTS:
            return (await self._repository.manifests.get(wanted.digest)).raw
        if wanted.size > MAX_MANIFEST:
            raise StorageError(f"{wanted.digest} has {wanted.size} bytes, expected at most {MAX_MANIFEST}")
        async with self.stream(wanted) as pieces:
            data = b"".join([piece async for piece in pieces])
        if not wanted.digest.matches(data):
            actual = Digest.of(data, wanted.digest.algorithm)
            raise StorageError(f"damaged in storage: expected {wanted.digest}, its content hashes to {actual}")
        return data

    @asynccontextmanager
    async def stream(self, wanted: Descriptor) -> AsyncIterator[AsyncIterator[bytes]]:
        content = await self._repository.blobs.open(wanted.digest)
        try:
            async with aclosing(content.stream(0, content.size)) as pieces:
                yield pieces
        finally:
            await content.close()
