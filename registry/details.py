"""What the management API tells of a repository's tags: digest, time, size, platforms."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Annotated

from pydantic import BaseModel, Field

from ocispec.descriptor import Descriptor
from ocispec.digest import Digest
from ocispec.errors import BlobUnknown, ManifestInvalid, ManifestUnknown
from ocispec.manifest import ImageConfig, Manifest
from ocispec.mediatypes import IMAGE_CONFIGS, MANIFESTS
from ocispec.platform import Platform
from ocispec.reference import Tag
from storage.engine import INLINE
from storage.repository import Repository

AT_ONCE = 8
"""How many tags of a page are looked at side by side."""

MAX_DEPTH = 4
MAX_IMAGES = 200
"""How many manifests below one index are looked at: their number alone must make no page slow or large."""

_SIZE = Field(description="Bytes of config and layers, each digest once; absent where a manifest of it is not here.")


class ImageDetails(BaseModel):
    """An image or artifact that an index names, or an index in it."""

    digest: str
    mediaType: str  # noqa: N815 - the specification's name
    artifactType: str | None = None  # noqa: N815 - the specification's name
    platform: Annotated[str | None, Field(examples=["linux/arm/v6"])] = None
    size: Annotated[int | None, _SIZE] = None


class TagDetails(BaseModel):
    """A tag, and what it stands for."""

    tag: Annotated[str, Field(examples=["1.0"])]
    digest: str
    pushed: Annotated[datetime, Field(description="When it was last pointed at a manifest (RFC 3339).")]
    mediaType: str | None = None  # noqa: N815 - the specification's name
    artifactType: Annotated[  # noqa: N815 - the specification's name
        str | None, Field(description="As referrers show it: declared, else the media type of the config.")
    ] = None
    size: Annotated[int | None, _SIZE] = None
    platforms: Annotated[list[str], Field(examples=[["linux/amd64", "linux/arm/v6"]])] = []
    images: Annotated[list[ImageDetails], Field(description="Of an index: what it names.")] = []
    error: Annotated[str | None, Field(description="Why nothing more is told: the manifest is damaged or gone.")] = None


async def details(repository: Repository, tags: Iterable[Tag]) -> list[TagDetails]:
    """Returns what is known of tags, in their order; those that were deleted meanwhile are left out.

    A manifest that is damaged or gone is told with its tag, and hides no other one.

    Raises:
        StorageError: storage fails.
    """
    found: dict[int, TagDetails | None] = {}
    waiting = enumerate(tags)

    async def work() -> None:
        for number, tag in waiting:
            found[number] = await _tag(repository, tag)
            await asyncio.sleep(0)  # what is warm suspends nowhere

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(work())
    return [each for number in sorted(found) if (each := found[number])]


async def _tag(repository: Repository, tag: Tag) -> TagDetails | None:
    try:
        link = await repository.tags.link(tag)
    except ManifestUnknown:
        return None
    found = TagDetails(tag=tag, digest=str(link.digest), pushed=datetime.fromtimestamp(link.pushed, UTC))
    try:
        survey = _Survey(repository)
        top = await survey.look(link.digest)
        found.mediaType, found.artifactType = top.media_type, top.artifact_type
        found.images = survey.images
        found.size = survey.size
        found.platforms = survey.platforms
    except ManifestUnknown as error:
        found.error = error.message
    return found


class _Survey:
    """Looks at a manifest and all below it."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._blobs: dict[Digest, int] = {}
        self._whole = True
        self._met: set[Digest] = set()
        self._platforms: dict[str, None] = {}
        self.images: list[ImageDetails] = []

    @property
    def size(self) -> int | None:
        return sum(self._blobs.values()) if self._whole else None

    @property
    def platforms(self) -> list[str]:
        return list(self._platforms)

    async def look(self, digest: Digest) -> Manifest:
        """Raises ManifestUnknown."""
        self._met.add(digest)
        manifest = await _manifest(self._repository, digest)
        if manifest.is_index:
            await self._children(manifest, 1)
        else:
            self._count(manifest, await _platform(self._repository, manifest))
        return manifest

    async def _children(self, index: Manifest, depth: int) -> None:
        for child in index.manifests:
            if child.digest not in self._met:
                self._met.add(child.digest)
                await self._child(child, depth)

    async def _child(self, child: Descriptor, depth: int) -> None:
        if child.media_type not in MANIFESTS or depth > MAX_DEPTH or len(self.images) >= MAX_IMAGES:
            self._whole = False
            return
        found = ImageDetails(digest=str(child.digest), mediaType=child.media_type, artifactType=child.artifact_type)
        self.images.append(found)
        platform = child.platform
        try:
            manifest = await _manifest(self._repository, child.digest)
            if manifest.is_index:
                await self._children(manifest, depth + 1)
            else:
                platform = platform or await _platform(self._repository, manifest)
                found.size = self._count(manifest, platform)
            found.artifactType = manifest.artifact_type
        except ManifestUnknown:
            # An index may name what lies elsewhere or comes later.
            self._whole = False
        found.platform = _shown(platform)

    def _count(self, manifest: Manifest, platform: Platform | None) -> int:
        sizes = {each.digest: each.size for each in manifest.blobs}
        self._blobs |= sizes
        if shown := _shown(platform):
            self._platforms[shown] = None
        return sum(sizes.values())


def _shown(platform: Platform | None) -> str | None:
    # An attestation is no image: buildkit marks it with a platform that nothing has.
    return str(platform) if platform and platform.os not in ("", "unknown") else None


async def _manifest(repository: Repository, digest: Digest) -> Manifest:
    raw = (await repository.manifests.get(digest)).raw
    return Manifest.parse(raw) if len(raw) <= INLINE else await asyncio.to_thread(Manifest.parse, raw)


async def _platform(repository: Repository, manifest: Manifest) -> Platform | None:
    """Tells from an image's config what it runs on; None where it does not say, or is no image."""
    if manifest.config is None or manifest.config.media_type not in IMAGE_CONFIGS:
        return None
    try:
        content = await repository.blobs.open(manifest.config.digest)
        try:
            # Larger ones are rare, and a list is no reason to read them.
            return ImageConfig.parse(content.data).platform if content.data is not None else None
        finally:
            await content.close()
    except (BlobUnknown, ManifestInvalid):
        return None
