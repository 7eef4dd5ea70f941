"""The local cache: an OCI image layout, which skopeo reads as `oci:DIR:NAME`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ocispec.descriptor import REF_NAME, Descriptor
from ocispec.digest import Digest
from ocispec.errors import CacheError, ManifestInvalid, StorageError
from ocispec.manifest import HistoryEntry, ImageConfig, Manifest
from ocispec.mediatypes import IMAGE_CONFIGS, is_foreign
from ocispec.platform import Platform
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
    """

    digest: Digest
    platform: Platform | None
    size: int
    layers: tuple[Descriptor, ...]
    config: ImageConfig | None

    def to_json(self) -> dict[str, Any]:
        config = self.config
        return {
            "platform": str(self.platform) if self.platform else None,
            "digest": str(self.digest),
            "size": self.size,
            "created": config.created if config else None,
            "config": dict(config.settings) if config else {},
            "layers": [
                {"digest": str(layer.digest), "size": layer.size, "createdBy": step.created_by if step else None}
                for layer, step in zip(self.layers, self._steps(), strict=True)
            ],
        }

    def _steps(self) -> Sequence[HistoryEntry | None]:
        steps = [each for each in self.config.history if not each.empty_layer] if self.config else []
        return steps if len(steps) == len(self.layers) else [None] * len(self.layers)


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
        entries = {
            each.annotations[REF_NAME]: each for each in await self.layout.entries() if REF_NAME in each.annotations
        }
        return [await self._image(name, entry) for name, entry in sorted(entries.items())]

    async def inspect(self, reference: str | Reference) -> CachedImage:
        """Returns one image.

        Raises:
            CacheError: it is not there, or not whole.
            StorageError: the cache's index is damaged.
        """
        name = str(reference if isinstance(reference, Reference) else Reference.parse(reference))
        entry = await self.layout.find(name)
        if entry is None:
            raise CacheError(f"{name} is not in the cache {self.root}")
        image = await self._image(name, entry)
        if not image.variants:
            raise CacheError(f"{name} is not whole in the cache {self.root}: pull it again")
        return image

    async def _image(self, name: str, entry: Descriptor) -> CachedImage:
        return CachedImage(name, entry.digest, entry.media_type, tuple(await self._variants(entry)))

    async def _variants(self, entry: Descriptor) -> list[Variant]:
        manifest = await self._manifest(entry)
        if manifest is None:
            return []
        if manifest.is_index:
            return [found for child in manifest.manifests for found in await self._variants(child)]
        needed = [each for each in manifest.blobs if not (is_foreign(each.media_type) and each.urls)]
        if await self.layout.missing(needed):
            return []
        config = await self._config(manifest)
        platform = entry.platform or (config.platform if config else None)
        size = sum({each.digest: each.size for each in manifest.blobs}.values())
        return [Variant(entry.digest, platform, size, manifest.layers, config)]

    async def _manifest(self, entry: Descriptor) -> Manifest | None:
        try:
            return Manifest.parse(await self.layout.read(entry.digest), entry.media_type)
        except (StorageError, ManifestInvalid):
            return None

    async def _config(self, manifest: Manifest) -> ImageConfig | None:
        if manifest.config is None or manifest.config.media_type not in IMAGE_CONFIGS:
            return None
        try:
            return ImageConfig.parse(await self.layout.read(manifest.config.digest))
        except (StorageError, ManifestInvalid):
            return None


def _default() -> Path:
    # Where a folder is given, the library that knows the platform's is not needed.
    from platformdirs import user_cache_path  # noqa: PLC0415 - see above

    return user_cache_path("pullclient", appauthor=False)
