"""`pullclient images`, `inspect`: what lies in the cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from client.commands.common import CacheFolder, Json, cache_at, end, platform_of, run, table

if TYPE_CHECKING:
    from client.caching.cache import Cache, CachedImage, Variant
    from ocispec.platform import Platform

# ruff: noqa: PLC0415 - see client.commands.common

app = typer.Typer()

CachedReference = Annotated[str, typer.Argument(metavar="REF", help="An image in the cache.")]
VariantOption = Annotated[
    str | None,
    typer.Option(
        "--platform",
        metavar="OS/ARCH[/VARIANT]",
        help="Which image, where the cache has several under the name.  [default: the one for this machine]",
    ),
]


@app.command()
def images(
    *,
    cache: CacheFolder = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print the names alone.")] = False,
    json: Json = False,
) -> None:
    """List the images in the cache.

    SHARED is how much of an image's SIZE other images of the cache have as well.
    """
    if quiet and json:
        raise typer.BadParameter("--quiet and --json exclude each other")
    run(lambda: _images(cache_at(cache), _names if quiet else _images_json if json else _images_table))


@app.command()
def inspect(
    reference: CachedReference,
    *,
    platform: VariantOption = None,
    config: Annotated[bool, typer.Option("--config", help="Print the image's config, byte for byte.")] = False,
    manifest: Annotated[bool, typer.Option("--manifest", help="Print the image's manifest, byte for byte.")] = False,
    raw: Annotated[
        bool, typer.Option("--raw", help="Print what the name points at, an index or a manifest, byte for byte.")
    ] = False,
    cache: CacheFolder = None,
) -> None:
    """Show an image in the cache as JSON: digests, sizes, config, and what made each layer."""
    if config + manifest + raw > 1:
        raise typer.BadParameter("--config, --manifest and --raw exclude each other")
    wanted, kind = platform_of(platform), "config" if config else "manifest" if manifest else "raw" if raw else "all"
    run(lambda: _inspect(cache_at(cache), reference, wanted, kind))


async def cached(cache: Cache, reference: str) -> CachedImage:
    """Returns an image of the cache; what is no image's name ends the command with status 2."""
    from ocispec.errors import DigestInvalid, NameInvalid, TagInvalid

    try:
        return await cache.inspect(reference)
    except (NameInvalid, TagInvalid, DigestInvalid) as error:
        end(error.message, 2)


async def _images(cache: Cache, show: Callable[[Sequence[CachedImage]], None]) -> None:
    show(await cache.images())


def _names(found: Sequence[CachedImage]) -> None:
    from client.wording import one_line

    for each in found:
        typer.echo(one_line(each.name))


def _images_json(found: Sequence[CachedImage]) -> None:
    from client.caching.cache import shared_bytes

    dump([_image_json(image, shared) for image, shared in zip(found, shared_bytes(found), strict=True)])


def _image_json(image: CachedImage, shared: Sequence[int]) -> dict[str, Any]:
    variants = [
        {
            "platform": str(each.platform) if each.platform else None,
            "digest": str(each.digest),
            "created": each.config.created if each.config else None,
            "layers": len(each.layers),
            "size": each.size,
            "shared": common,
        }
        for each, common in zip(image.variants, shared, strict=True)
    ]
    return {"name": image.name, "digest": str(image.digest), "mediaType": image.media_type, "images": variants}


def _images_table(found: Sequence[CachedImage]) -> None:
    from client.caching.cache import shared_bytes
    from client.wording import one_line

    rows: list[tuple[str, ...]] = [("NAME", "DIGEST", "PLATFORM", "LAYERS", "SIZE", "SHARED")]
    for image, shared in zip(found, shared_bytes(found), strict=True):
        rows += [(one_line(image.name), image.digest.short, *each) for each in _rows(image, shared)]
    table(rows)


def _rows(image: CachedImage, shared: Sequence[int]) -> Sequence[tuple[str, ...]]:
    from client.display import size_text

    rows = [
        (platform_text(each), str(len(each.layers)), size_text(each.size), size_text(common))
        for each, common in zip(image.variants, shared, strict=True)
    ]
    return rows or [("-", "-", "not whole", "-")]


async def _inspect(cache: Cache, reference: str, platform: Platform | None, kind: str) -> None:
    from dataclasses import replace

    from client.caching.cache import chosen

    image = await cached(cache, reference)
    if kind == "all":
        dump((replace(image, variants=(chosen(image, platform),)) if platform else image).to_json())
        return
    manifest = chosen(image, platform).manifest
    if kind == "raw":
        data = await cache.layout.read(image.digest)
    elif kind == "config" and manifest.config:
        data = await cache.layout.read(manifest.config.digest)
    else:
        data = manifest.raw
    typer.echo(data, nl=False)


def platform_text(image: Variant) -> str:
    return str(image.platform or "-")


def dump(value: Any) -> None:
    """Prints JSON."""
    from json import dumps

    typer.echo(dumps(value, indent=2))
