"""`healthcheck`: what a container's HEALTHCHECK runs."""

from __future__ import annotations

import typer

from registry import config
from registry.commands.common import ConfigFile, failing
from registry.liveness import check

app = typer.Typer()


@app.command()
def healthcheck(file: ConfigFile = None) -> None:
    """Ask the registry that this configuration describes, on this machine; status 1 where it does not answer well."""
    with failing():
        typer.echo(check(config.load(file).http))
