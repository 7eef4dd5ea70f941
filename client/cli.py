"""The command `pullclient`."""

from __future__ import annotations

from typing import Annotated

import typer

from client.commands import archive, cache, care, doctor, layers, lock, login, pulling, pushing, registry, unpack

app = typer.Typer(
    name="pullclient",
    help="Pull container images: all layers at once, every byte verified, nothing fetched twice.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback(invoke_without_command=True)
def main(*, version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    if version:
        from importlib.metadata import version as installed  # noqa: PLC0415 - `--help` has to answer at once

        typer.echo(f"pullclient {installed('layerhouse')}")
        raise typer.Exit


for group in (pulling, pushing, lock, cache, layers, care, archive, unpack, registry, login, doctor):
    app.add_typer(group.app)
