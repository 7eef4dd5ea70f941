"""The table: what was measured, beside what was to be reached."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

from bench.client.clients import Crane, Docker, Pullclient, Skopeo
from bench.client.measure import Figures, Row
from bench.report import aligned, machine, today

BEGIN = "<!-- measured by python -m bench.client --write -->"
_CLIENTS = (Pullclient.name, Skopeo.name, Crane.name, Docker.name)
HEADINGS = ("", *_CLIENTS, "ratio", "goal", "")


def table(rows: Sequence[tuple[Row, Figures]]) -> str:
    """Returns a table in Markdown."""
    return aligned([HEADINGS, *(cells(row, figures) for row, figures in rows)])


def cells(row: Row, figures: Figures) -> list[str]:
    """Returns a row's cells, under `HEADINGS`."""
    shown = [_shown(row, figures.get(client)) for client in _CLIENTS]
    goal = row.goal
    if goal is None:
        return [row.name, *shown, "", "", ""]
    if goal.peer is None:
        return [row.name, *shown, "", f"≤ {goal.limit:g}", _verdict(median(figures[Pullclient.name]), goal.limit)]
    aim = f"≤ {goal.limit:g} x {goal.peer}"
    peer = figures.get(goal.peer)
    if peer is None:
        return [row.name, *shown, "", aim, "no peer"]
    reached = ratio(figures[Pullclient.name], peer)
    return [row.name, *shown, f"{reached:.2f}", aim, _verdict(reached, goal.limit)]


def ratio(ours: Sequence[float], peer: Sequence[float]) -> float:
    """Returns ours divided by the peer's, pair by pair within a round, and then the median."""
    return median(mine / theirs for mine, theirs in zip(ours, peer, strict=True))


def facts(versions: Mapping[str, str | None], rounds: int, relay: str) -> str:
    """Returns when, with what and on what it was measured; nothing that names a machine or a folder."""
    programs = "; ".join(f"{name} {version or 'not installed'}" for name, version in versions.items())
    return f"{today()}. {rounds} rounds. Through the relay, one connection {relay}.\n{programs}.\n{machine()}."


def _shown(row: Row, values: Sequence[float] | None) -> str:
    if not values:
        return "-"
    return f"{median(values):.0f}" if row.what == "memory" else f"{median(values):.2f}"


def _verdict(value: float, limit: float) -> str:
    return "reached" if value <= limit else "missed"
