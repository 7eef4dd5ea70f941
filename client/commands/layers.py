"""`pullclient history`, `tree`, `diff`: what made the layers of images, and which of them images share."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from client.commands.cache import CachedReference, VariantOption, cached, dump, platform_text
from client.commands.common import (
    CacheFolder,
    Insecure,
    Json,
    Mirrors,
    PlainHttp,
    PlatformOption,
    cache_at,
    end,
    opened,
    platform_of,
    run,
    table,
)

if TYPE_CHECKING:
    from client.caching.cache import Cache, Variant
    from client.caching.comparing import Branch, Comparison, Side
    from client.caching.history import Step
    from client.session import Session
    from ocispec.platform import Platform

# ruff: noqa: PLC0415 - see client.commands.common

app = typer.Typer()

Whole = Annotated[bool, typer.Option("--no-trunc", help="Print instructions and digests whole.")]


@app.command()
def history(
    reference: CachedReference,
    *,
    platform: VariantOption = None,
    no_trunc: Whole = False,
    json: Json = False,
    cache: CacheFolder = None,
) -> None:
    """Show how an image was made: each layer beside the instruction that made it.

    The base comes first, as in a Dockerfile. Instructions that made no layer are shown with 0 B.
    """
    wanted = platform_of(platform)
    run(lambda: _history(cache_at(cache), reference, wanted, no_trunc=no_trunc, json=json))


@app.command()
def tree(
    references: Annotated[
        list[str] | None, typer.Argument(metavar="[REF]...", help="Images in the cache; all of them unless told.")
    ] = None,
    *,
    json: Json = False,
    cache: CacheFolder = None,
) -> None:
    """Show which layers images share, from the base up.

    Images that stand on the same line have the same layers; what is drawn below a line lies on its layers.
    """
    run(lambda: _tree(cache_at(cache), references or [], json=json))


@app.command()
def diff(
    first: Annotated[str, typer.Argument(metavar="A", help="An image that is there already.")],
    second: Annotated[str, typer.Argument(metavar="B", help="An image that would be pulled.")],
    *,
    platform: PlatformOption = None,
    no_trunc: Whole = False,
    json: Json = False,
    cache: CacheFolder = None,
    mirror: Mirrors = None,
    plain_http: PlainHttp = False,
    insecure: Insecure = False,
) -> None:
    """Show which layers two images share, and what a pull of B moves where A is there.

    An image that is not in the cache is asked for at its registry; none of its layers is fetched.
    """
    wanted = platform_of(platform)
    session = opened(plain_http=plain_http, insecure=insecure, mirrors=mirror)
    run(lambda: _diff(session, cache_at(cache), (first, second), wanted, no_trunc=no_trunc, json=json))


async def _history(cache: Cache, reference: str, platform: Platform | None, *, no_trunc: bool, json: bool) -> None:
    from client.caching.cache import chosen
    from client.display import size_text
    from client.wording import counted

    variant = chosen(await cached(cache, reference), platform)
    if json:
        dump([each.to_json() for each in variant.steps])
        return
    table([("LAYER", "CREATED", "SIZE", "INSTRUCTION"), *_steps(variant.steps, whole=no_trunc)])
    typer.echo(f"{counted(len(variant.layers), 'layer')}, {size_text(variant.size)}")


def _steps(steps: Sequence[Step], *, whole: bool) -> list[tuple[str, ...]]:
    from shutil import get_terminal_size

    from client.display import size_text
    from client.wording import shortened

    # Digest, time and size take 46 columns.
    width = max(32, get_terminal_size().columns - 46)
    return [
        (
            str(each.layer.digest if whole else each.layer.digest.short) if each.layer else "-",
            _time(each.created),
            size_text(each.size),
            each.instruction if whole else shortened(each.instruction, width),
        )
        for each in steps
    ]


def _time(created: str | None) -> str:
    from re import match

    stands = match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", created or "")
    return stands[0].replace("T", " ") if stands else "-"


async def _tree(cache: Cache, references: list[str], *, json: bool) -> None:
    from client.caching.comparing import tree as grown
    from client.wording import listed, one_line

    images = [await cached(cache, each) for each in references] if references else await cache.images()
    held = [(image.name, each) for image in images for each in image.variants]
    branches = grown([each for _, each in held])
    if json:
        dump([_branch_json(each, held) for each in branches])
        return
    for branch in branches:
        for line in _drawn(branch, held, "", ""):
            typer.echo(line)
    typer.echo(_tree_sum([each for _, each in held]))
    if torn := [image.name for image in images if not image.variants]:
        typer.echo(f"not whole, and left out: {listed([one_line(each) for each in torn])}")


def _branch_json(branch: Branch, held: Sequence[tuple[str, Variant]]) -> dict[str, Any]:
    images = [
        {"name": name, "platform": str(each.platform) if each.platform else None}
        for name, each in (held[position] for position in branch.images)
    ]
    layers = [{"digest": str(each.digest), "size": each.size} for each in branch.layers]
    return {"layers": layers, "images": images, "above": [_branch_json(each, held) for each in branch.branches]}


def _drawn(branch: Branch, held: Sequence[tuple[str, Variant]], first: str, rest: str) -> Iterator[str]:
    """Yields the lines of a branch: `first` stands before its own, `rest` before those of the branches on it."""
    from client.display import size_text
    from client.wording import counted, one_line

    names = [f"{one_line(held[each][0])} ({platform_text(held[each][1])})" for each in branch.images]
    size = size_text(sum({each.digest: each.size for each in branch.layers}.values()))
    common = f", under {counted(branch.count, 'image')}" if branch.branches else ""
    yield f"{first}{counted(len(branch.layers), 'layer')}, {size}{common}{': ' if names else ''}{', '.join(names)}"
    for each in branch.branches:
        last = each is branch.branches[-1]
        yield from _drawn(each, held, f"{rest}{'└─ ' if last else '├─ '}", f"{rest}{'   ' if last else '│  '}")


def _tree_sum(variants: Sequence[Variant]) -> str:
    from client.display import size_text
    from client.wording import counted

    layers = [list({each.digest: each for each in variant.layers}.values()) for variant in variants]
    once = {each.digest: each.size for some in layers for each in some}
    alone = sum(each.size for some in layers for each in some)
    return (
        f"{counted(len(variants), 'image')}, {counted(len(once), 'layer')}: {size_text(sum(once.values()))}; "
        f"without sharing {size_text(alone)}"
    )


async def _diff(
    session: Session,
    cache: Cache,
    names: tuple[str, str],
    platform: Platform | None,
    *,
    no_trunc: bool,
    json: bool,
) -> None:
    from client.caching.comparing import compare
    from client.display import Style, shown

    # What hosts ask to wait for, and mirrors that failed, is told; there is no progress to show.
    with shown(Style.QUIET, sys.stdout, sys.stderr) as session.report:
        async with session:
            first, second = [await _side(session, cache, each, platform) for each in names]
    found = compare(first, second)
    if json:
        dump(found.to_json())
    else:
        _show(found, whole=no_trunc)


async def _side(session: Session, cache: Cache, reference: str, platform: Platform | None) -> Side:
    from client.caching.comparing import side
    from ocispec.errors import DigestInvalid, NameInvalid, TagInvalid

    try:
        return await side(session, cache, reference, platform)
    except (NameInvalid, TagInvalid, DigestInvalid) as error:
        end(error.message, 2)


def _show(found: Comparison, *, whole: bool) -> None:
    from client.caching.comparing import size_of
    from client.display import size_text
    from client.wording import counted

    for letter, each in (("A", found.a), ("B", found.b)):
        typer.echo(f"{letter}: {_side_text(each)}")
    lists = {
        "In both, from the base up": found.base,
        "In both, elsewhere": found.elsewhere,
        "Only in A": found.only_a,
        "Only in B": found.only_b,
    }
    for title, steps in lists.items():
        if steps:
            typer.echo(f"{title}: {counted(len(steps), 'layer')}, {size_text(size_of(steps))}")
            rows = _steps(steps, whole=whole)
            table([(f"  {layer}", size, instruction) for layer, _, size, instruction in rows])
    typer.echo(_conclusion(found))


def _side_text(side: Side) -> str:
    from client.display import size_text
    from client.wording import counted, one_line

    image = side.image
    where = "" if side.cached else ", not in the cache"
    size = f"{counted(len(image.layers), 'layer')}, {size_text(image.size)}"
    return f"{one_line(side.name)} ({platform_text(image)}): {size}{where}"


def _conclusion(found: Comparison) -> str:
    from client.display import size_text
    from client.wording import shortened

    image = found.b.image
    moves = f"Where A is there, a pull of B moves {size_text(found.moved)} of {size_text(image.size)}"
    if found.parting is None:
        return f"{moves}, for A has all its layers."
    place = f"layer {len(found.base) + 1} of {len(image.layers)}"
    made = f" ({shortened(found.parting.instruction, 60)})" if found.parting.created_by else ""
    return f"{moves}, for they part at {place}{made}."
