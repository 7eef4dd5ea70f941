"""`pullclient save`, `load`: images as files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from client.archive.formats import Format, checked
from client.commands.common import KEPT, CacheFolder, PlatformOption, cache_at, end, parsed, platform_of, run, usage

if TYPE_CHECKING:
    from client.caching.cache import Cache
    from ocispec.platform import Platform
    from ocispec.reference import Reference

# ruff: noqa: PLC0415 - see client.commands.common

app = typer.Typer()


@app.command()
def save(
    references: Annotated[list[str], typer.Argument(metavar="REF", help="Images in the cache.")],
    *,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="FILE", help="A file, or a folder for oci; - is standard output."),
    ] = Path("-"),
    format: Annotated[Format, typer.Option("--format", help="What to write.")] = Format.DOCKER_ARCHIVE,  # noqa: A002
    platform: PlatformOption = None,
    all_platforms: Annotated[
        bool, typer.Option("--all-platforms", help="Save every image of an index, not one; oci-archive and oci only.")
    ] = False,
    cache: CacheFolder = None,
) -> None:
    """Write images of the cache to a file or a pipe.

    docker, podman and skopeo load it. The file appears once it is whole, and the same images give the same bytes.
    """
    names, wanted = [parsed(each) for each in references], platform_of(platform)
    target = _place(output, 1)
    usage(lambda: checked(format, stream=isinstance(target, int), platform=bool(platform), all_platforms=all_platforms))
    if target == 1 and os.isatty(1):
        end("an archive is not written to a terminal: give a file with -o, or a pipe", 2)
    run(lambda: _save(cache_at(cache), names, target, format, wanted, all_platforms=all_platforms), left=KEPT)


@app.command()
def load(
    *,
    input: Annotated[  # noqa: A002 - the option's name
        Path,
        typer.Option("--input", "-i", metavar="FILE", help="A file, or an OCI layout's folder; - is standard input."),
    ] = Path("-"),
    name: Annotated[
        str | None,
        typer.Option("--name", metavar="REF", help="Name for the one image in the archive, in place of its own."),
    ] = None,
    cache: CacheFolder = None,
) -> None:
    """Put the images of an archive into the cache.

    Takes what docker, podman and skopeo save: docker-archive, oci-archive (plain, gzip or zstd) and OCI layout. Prints
    the images' names.
    """
    given = parsed(name) if name else None
    source = _place(input, 0)
    if source == 0 and os.isatty(0):
        end("an archive is not read from a terminal: give a file with -i, or a pipe", 2)
    run(lambda: _load(cache_at(cache), source, given), left=KEPT)


def _place(given: Path, standard: int) -> Path | int:
    return standard if given == Path("-") else given


async def _save(
    cache: Cache,
    names: list[Reference],
    target: Path | int,
    format: Format,  # noqa: A002 - see above
    platform: Platform | None,
    *,
    all_platforms: bool,
) -> None:
    from client.archive.saving import save as write

    await write(cache, names, target, format=format, platform=platform, all_platforms=all_platforms)


async def _load(cache: Cache, source: Path | int, name: Reference | None) -> None:
    from client.archive.loading import load as read

    for each in await read(cache, source, name=name):
        typer.echo(each.name)
