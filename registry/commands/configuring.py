"""`config` and `check-config`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Annotated

import typer

from registry.commands.common import ConfigFile, failing
from registry.config.sources import Configuration, read

app = typer.Typer()


@app.command("config")
def show(
    file: ConfigFile = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="JSON for programs: `settings`, `sources`.")] = False,
    defaults: Annotated[bool, typer.Option(help="With the values that nobody gave, or without them.")] = True,
) -> None:
    """Print the configuration in force, and where each value came from.

    It is YAML that can be loaded again, but for the secrets, which are hidden.
    """
    from registry.config import effective  # noqa: PLC0415 - who serves does not print it

    with failing():
        found = effective.effective(read(file), defaults=defaults)
        if as_json:
            typer.echo(json.dumps(effective.to_json(found), indent=2))
        else:
            typer.echo("\n".join(effective.to_yaml(found)))


@app.command()
def check_config(file: ConfigFile = None) -> None:
    """Tell every mistake in a configuration, and what of it is not served; status 1 where there is a mistake."""
    found = read(file)
    for line in _told(found):
        typer.echo(line)
    if found.mistakes:
        sys.exit(1)


def _told(found: Configuration) -> Iterator[str]:
    yield from found.mistakes
    for remark in found.remarks:
        yield f"{remark.text}" if remark.is_harmless else f"warning: {remark.text}"
    if not found.mistakes:
        yield f"{found.file or 'defaults'}: fine"
