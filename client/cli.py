"""The command `pullclient`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar

import typer

if TYPE_CHECKING:
    from client.cache import Cache, CachedImage
    from client.display import Style
    from ocispec.platform import Platform
    from ocispec.reference import Reference

T = TypeVar("T")

# Everything else is imported where it is used: `--help` has to answer at once.
# ruff: noqa: PLC0415

app = typer.Typer(
    name="pullclient",
    help="Pull container images: all layers at once, every byte verified, nothing fetched twice.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

CacheFolder = Annotated[
    Path | None,
    typer.Option(
        "--cache",
        metavar="DIR",
        help="Where images are kept.  [default: $PULLCLIENT_CACHE, else the user's cache folder]",
    ),
]


@app.callback(invoke_without_command=True)
def main(*, version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    if version:
        from importlib.metadata import version as installed

        typer.echo(f"pullclient {installed('layerhouse')}")
        raise typer.Exit


@app.command()
def pull(
    references: Annotated[list[str], typer.Argument(metavar="REF", help="Images, named as docker names them.")],
    *,
    platform: Annotated[
        str | None,
        typer.Option(metavar="OS/ARCH[/VARIANT]", help="What the image has to run on.  [default: this machine]"),
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, max=64, help="How many layers are fetched at once.")] = 6,
    cache: CacheFolder = None,
    plain_http: Annotated[
        bool, typer.Option("--plain-http", help="Speak http to any host; localhost and 127.* need no flag.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print the digest alone.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object per event and line.")] = False,
) -> None:
    """Fetch images into the cache.

    Layers that the cache has are not fetched again. An interrupted or failed pull leaves the cache sound.
    """
    if quiet and json:
        raise typer.BadParameter("--quiet and --json exclude each other")
    names, wanted = _usage(lambda: _parsed(references, platform))
    _run(lambda: _pull(names, wanted, cache, _style(quiet=quiet, json=json), jobs=jobs, plain_http=plain_http))


@app.command()
def images(cache: CacheFolder = None) -> None:
    """List what the cache holds."""
    _run(lambda: _images(_cache(cache)))


@app.command()
def inspect(
    reference: Annotated[str, typer.Argument(metavar="REF", help="An image in the cache.")], cache: CacheFolder = None
) -> None:
    """Show an image in the cache as JSON: digests, sizes, config, and what made each layer."""
    (name,), _ = _usage(lambda: _parsed([reference], None))
    _run(lambda: _inspect(_cache(cache), name))


async def _pull(
    names: list[Reference], platform: Platform | None, cache: Path | None, style: Style, *, jobs: int, plain_http: bool
) -> None:
    from client.display import shown
    from client.pulling import pull_in
    from client.session import Session

    with shown(style, sys.stdout, sys.stderr) as report:
        async with Session(jobs=jobs, plain_http=plain_http) as session:
            for name in names:
                await pull_in(session, _cache(cache), name, platform, report)


async def _images(cache: Cache) -> None:
    rows = [("NAME", "DIGEST", "PLATFORM", "SIZE")]
    for image in await cache.images():
        rows += _rows(image)
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for row in rows:
        typer.echo("  ".join([*(text.ljust(width) for text, width in zip(row[:3], widths, strict=True)), row[3]]))


def _rows(image: CachedImage) -> list[tuple[str, str, str, str]]:
    from client.display import size_text

    found = [(str(each.platform or "-"), size_text(each.size)) for each in image.variants]
    return [(image.name, image.digest.short, *each) for each in found or [("-", "not whole")]]


async def _inspect(cache: Cache, reference: Reference) -> None:
    from json import dumps

    typer.echo(dumps((await cache.inspect(reference)).to_json(), indent=2))


def _cache(folder: Path | None) -> Cache:
    from client.cache import Cache

    return Cache(folder)


def _style(*, quiet: bool, json: bool) -> Style:
    from client.display import Style

    if quiet or json:
        return Style.QUIET if quiet else Style.JSON
    return Style.BARS if sys.stdout.isatty() else Style.LINES


def _parsed(references: list[str], platform: str | None) -> tuple[list[Reference], Platform | None]:
    from ocispec.platform import Platform
    from ocispec.reference import Reference

    return [Reference.parse(each) for each in references], Platform.parse(platform) if platform else None


def _usage(parse: Callable[[], T]) -> T:
    from ocispec.errors import LayerhouseError

    try:
        return parse()
    except LayerhouseError as error:
        _end(error.message, 2)


def _run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    import asyncio

    from ocispec.errors import LayerhouseError

    try:
        asyncio.run(work())
    except LayerhouseError as error:
        _end(error.message, 1)
    except KeyboardInterrupt:
        _end("interrupted; what is whole in the cache stays", 130)


def _end(message: str, status: int) -> NoReturn:
    typer.echo(f"pullclient: {message}", err=True)
    raise typer.Exit(status)
