"""`pullclient unpack`, `bundle`: images as folders."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from client.commands.cache import CachedReference, VariantOption, cached
from client.commands.common import CacheFolder, cache_at, platform_of, run, usage

if TYPE_CHECKING:
    from client.progress import Event
    from client.unpacking.unpacking import Unpacked

# ruff: noqa: PLC0415 - see client.commands.common

app = typer.Typer()

Folder = Annotated[
    Path, typer.Argument(metavar="DIR", help="Where to put it: a folder that is new or empty.", show_default=False)
]


@app.command()
def unpack(
    reference: CachedReference, folder: Folder, *, platform: VariantOption = None, cache: CacheFolder = None
) -> None:
    """Put the layers of an image together into a root file system.

    Every layer is verified once more, packed and unpacked. Owners, devices and extended attributes need root; without,
    they are left out and counted. DIR appears when it is whole.
    """
    wanted = platform_of(platform)

    async def work() -> None:
        from client.unpacking.unpacking import unpack as write

        place = cache_at(cache)
        await cached(place, reference)
        _tell(await write(place, reference, folder, platform=wanted, report=_warn))

    run(work, left="nothing is left of it")


@app.command()
def bundle(
    reference: CachedReference,
    folder: Folder,
    args: Annotated[
        list[str] | None,
        typer.Argument(metavar="[-- ARG...]", help="Words in place of the image's command; its entrypoint stays."),
    ] = None,
    *,
    env: Annotated[
        list[str] | None,
        typer.Option(
            "--env",
            "-e",
            metavar="NAME[=VALUE]",
            help="Set a variable; without VALUE take it from here. May be given several times.",
        ),
    ] = None,
    platform: VariantOption = None,
    cache: CacheFolder = None,
) -> None:
    """Make an OCI runtime bundle of an image, which runc and crun start.

    DIR gets rootfs and config.json: start it with `runc run --bundle DIR NAME`.
    """
    from client.unpacking.runtime import with_env

    wanted, words, changes = platform_of(platform), args or [], env or []
    usage(lambda: with_env((), changes, {}))

    async def work() -> None:
        from client.unpacking.bundling import bundle as write
        from client.wording import one_line

        place = cache_at(cache)
        await cached(place, reference)
        done = await write(place, reference, folder, platform=wanted, args=words, env=changes, report=_warn)
        _tell(done.unpacked)
        typer.echo(f"starts {one_line(shlex.join(done.args))}")

    run(work, left="nothing is left of it")


def _warn(event: Event) -> None:
    from client.progress import Warned

    if isinstance(event, Warned):
        typer.echo(f"pullclient: {event.message}", err=True)


def _tell(done: Unpacked) -> None:
    from client.display import size_text
    from client.wording import counted, one_line

    platform = f", {done.platform}" if done.platform else ""
    entries = counted(done.entries, "entry", "entries")
    what = f"{counted(done.layers, 'layer')}, {entries}, {size_text(done.size)}"
    typer.echo(f"{done.folder}: {one_line(done.name)}{platform}, {what}")
