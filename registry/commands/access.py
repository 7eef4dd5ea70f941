"""`access`: who may do what, and why."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from registry.auth.caller import Action
from registry.commands.common import failing

app = typer.Typer()
_access = typer.Typer(help="Tell what the access rules say.", no_args_is_help=True)
app.add_typer(_access, name="access")


@_access.callback()
def _group() -> None:
    """Tell what the access rules say."""


@_access.command()
def check(
    who: Annotated[
        str, typer.Argument(metavar="USER", help="A user's name, robot:NAME, certificate:NAME, or anonymous.")
    ],
    repository: Annotated[str, typer.Argument(metavar="REPO", help="Name of a repository, like team-a/app.")],
    action: Annotated[Action, typer.Argument(metavar="ACTION", help="pull, push, delete or admin.")],
    file: Annotated[
        Path | None,
        typer.Option(
            "--config",
            metavar="CONFIG",
            help="A config.yml as Distribution reads it.  [default: $REGISTRY_CONFIGURATION_PATH]",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Tell whether somebody may do something, and which rule says so; the status is 0 for yes and 1 for no."""
    from registry.auth import explaining  # noqa: PLC0415 - needed here alone

    with failing():
        answer = explaining.explain(file, who, repository, action)
        typer.echo(f"{'allowed' if answer.is_allowed else 'denied'}: {answer.reason}")
        for note in answer.notes:
            typer.echo(note)
        sys.exit(0 if answer.is_allowed else 1)
