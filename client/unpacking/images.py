"""An image of the cache that is to be unpacked."""

from __future__ import annotations

from dataclasses import dataclass

from client.caching.cache import Cache, Variant, chosen
from client.unpacking.layers import Layer
from ocispec.errors import CacheError, LayerInvalid
from ocispec.manifest import ImageConfig
from ocispec.platform import Platform
from ocispec.reference import Reference


@dataclass(frozen=True, slots=True)
class Image:
    """What is unpacked: its name, which image of those under the name, how it starts, and its layers."""

    name: str
    variant: Variant
    config: ImageConfig
    layers: tuple[Layer, ...]


async def found(cache: Cache, reference: str | Reference, platform: str | Platform | None) -> Image:
    """Returns an image with all its layers.

    Raises:
        CacheError: it is not in the cache, not whole, or no container image.
        PlatformUnknown: it is there for other platforms only.
        LayerInvalid: its config does not tell a diff id for each layer.
    """
    wanted = Platform.parse(platform) if isinstance(platform, str) else platform
    image = await cache.inspect(reference)
    variant = chosen(image, wanted)
    if variant.config is None:
        kind = variant.manifest.config.media_type if variant.manifest.config else "none"
        raise CacheError(f"{image.name} is no container image: it has no such config, but {kind}")
    if foreign := await cache.layout.missing(variant.layers):
        digest = foreign[0].digest
        raise CacheError(f"{image.name}: foreign layer {digest} is not in the cache: `pull --foreign` fetches it")
    ids = variant.config.diff_ids
    if len(ids) != len(variant.layers):
        raise LayerInvalid(f"{image.name}: expected a diff id for each of {len(variant.layers)} layers, got {len(ids)}")
    pairs = zip(variant.layers, ids, strict=True)
    return Image(
        image.name,
        variant,
        variant.config,
        tuple(Layer(each, id_, cache.layout.path(each.digest)) for each, id_ in pairs),
    )
