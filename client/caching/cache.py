"""The local cache: an OCI image layout, which skopeo reads as `oci:DIR:NAME`."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from client.caching import care
from client.caching.care import Pruned, Usage
from client.caching.census import reached
from client.caching.history import Step, steps
from ocispec.descriptor import REF_NAME, Descriptor
from ocispec.digest import Digest
from ocispec.errors import (
    CacheError,
    DigestInvalid,
    ManifestInvalid,
    NameInvalid,
    PlatformUnknown,
    StorageError,
    TagInvalid,
)
from ocispec.manifest import ImageConfig, Manifest
from ocispec.mediatypes import IMAGE_CONFIGS, is_foreign
from ocispec.platform import Platform, best
from ocispec.reference import Reference
from storage.layout import ImageLayout

VARIABLE = "PULLCLIENT_CACHE"


@dataclass(frozen=True, slots=True)
class Variant:
    """An image that is whole in the cache.

    Attributes:
        digest: of its manifest.
        platform: what it runs on, None where neither index nor config says.
        size: of its config and layers, in bytes.
        layers: descriptors, the base first.
        config: how it was made and how it starts, None where it is no container image.
        manifest: its manifest, as it stands.
    """

    digest: Digest
    platform: Platform | None
    size: int
    layers: tuple[Descriptor, ...]
    config: ImageConfig | None
    manifest: Manifest = field(repr=False)

    @property
    def blobs(self) -> Mapping[Digest, Descriptor]:
        """The config and the layers, each once."""
        return {each.digest: each for each in self.manifest.blobs}

    @property
    def steps(self) -> tuple[Step, ...]:
        """How it was made, the base first; see `client.caching.history`."""
        return steps(self.layers, self.config)

    @classmethod
    def of(cls, digest: Digest, manifest: Manifest, platform: Platform | None, config: ImageConfig | None) -> Variant:
        """Describes an image, wherever it lies."""
        size = sum({each.digest: each.size for each in manifest.blobs}.values())
        runs_on = platform or (config.platform if config else None)
        return cls(digest, runs_on, size, manifest.layers, config, manifest)

    def to_json(self) -> dict[str, Any]:
        config = self.config
        return {
            "platform": str(self.platform) if self.platform else None,
            "digest": str(self.digest),
            "size": self.size,
            "created": config.created if config else None,
            "config": dict(config.settings) if config else {},
            "layers": [
                {"digest": str(each.layer.digest), "size": each.size, "createdBy": each.created_by}
                for each in self.steps
                if each.layer
            ],
        }


@dataclass(frozen=True, slots=True)
class CachedImage:
    """A name in the cache.

    Attributes:
        name: the whole reference, as skopeo takes it too.
        digest: of what the name points at, an index or an image.
        media_type: of the same.
        variants: the images under that name which are whole here.
    """

    name: str
    digest: Digest
    media_type: str
    variants: tuple[Variant, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "digest": str(self.digest),
            "mediaType": self.media_type,
            "images": [each.to_json() for each in self.variants],
        }


class Cache:
    """Images on this machine.

    Args:
        root: its folder; else `$PULLCLIENT_CACHE`, else the platform's folder for caches.

    Attributes:
        layout: the folder as an OCI image layout.
    """

    def __init__(self, root: str | os.PathLike[str] | None = None) -> None:
        self.layout = ImageLayout(Path(root or os.environ.get(VARIABLE) or _default()).expanduser())

    @property
    def root(self) -> Path:
        return self.layout.root

    async def images(self) -> list[CachedImage]:
        """Returns everything that has a name, in the order of the names.

        Raises:
            StorageError: the cache's index is damaged.
        """
        entries = await self._named()
        return [await self._image(name, entry) for name, entry in sorted(entries.items())]

    async def inspect(self, reference: str | Reference) -> CachedImage:
        """Returns one image.

        Raises:
            CacheError: it is not there, or not whole.
            NameInvalid, TagInvalid, DigestInvalid: it can be no image's name.
            StorageError: the cache's index is damaged.
        """
        entry = await self.entry(reference)
        image = await self._image(entry.annotations[REF_NAME], entry)
        if not image.variants:
            raise CacheError(f"{image.name} is not whole in the cache {self.root}: pull it again")
        return image

    async def entry(self, reference: str | Reference) -> Descriptor:
        """Returns what the index has under a name: in its normal form, else as it is written, for other tools' names.

        Raises:
            CacheError: there is no such name.
            NameInvalid, TagInvalid, DigestInvalid: there is none, and can be none.
            StorageError: the cache's index is damaged.
        """
        entries = await self._named()
        written = str(reference)
        try:
            name = str(Reference.parse(written))
        except (NameInvalid, TagInvalid, DigestInvalid):
            if written not in entries:
                raise
            name = written
        if found := entries.get(name) or entries.get(written):
            return found
        raise CacheError(f"{name} is not in the cache {self.root}")

    async def usage(self) -> Usage:
        """Measures what the cache takes on disk; see `client.caching.care.usage`."""
        return await care.usage(self.layout)

    async def remove(self, *references: str | Reference) -> None:
        """Takes names away, all or none; their blobs stay until `prune`. Errors as `entry`."""
        names = [(await self.entry(each)).annotations[REF_NAME] for each in references]
        await care.forget(self.layout, names)

    async def prune(self, *, older: float = care.PARTIALS_FOR, grace: float = care.GRACE) -> Pruned:
        """Removes what no name needs; ages in seconds, see `client.caching.care.prune`."""
        return await care.prune(self.layout, older=older, grace=grace)

    async def _named(self) -> dict[str, Descriptor]:
        # Where another tool gave a name twice, the first has it, as `ImageLayout.find` has it.
        entries = reversed(await self.layout.entries())
        return {each.annotations[REF_NAME]: each for each in entries if REF_NAME in each.annotations}

    async def _image(self, name: str, entry: Descriptor) -> CachedImage:
        images = [each async for each in reached(self.layout, entry) if each.manifest and not each.manifest.is_index]
        variants = [await self._variant(each.descriptor, each.manifest) for each in images if each.manifest]
        return CachedImage(name, entry.digest, entry.media_type, tuple(each for each in variants if each))

    async def _variant(self, image: Descriptor, manifest: Manifest) -> Variant | None:
        needed = [each for each in manifest.blobs if not (is_foreign(each.media_type) and each.urls)]
        if await self.layout.missing(needed):
            return None
        return Variant.of(image.digest, manifest, image.platform, await self._config(manifest))

    async def _config(self, manifest: Manifest) -> ImageConfig | None:
        if manifest.config is None or manifest.config.media_type not in IMAGE_CONFIGS:
            return None
        try:
            return ImageConfig.parse(await self.layout.read(manifest.config.digest))
        except (StorageError, ManifestInvalid):
            return None


def chosen(image: CachedImage, platform: Platform | None) -> Variant:
    """Returns the image for a platform out of those under a name; without one that for this machine, else the first.

    Raises:
        PlatformUnknown: no image there runs on the platform; tells which do.
    """
    named = [(each.platform, each) for each in image.variants if each.platform]
    if found := best(platform or Platform.here(), named):
        return found
    if platform:
        there = ", ".join(str(each) for each, _ in named) or "none"
        raise PlatformUnknown(f"{image.name}: no image for {platform} in the cache; there are: {there}")
    return image.variants[0]


def shared_bytes(images: Sequence[CachedImage]) -> list[list[int]]:
    """Returns for each variant of each image how many bytes of it another one has as well."""
    holders = Counter(digest for image in images for each in image.variants for digest in each.blobs)
    return [
        [sum(blob.size for digest, blob in each.blobs.items() if holders[digest] > 1) for each in image.variants]
        for image in images
    ]


def _default() -> Path:
    # Where a folder is given, the library that knows the platform's is not needed.
    from platformdirs import user_cache_path  # noqa: PLC0415 - see above

    return user_cache_path("pullclient", appauthor=False)
