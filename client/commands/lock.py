"""`pullclient lock`: the digests that names have now."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from client.commands.cache import dump
from client.commands.common import Insecure, Json, Mirrors, PlainHttp, opened, parsed, run

if TYPE_CHECKING:
    from client.session import Session
    from client.transfers.lockfile import Locked
    from ocispec.reference import Reference

# ruff: noqa: PLC0415 - see client.commands.common

app = typer.Typer()


@app.command()
def lock(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The lock file, one image a line.")],
    references: Annotated[
        list[str] | None, typer.Argument(metavar="[REF]...", help="Images to add or renew.  [default: all in FILE]")
    ] = None,
    *,
    mirror: Mirrors = None,
    plain_http: PlainHttp = False,
    insecure: Insecure = False,
    json: Json = False,
) -> None:
    """Write the digests that images have now into a lock file.

    `pull --locked` pulls what stands there. With names, those are added or renewed, and the others stay; without, all
    in the file are renewed. Comments stay. A name that is given with a digest keeps that one.
    """
    names = [parsed(each) for each in references or ()]
    session = opened(plain_http=plain_http, insecure=insecure, mirrors=mirror)
    run(lambda: _lock(session, file, names, json=json))


async def _lock(session: Session, file: Path, names: list[Reference], *, json: bool) -> None:
    from client.transfers.lockfile import lock_in

    async with session:
        done = await lock_in(session, file, names)
    if json:
        dump([_json(each) for each in done])
    else:
        _show(file, done)


def _json(locked: Locked) -> dict[str, str | None]:
    from client.transfers.lockfile import name_of

    reference, before = locked.reference, locked.before
    return {
        "name": name_of(reference),
        "digest": str(reference.digest),
        "before": str(before) if before else None,
    }


def _show(file: Path, done: Sequence[Locked]) -> None:
    from client.wording import counted

    for each in done:
        if each.before is None:
            typer.echo(f"{each.reference}  new")
        elif each.before != each.reference.digest:
            typer.echo(f"{each.reference}  was {each.before}")
    same = sum(each.before == each.reference.digest for each in done)
    typer.echo(f"{file}: {counted(len(done), 'image')} asked for, {same} unchanged")
