"""`pullclient push`, `copy`: images into a registry."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Annotated

import typer

from client.commands.common import (
    CacheFolder,
    Insecure,
    Jobs,
    PerHost,
    PlainHttp,
    cache_at,
    opened,
    parsed,
    platform_of,
    run,
)

if TYPE_CHECKING:
    from client.caching.cache import Cache
    from client.progress import Report
    from client.session import Session
    from client.transfers.picking import Wanted
    from ocispec.platform import Platform
    from ocispec.reference import Reference

# ruff: noqa: PLC0415 - see client.commands.common

app = typer.Typer()

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print the digest alone.")]
EventsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object per event and line.")]


@app.command()
def push(
    source: Annotated[
        str, typer.Argument(metavar="SRC", help="An image in the cache; else an archive, or an OCI layout's folder.")
    ],
    target: Annotated[
        str | None, typer.Argument(metavar="[DST]", help="The name it gets at the registry.  [default: its own]")
    ] = None,
    *,
    platform: Annotated[
        str | None, typer.Option("--platform", metavar="OS/ARCH[/VARIANT]", help="Push this image of an index alone.")
    ] = None,
    all_platforms: Annotated[
        bool, typer.Option("--all-platforms", help="Push all that an index names; fail where that is not all here.")
    ] = False,
    jobs: Jobs = 12,
    per_host: PerHost = 6,
    cache: CacheFolder = None,
    plain_http: PlainHttp = False,
    insecure: Insecure = False,
    quiet: Quiet = False,
    json: EventsJson = False,
) -> None:
    """Send an image to a registry, and only what it lacks.

    An index goes with all its images where they are all here; where one alone is, as after a pull, that image goes
    without its index. Of an archive with several images each goes to where its own name tells. Uploads that break go on
    where they ended. The tag comes last: an interrupted push leaves it as it was.
    """
    _exclude(quiet=quiet, json=json, platform=platform, all_platforms=all_platforms)
    goal, wanted = parsed(target) if target else None, platform_of(platform)
    session = opened(plain_http=plain_http, insecure=insecure, jobs=jobs, per_host=per_host)

    async def work() -> None:
        from client.transfers.picking import Wanted

        with _shown(quiet=quiet, json=json) as report:
            session.report = report
            await _push(session, cache_at(cache), source, goal, Wanted(wanted, all_platforms))

    run(work, left="the tag is as it was")


@app.command()
def copy(
    source: Annotated[str, typer.Argument(metavar="SRC", help="An image at a registry.")],
    target: Annotated[str, typer.Argument(metavar="DST", help="The name it gets, at the same registry or another.")],
    *,
    platform: Annotated[
        str | None,
        typer.Option(
            "--platform", metavar="OS/ARCH[/VARIANT]", help="Which image of an index.  [default: this machine's]"
        ),
    ] = None,
    all_platforms: Annotated[
        bool, typer.Option("--all-platforms", help="Copy all that an index names, and the index.")
    ] = False,
    referrers: Annotated[
        bool, typer.Option("--referrers", help="Copy signatures, SBOMs and whatever refers to the image, too.")
    ] = False,
    jobs: Jobs = 12,
    per_host: PerHost = 6,
    plain_http: PlainHttp = False,
    insecure: Insecure = False,
    quiet: Quiet = False,
    json: EventsJson = False,
) -> None:
    """Copy an image between registries, without a disk in between.

    Manifests stay as they are, byte for byte, and every blob is verified while it passes. Within one registry blobs
    are mounted and not moved. The cache is not used.
    """
    _exclude(quiet=quiet, json=json, platform=platform, all_platforms=all_platforms)
    names, wanted = (parsed(source), parsed(target)), platform_of(platform)
    session = opened(plain_http=plain_http, insecure=insecure, jobs=jobs, per_host=per_host)

    async def work() -> None:
        with _shown(quiet=quiet, json=json) as report:
            session.report = report
            await _copy(session, names, wanted, all_platforms=all_platforms, referrers=referrers)

    run(work, left="the tag is as it was")


async def _push(session: Session, cache: Cache, source: str, target: Reference | None, wanted: Wanted) -> None:
    from client.transfers.pushing import push_any

    async with session:
        await push_any(session, cache, source, target, wanted)


async def _copy(
    session: Session,
    names: tuple[Reference, Reference],
    platform: Platform | None,
    *,
    all_platforms: bool,
    referrers: bool,
) -> None:
    from client.transfers.copying import copy_in

    async with session:
        await copy_in(session, *names, platform, all_platforms=all_platforms, with_referrers=referrers)


def _exclude(*, quiet: bool, json: bool, platform: str | None, all_platforms: bool) -> None:
    if quiet and json:
        raise typer.BadParameter("--quiet and --json exclude each other")
    if platform and all_platforms:
        raise typer.BadParameter("--platform and --all-platforms exclude each other")


def _shown(*, quiet: bool, json: bool) -> AbstractContextManager[Report]:
    from client.display import Style, shown

    style = Style.QUIET if quiet else Style.JSON if json else Style.BARS if sys.stdout.isatty() else Style.LINES
    return shown(style, sys.stdout, sys.stderr)
