"""`pullclient pull`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from client.commands.common import (
    KEPT,
    CacheFolder,
    Insecure,
    Jobs,
    Mirrors,
    PerHost,
    PlainHttp,
    PlatformOption,
    cache_at,
    opened,
    parsed,
    platform_of,
    run,
    usage,
)

if TYPE_CHECKING:
    from client.caching.cache import Cache
    from client.display import Style
    from client.progress import Event, Pulled, Report
    from client.session import Session
    from client.transfers.pulling import Options
    from ocispec.reference import Reference

# ruff: noqa: PLC0415 - see client.commands.common

app = typer.Typer()

References = Annotated[
    list[str] | None, typer.Argument(metavar="REF...", help="Images, named as docker names them.", show_default=False)
]
LockFile = Annotated[
    Path | None,
    typer.Option(
        "--locked", metavar="FILE", help="Pull the digests that a lock file gives: of the images named, else of all."
    ),
]
AllPlatforms = Annotated[
    bool, typer.Option("--all-platforms", help="Fetch the images for all platforms, and all else the index names.")
]
Foreign = Annotated[
    bool, typer.Option("--foreign", help="Fetch layers that lie outside the registry, from where they say.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print the digests alone.")]
Lines = Annotated[bool, typer.Option("--json", help="Print one JSON object per event and line.")]


@app.command()
def pull(
    references: References = None,
    *,
    locked: LockFile = None,
    platform: PlatformOption = None,
    jobs: Jobs = 12,
    per_host: PerHost = 6,
    cache: CacheFolder = None,
    mirror: Mirrors = None,
    all_platforms: AllPlatforms = False,
    foreign: Foreign = False,
    plain_http: PlainHttp = False,
    insecure: Insecure = False,
    quiet: Quiet = False,
    json: Lines = False,
) -> None:
    """Fetch images into the cache.

    Layers that the cache has are not fetched again. An interrupted or failed pull leaves the cache sound, and the next
    one goes on where it ended.
    """
    if quiet and json:
        raise typer.BadParameter("--quiet and --json exclude each other")
    if platform and all_platforms:
        raise typer.BadParameter("--platform and --all-platforms exclude each other")
    names = _names(references or [], locked)
    on = platform_of(platform)
    session = opened(plain_http=plain_http, insecure=insecure, mirrors=mirror, jobs=jobs, per_host=per_host)

    async def work() -> None:
        from client.transfers.pulling import Options

        options = Options(on, all_platforms, foreign)
        await _pull(session, names, options, cache_at(cache), _style(quiet=quiet, json=json))

    run(work, left=KEPT)


async def _pull(session: Session, names: list[Reference], options: Options, cache: Cache, style: Style) -> None:
    from client.display import shown
    from client.tasks import side_by_side
    from client.transfers.pulling import pull_in

    with shown(style, sys.stdout, sys.stderr) as report:
        session.report = report

        ordered = _Ordered(report, len(names))

        async def one(item: tuple[int, Reference]) -> None:
            await pull_in(session, cache, item[1], options, ordered.of(item[0]))

        async with session:
            await side_by_side(one, list(enumerate(names)), session.jobs)


class _Ordered:
    """Lets images come side by side, and their last events in the order in which they were named: scripts rely on it.

    What else is told passes at once.
    """

    def __init__(self, report: Report, count: int) -> None:
        self._report = report
        self._last: list[Pulled | None] = [None] * count
        self._told = 0

    def of(self, number: int) -> Report:
        """Gives what hears of the image with that number."""

        def hear(event: Event) -> None:
            from client.progress import Pulled

            if not isinstance(event, Pulled):
                self._report(event)
                return
            self._last[number] = event
            while self._told < len(self._last) and (next_one := self._last[self._told]):
                self._report(next_one)
                self._told += 1

        return hear


def _names(references: list[str], locked: Path | None) -> list[Reference]:
    names = [parsed(each) for each in references]
    if locked is None:
        if not names:
            raise typer.BadParameter("name an image, or a lock file with --locked")
        return names
    from client.transfers.lockfile import pinned

    return usage(lambda: list(pinned(locked, names)))


def _style(*, quiet: bool, json: bool) -> Style:
    from client.display import Style

    if quiet or json:
        return Style.QUIET if quiet else Style.JSON
    return Style.BARS if sys.stdout.isatty() else Style.LINES
