"""`pullclient pull`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from client.commands.common import (
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
)

if TYPE_CHECKING:
    from client.display import Style
    from client.session import Session
    from ocispec.platform import Platform
    from ocispec.reference import Reference

# ruff: noqa: PLC0415 - see client.commands.common

app = typer.Typer()


@app.command()
def pull(
    references: Annotated[list[str], typer.Argument(metavar="REF", help="Images, named as docker names them.")],
    *,
    platform: PlatformOption = None,
    jobs: Jobs = 12,
    per_host: PerHost = 6,
    cache: CacheFolder = None,
    mirror: Mirrors = None,
    plain_http: PlainHttp = False,
    insecure: Insecure = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print the digest alone.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object per event and line.")] = False,
) -> None:
    """Fetch images into the cache.

    Layers that the cache has are not fetched again. An interrupted or failed pull leaves the cache sound, and the next
    one goes on where it ended.
    """
    if quiet and json:
        raise typer.BadParameter("--quiet and --json exclude each other")
    names, wanted = [parsed(each) for each in references], platform_of(platform)
    session = opened(plain_http=plain_http, insecure=insecure, mirrors=mirror, jobs=jobs, per_host=per_host)
    run(lambda: _pull(session, names, wanted, cache, _style(quiet=quiet, json=json)))


async def _pull(
    session: Session, names: list[Reference], platform: Platform | None, cache: Path | None, style: Style
) -> None:
    from client.display import shown
    from client.pulling import pull_in

    with shown(style, sys.stdout, sys.stderr) as report:
        async with session:
            for name in names:
                await pull_in(session, cache_at(cache), name, platform, report)


def _style(*, quiet: bool, json: bool) -> Style:
    from client.display import Style

    if quiet or json:
        return Style.QUIET if quiet else Style.JSON
    return Style.BARS if sys.stdout.isatty() else Style.LINES
