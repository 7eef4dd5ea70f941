"""`pullclient du`, `rm`, `prune`, `verify`: keeping the cache small and sound."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from client.commands.cache import dump
from client.commands.common import (
    KEPT,
    CacheFolder,
    Insecure,
    Json,
    Mirrors,
    PlainHttp,
    cache_at,
    end,
    opened,
    run,
    table,
    usage,
)

if TYPE_CHECKING:
    from client.caching.cache import Cache
    from client.caching.care import Heap, Pruned, Usage
    from client.caching.verifying import Flaw, Progress, Verification
    from client.session import Session
    from ocispec.errors import LayerhouseError
    from storage.blobfolder import Stored

# ruff: noqa: PLC0415 - see client.commands.common

app = typer.Typer()

DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be removed, and remove nothing.")]


@app.command()
def du(*, json: Json = False, cache: CacheFolder = None) -> None:
    """Show how much disk the cache takes, by image.

    OWN is what no other image needs: so much `rm` and `prune` free. SHARED is what others need as well.
    """
    run(lambda: _du(cache_at(cache), json=json))


@app.command()
def rm(
    references: Annotated[list[str], typer.Argument(metavar="REF...", help="Images in the cache.")],
    *,
    prune: Annotated[
        bool, typer.Option("--prune", help="Remove the blobs that no other image needs, too, whatever their age.")
    ] = False,
    cache: CacheFolder = None,
) -> None:
    """Take the names of images out of the cache.

    Blobs stay until `prune`, unless --prune is given. If one of the names is not there, none is taken away.
    """
    run(lambda: _rm(cache_at(cache), references, at_once=prune))


@app.command()
def prune(
    *,
    older: Annotated[
        str, typer.Option("--older", metavar="AGE", help="Remove partial downloads of at least this age: 90s, 12h, 7d.")
    ] = "7d",
    everything: Annotated[
        bool, typer.Option("--all", help="Remove blobs that no image needs even if they came within the last 24 h.")
    ] = False,
    dry_run: DryRun = False,
    json: Json = False,
    cache: CacheFolder = None,
) -> None:
    """Remove what no image needs: blobs, old partial downloads, damaged blobs, and what crashes left.

    Blobs that came within the last 24 hours stay unless --all is given. While another pullclient pulls, pushes, saves
    or loads, prune waits for it.
    """
    from client.wording import seconds

    age = usage(lambda: seconds(older))
    run(lambda: _prune(cache_at(cache), age, everything=everything, dry_run=dry_run, json=json), left=KEPT)


@app.command()
def verify(
    references: Annotated[
        list[str] | None, typer.Argument(metavar="[REF]...", help="Images in the cache; everything in it unless told.")
    ] = None,
    *,
    repair: Annotated[
        bool, typer.Option("--repair", help="Fetch what is damaged or missing from the registries of the images.")
    ] = False,
    json: Json = False,
    cache: CacheFolder = None,
    mirror: Mirrors = None,
    plain_http: PlainHttp = False,
    insecure: Insecure = False,
) -> None:
    """Hash every blob of the cache again.

    A damaged blob is moved to quarantine, where nothing reads it. The status is 1 if anything is wrong, or still is
    after --repair.
    """
    session = opened(plain_http=plain_http, insecure=insecure, mirrors=mirror)
    if run(lambda: _verify(session, cache_at(cache), references, repair=repair, json=json), left=KEPT):
        raise typer.Exit(1)


async def _names(cache: Cache, references: Sequence[str]) -> list[str]:
    from client.caching.census import name_of
    from ocispec.errors import DigestInvalid, NameInvalid, TagInvalid

    try:
        return [name_of(await cache.entry(each)) for each in dict.fromkeys(references)]
    except (NameInvalid, TagInvalid, DigestInvalid) as error:
        end(error.message, 2)


async def _du(cache: Cache, *, json: bool) -> None:
    from client.caching.care import usage as measured

    found = await measured(cache.layout)
    if json:
        dump(found.to_json())
    else:
        _show_usage(found)


def _show_usage(found: Usage) -> None:
    from client.display import size_text
    from client.wording import counted, one_line

    rows: list[tuple[str, ...]] = [("NAME", "OWN", "SHARED", "TOTAL")]
    rows += [
        (one_line(each.name), size_text(each.own), size_text(each.shared), size_text(each.total))
        for each in found.images
    ]
    table(rows)
    own = sum(each.own for each in found.images)
    typer.echo(f"{counted(len(found.images), 'name')}: {size_text(own + found.shared)}, what they share counted once")
    for text in _heaps(found.heaps):
        typer.echo(text)
    typer.echo(f"in all: {size_text(found.total)}")


def _heaps(heaps: dict[str, Heap]) -> list[str]:
    from client.display import size_text
    from client.wording import counted

    words = {
        "unreferenced": ("blob that no image needs", "blobs that no image needs"),
        "blobs": ("blob that no image needs", "blobs that no image needs"),
        "partial": ("partial download", None),
        "quarantined": ("damaged blob in quarantine", "damaged blobs in quarantine"),
        "scratch": (
            "file that is being written or was left by a crash",
            "files that are written or were left by crashes",
        ),
    }
    return [
        f"{counted(heap.count, *words[name])}: {size_text(heap.size)}" for name, heap in heaps.items() if heap.count
    ]


async def _rm(cache: Cache, references: Sequence[str], *, at_once: bool) -> None:
    from client.caching import care
    from client.display import size_text
    from client.wording import counted, one_line

    names = await _names(cache, references)
    if at_once:
        gone = await care.discard(cache.layout, names, _waiting)
        told = f"{counted(gone.count, 'blob')} removed: {size_text(gone.size)} freed"
    else:
        told = _lone(await care.forget(cache.layout, names))
    for each in names:
        typer.echo(f"removed {one_line(each)}")
    typer.echo(told)


def _lone(lone: Sequence[Stored]) -> str:
    from client.display import size_text
    from client.wording import counted

    if not lone:
        return "other images need all of its blobs"
    size = size_text(sum(each.size for each in lone))
    return f"{counted(len(lone), 'blob')}, {size}: no image needs them now; `pullclient prune --all` removes them"


async def _prune(cache: Cache, age: float, *, everything: bool, dry_run: bool, json: bool) -> None:
    from client.caching import care

    grace = 0.0 if everything else care.GRACE
    gone = await care.prune(cache.layout, older=age, grace=grace, dry_run=dry_run, waiting=_waiting)
    if json:
        dump(gone.to_json())
    else:
        _show_pruned(gone, "would be freed" if dry_run else "freed")


def _show_pruned(gone: Pruned, freed: str) -> None:
    from client.display import size_text
    from client.wording import counted

    for text in _heaps(gone.heaps):
        typer.echo(text)
    typer.echo(f"{size_text(gone.size)} {freed}")
    if gone.young.count:
        stay = f"{counted(gone.young.count, 'blob')}, {size_text(gone.young.size)}"
        typer.echo(f"{stay}: no image needs them, but they came within the last 24 h; --all removes them too")


def _waiting() -> None:
    typer.echo("pullclient: waiting for another pullclient that uses the cache", err=True)


async def _verify(
    session: Session, cache: Cache, references: Sequence[str] | None, *, repair: bool, json: bool
) -> list[Flaw]:
    from client.caching.verifying import Verification, mend
    from client.display import Style, shown

    names = await _names(cache, references) if references else None
    with _progress() as told:
        verification = Verification(cache.layout, names, told)
        flaws = await verification.flaws()
    show = _nothing if json else _show_flaw
    for each in flaws:
        show(each, None)
    left: list[Flaw] = flaws
    if repair and flaws:
        with shown(Style.QUIET, sys.stdout, sys.stderr) as session.report:
            async with session:
                left = await mend(session, cache.layout, verification, flaws, _nothing if json else _show_mended)
    if json:
        dump({"blobs": verification.blobs, "size": verification.size, "wrong": [each.to_json() for each in left]})
    else:
        typer.echo(_sum(verification, flaws, left, repair=repair))
    return left


def _nothing(_flaw: Flaw, _error: LayerhouseError | None) -> None:
    """Prints nothing."""


def _show_flaw(flaw: Flaw, _error: LayerhouseError | None) -> None:
    from client.caching.verifying import Kind
    from client.wording import listed, one_line

    what = {
        Kind.DAMAGED: "damaged, moved to quarantine",
        Kind.UNREADABLE: f"cannot be read: {flaw.cause}",
        Kind.MISSING: "missing",
        Kind.INVALID: f"no manifest that can be read: {flaw.cause}",
        Kind.EMPTY: "none of its images is here: pull it again",
    }[flaw.kind]
    names = listed([one_line(each) for each in flaw.names])
    typer.echo(f"{flaw.wanted.digest}: {what}; {f'needed by {names}' if names else 'no image needs it'}")


def _show_mended(flaw: Flaw, error: LayerhouseError | None) -> None:
    if error:
        typer.echo(f"pullclient: {error.message}", err=True)
    else:
        typer.echo(f"{flaw.wanted.digest}: fetched again")


def _sum(verification: Verification, flaws: Sequence[Flaw], left: Sequence[Flaw], *, repair: bool) -> str:
    from client.display import size_text
    from client.wording import counted

    checked = f"{counted(verification.blobs, 'blob')}, {size_text(verification.size)} checked"
    if not flaws:
        return f"{checked}: all good"
    if repair:
        return f"{checked}: {f'{len(left)} still wrong' if left else 'all good now'}"
    way_out = "; `pullclient verify --repair` fetches it again" if any(each.mendable for each in flaws) else ""
    return f"{checked}: {len(flaws)} wrong{way_out}"


@contextmanager
def _progress() -> Iterator[Callable[[Progress], None] | None]:
    """On a terminal, one line that tells how far it came, and goes away."""
    if not sys.stderr.isatty():
        yield None
        return
    from time import monotonic

    from client.display import size_text

    due = 0.0

    def show(progress: Progress) -> None:
        nonlocal due
        if monotonic() < due:
            return
        due = monotonic() + 0.1
        sizes = f"{size_text(progress.size)} of {size_text(progress.of_size)}"
        typer.echo(f"\r\x1b[Kchecking blob {progress.blobs + 1} of {progress.of_blobs}, {sizes}", nl=False, err=True)

    try:
        yield show
    finally:
        typer.echo("\r\x1b[K", nl=False, err=True)
