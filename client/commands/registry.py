"""`pullclient tags`, `catalog`, `referrers`, `delete`: what a registry has."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Annotated

import typer

from client.commands.cache import dump
from client.commands.common import Insecure, Json, PlainHttp, end, host_of, opened, parsed, run, table

if TYPE_CHECKING:
    from client.session import Session
    from ocispec.descriptor import Descriptor
    from ocispec.reference import Reference

# ruff: noqa: PLC0415 - see client.commands.common

app = typer.Typer()


@app.command()
def tags(
    repository: Annotated[str, typer.Argument(metavar="REPO", help="A repository, named like an image without a tag.")],
    *,
    json: Json = False,
    plain_http: PlainHttp = False,
    insecure: Insecure = False,
) -> None:
    """List the tags of a repository."""
    name = parsed(repository)
    if name.digest or str(name).removeprefix(name.name) != ":latest" or repository.endswith(":latest"):
        end(f"{repository!r} names an image: expected its repository, {name.name}", 2)
    run(lambda: _tags(opened(plain_http=plain_http, insecure=insecure), name, json=json))


@app.command()
def catalog(
    host: Annotated[str, typer.Argument(metavar="HOST", help="A registry, as image names have it.")],
    *,
    json: Json = False,
    plain_http: PlainHttp = False,
    insecure: Insecure = False,
) -> None:
    """List the repositories of a registry. Public registries mostly do not tell them."""
    name = host_of(host)
    run(lambda: _catalog(opened(plain_http=plain_http, insecure=insecure), name, json=json))


@app.command()
def referrers(
    reference: Annotated[str, typer.Argument(metavar="REF", help="An image at a registry.")],
    *,
    artifact_type: Annotated[
        str | None, typer.Option("--artifact-type", metavar="TYPE", help="Only those of this type.")
    ] = None,
    json: Json = False,
    plain_http: PlainHttp = False,
    insecure: Insecure = False,
) -> None:
    """List what refers to an image: signatures, SBOMs, attestations."""
    name = parsed(reference)
    run(lambda: _referrers(opened(plain_http=plain_http, insecure=insecure), name, artifact_type, json=json))


@app.command()
def delete(
    reference: Annotated[str, typer.Argument(metavar="REF", help="NAME:TAG, or NAME@DIGEST.")],
    *,
    plain_http: PlainHttp = False,
    insecure: Insecure = False,
) -> None:
    """Delete a tag at a registry, or a manifest.

    Where a digest stands, the manifest goes with all its tags. The blobs stay until the registry collects its garbage.
    """
    name = parsed(reference)
    if not name.digest and not reference.endswith(f":{name.tag}"):
        end(f"{reference!r} names neither a tag nor a digest: say which, {name.name}:TAG or {name.name}@DIGEST", 2)
    run(lambda: _delete(opened(plain_http=plain_http, insecure=insecure), name))


async def _tags(session: Session, name: Reference, *, json: bool) -> None:
    from client.registries.api import within
    from client.registries.listing import tags as listed

    async with session:
        with within(name.name):
            await _show(listed((await session.remote(name).endpoints())[-1]), json=json)


async def _catalog(session: Session, host: str, *, json: bool) -> None:
    from client.registries.api import within
    from client.registries.listing import CATALOG
    from client.registries.listing import catalog as listed

    async with session:
        with within(host):
            await _show(listed(await session.api(host, CATALOG)), json=json)


async def _show(names: AsyncIterator[str], *, json: bool) -> None:
    from client.wording import one_line

    if json:
        dump([each async for each in names])
        return
    async for each in names:
        typer.echo(one_line(each))


async def _referrers(session: Session, name: Reference, artifact_type: str | None, *, json: bool) -> None:
    from client.registries.referring import of

    async with session:
        found = await of(session, name, artifact_type)
    if json:
        dump([each.to_json() for each in found])
    elif found:
        table([("DIGEST", "ARTIFACT TYPE", "SIZE", "ANNOTATIONS"), *(_row(each) for each in found)])
    else:
        typer.echo(f"nothing refers to {name}", err=True)


def _row(found: Descriptor) -> tuple[str, ...]:
    from client.display import size_text
    from client.wording import one_line, shortened

    notes = ", ".join(f"{name}={text}" for name, text in found.annotations.items())
    return (
        str(found.digest),
        one_line(found.artifact_type or found.media_type),
        size_text(found.size),
        shortened(one_line(notes), 120) or "-",
    )


async def _delete(session: Session, name: Reference) -> None:
    from client.registries.deleting import delete_in

    async with session:
        await delete_in(session, name)
    typer.echo(f"deleted {name}")
