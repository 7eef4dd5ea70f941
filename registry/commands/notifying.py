"""`notifications`: whether those who are told of events take them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from registry import config
from registry.commands.common import ConfigFile, failing

if TYPE_CHECKING:
    from registry.notifications.database import Figures

app = typer.Typer()
_TITLES = ("ENDPOINT", "PENDING", "OLDEST", "DROPPED", "LAST SUCCESS", "LAST ERROR")


@app.command()
def notifications(file: ConfigFile = None) -> None:
    """Show how many events wait for each endpoint.

    And since when, how many were dropped, and how the last requests went. Times are UTC.
    """
    from registry.notifications.database import Figures, look  # noqa: PLC0415 - SQLite is not needed otherwise
    from registry.notifications.notifying import QUEUE  # noqa: PLC0415 - as above

    with failing():
        settings = config.load(file)
        found = {each.endpoint: each for each in look(settings.state_directory / QUEUE)}
        endpoints = {each.name: each for each in settings.notifications.endpoints}
        names = [*endpoints, *(name for name in found if name not in endpoints)]
        if not names:
            typer.echo("no endpoints are configured: see notifications.endpoints in the config")
            return
        remarks = {name: " (disabled)" if each.disabled else "" for name, each in endpoints.items()}
        rows = [_row(found.get(name, Figures(name)), remarks.get(name, " (not configured)")) for name in names]
        for line in _aligned([_TITLES, *rows]):
            typer.echo(line)


def _row(figures: Figures, remark: str) -> tuple[str, ...]:
    error = f"{_time(figures.last_failure)} {figures.last_error}" if figures.last_error else "-"
    return (
        figures.endpoint + remark,
        str(figures.pending),
        _time(figures.oldest),
        str(figures.dropped),
        _time(figures.last_success),
        error,
    )


def _time(seconds: float | None) -> str:
    return "-" if seconds is None else time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
