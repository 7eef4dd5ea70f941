"""The command `registry`."""

from __future__ import annotations

from importlib.metadata import version as installed
from typing import Annotated

import typer

from registry.commands import (
    access,
    archiving,
    checking,
    collecting,
    configuring,
    mirroring,
    notifying,
    serving,
    tokens,
    users,
)

app = typer.Typer(
    name="registry",
    help="Host container images: an OCI registry, a drop-in for CNCF Distribution.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback(invoke_without_command=True)
def main(
    *, version: Annotated[bool, typer.Option("--version", "-v", help="Print the version and exit.")] = False
) -> None:
    if version:
        typer.echo(f"registry {installed('layerhouse')}")
        raise typer.Exit


for group in (serving, checking, configuring, collecting, notifying, users, access, tokens, archiving, mirroring):
    app.add_typer(group.app)
