"""What the commands share: how they end."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from ocispec.errors import LayerhouseError

ConfigFile = Annotated[
    Path | None,
    typer.Argument(
        metavar="[CONFIG]",
        help="A config.yml as Distribution reads it.  [default: $REGISTRY_CONFIGURATION_PATH]",
        show_default=False,
    ),
]


@contextmanager
def failing() -> Iterator[None]:
    """Ends the command with status 1 where an error of the tree comes out: one line, or one for each mistake."""
    try:
        yield
    except LayerhouseError as error:
        typer.echo("\n".join(f"registry: {line}" for line in error.message.splitlines()), err=True)
        sys.exit(1)
