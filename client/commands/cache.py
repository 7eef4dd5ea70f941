"""`pullclient images`, `inspect`: what lies in the cache."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from client.commands.common import CacheFolder, cache_at, parsed, run, table

if TYPE_CHECKING:
    from client.cache import Cache, CachedImage
    from ocispec.reference import Reference

# ruff: noqa: PLC0415 - see client.commands.common

app = typer.Typer()

CachedReference = Annotated[str, typer.Argument(metavar="REF", help="An image in the cache.")]


@app.command()
def images(cache: CacheFolder = None) -> None:
    """List what the cache holds."""
    run(lambda: _images(cache_at(cache)))


@app.command()
def inspect(reference: CachedReference, cache: CacheFolder = None) -> None:
    """Show an image in the cache as JSON: digests, sizes, config, and what made each layer."""
    name = parsed(reference)
    run(lambda: _inspect(cache_at(cache), name))


async def _images(cache: Cache) -> None:
    rows: list[tuple[str, ...]] = [("NAME", "DIGEST", "PLATFORM", "SIZE")]
    for image in await cache.images():
        rows += _rows(image)
    table(rows)


def _rows(image: CachedImage) -> list[tuple[str, ...]]:
    from client.display import size_text

    found = [(str(each.platform or "-"), size_text(each.size)) for each in image.variants]
    return [(image.name, image.digest.short, *each) for each in found or [("-", "not whole")]]


async def _inspect(cache: Cache, reference: Reference) -> None:
    from json import dumps

    typer.echo(dumps((await cache.inspect(reference)).to_json(), indent=2))
