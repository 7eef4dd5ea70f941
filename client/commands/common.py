"""What the commands share: options, how they run, and how they end."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar

import typer

if TYPE_CHECKING:
    from client.caching.cache import Cache
    from client.session import Session
    from ocispec.platform import Platform
    from ocispec.reference import Reference

T = TypeVar("T")

# What an interrupted command leaves of the cache.
KEPT = "what is whole in the cache stays"

# Everything else is imported where it is used: `--help` has to answer at once.
# ruff: noqa: PLC0415

CacheFolder = Annotated[
    Path | None,
    typer.Option(
        "--cache",
        metavar="DIR",
        help="Where images are kept.  [default: $PULLCLIENT_CACHE, else the user's cache folder]",
    ),
]
PlatformOption = Annotated[
    str | None,
    typer.Option("--platform", metavar="OS/ARCH[/VARIANT]", help="What the image has to run on.  [default: this one]"),
]
PlainHttp = Annotated[bool, typer.Option("--plain-http", help="Speak http to any host; localhost and 127.* need none.")]
Insecure = Annotated[
    bool, typer.Option("--insecure", help="Take any certificate, and http from a host that speaks no https.")
]
Mirrors = Annotated[
    list[str] | None,
    typer.Option("--mirror", metavar="URL", help="Ask here first, for any image; may be given several times."),
]
Jobs = Annotated[int, typer.Option("--jobs", min=1, max=64, help="How many transfers run at once, in all.")]
PerHost = Annotated[int, typer.Option("--per-host", min=1, max=64, help="How many of them go to one host.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


def opened(
    *,
    plain_http: bool = False,
    insecure: bool = False,
    mirrors: list[str] | None = None,
    jobs: int | None = None,
    per_host: int | None = None,
) -> Session:
    """Returns a session, to be entered, with the options of a command."""
    import sys

    from client import session

    # httpx takes in all of its own command line where it can, which lasts longer than all else of it. It has a way to
    # do without, taken where the import fails; in a process that is a command of ours, nobody misses it.
    sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]
    return session.Session(
        jobs=jobs or session.JOBS,
        per_host=per_host or session.PER_HOST,
        plain_http=plain_http,
        insecure=insecure,
        mirrors=tuple(mirrors or ()),
    )


def cache_at(folder: Path | None) -> Cache:
    from client.caching.cache import Cache

    return Cache(folder)


def parsed(text: str) -> Reference:
    """Reads an image's name; one that is none ends the command with status 2."""
    from ocispec.reference import Reference

    return usage(lambda: Reference.parse(text))


def host_of(text: str) -> str:
    """Reads a registry's name, also as docker writes it into its file; what is none ends the command with status 2."""
    from client.access.credential import normalised
    from ocispec.errors import NameInvalid
    from ocispec.reference import Reference

    host = normalised(text)
    try:
        known = Reference.parse(f"{host}/library/any")
    except NameInvalid:
        known = None
    if not known or known.host != host or known.repository != "library/any":
        end(f"{text[:255]!r} is no registry: expected a host as image names have it, like ghcr.io", 2)
    return host


def platform_of(text: str | None) -> Platform | None:
    """Reads a platform; one that is none ends the command with status 2."""
    from ocispec.platform import Platform

    return usage(lambda: Platform.parse(text) if text else None)


def usage(parse: Callable[[], T]) -> T:
    """Runs what reads the command line; its errors end the command with status 2."""
    from ocispec.errors import LayerhouseError

    try:
        return parse()
    except LayerhouseError as error:
        end(error.message, 2)


def run(work: Callable[[], Coroutine[Any, Any, T]], *, left: str = "") -> T:
    """Runs a command's work: an error is one line and status 1, Ctrl-C is status 130 and tells what is `left`."""
    import asyncio

    from ocispec.errors import LayerhouseError

    try:
        return asyncio.run(work())
    except LayerhouseError as error:
        end(error.message, 1)
    except KeyboardInterrupt:
        end(f"interrupted; {left}" if left else "interrupted", 130)


def end(message: str, status: int) -> NoReturn:
    typer.echo(f"pullclient: {message}", err=True)
    raise typer.Exit(status)


def table(rows: list[tuple[str, ...]]) -> None:
    """Prints rows in columns, the first row being the heading."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    for row in rows:
        typer.echo("  ".join([*(text.ljust(width) for text, width in zip(row[:-1], widths, strict=True)), row[-1]]))
