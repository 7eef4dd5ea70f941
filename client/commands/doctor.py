"""`pullclient doctor`: what works on the way to a registry."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from client.commands.cache import dump
from client.commands.common import Insecure, Json, Mirrors, PlainHttp, host_of, opened, parsed, run

if TYPE_CHECKING:
    from client.registries.findings import Finding
    from client.session import Session
    from ocispec.reference import Reference

# ruff: noqa: PLC0415 - see client.commands.common

app = typer.Typer()


@app.command()
def doctor(
    host: Annotated[
        str,
        typer.Argument(metavar="HOST", help="A registry, like ghcr.io; or an image there, which shows more."),
    ],
    *,
    mirror: Mirrors = None,
    plain_http: PlainHttp = False,
    insecure: Insecure = False,
    json: Json = False,
) -> None:
    """Say what works on the way to a registry, and what does not.

    Looks at mirrors, proxy, DNS, TCP, TLS, the API, logins, the rate limit and the clock; with an image also at the
    image and at ranges. Each step says why it failed and what to do about it. The exit status is 1 where something
    failed; a warning is what pulls get along with.
    """
    named = parsed(host) if "/" in host.rstrip("/").removeprefix("https://").removeprefix("http://") else None
    name = named.host if named else host_of(host)
    session = opened(plain_http=plain_http, insecure=insecure, mirrors=mirror)
    if run(lambda: _doctor(session, name, named, json=json)):
        raise typer.Exit(1)


async def _doctor(session: Session, host: str, reference: Reference | None, *, json: bool) -> bool:
    """Returns whether something failed."""
    from client.registries.doctor import examine
    from client.registries.findings import State

    found = []
    async with session:
        async for each in examine(session, host, reference):
            found.append(each)
            if not json:
                typer.echo(_line(each))
    if json:
        dump([each.to_json() for each in found])
    return any(each.state is State.FAILED for each in found)


def _line(found: Finding) -> str:
    from client.wording import one_line

    advice = f" -> {found.advice}" if found.advice else ""
    return f"{found.state:<8} {found.step:<11} {one_line(found.text)}{advice}"
