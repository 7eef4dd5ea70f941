"""The table: what was measured, beside what was to be reached."""

from __future__ import annotations

import os
import platform
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench.measure import Row, Sizes
from bench.servers import Ours

BEGIN, END = "<!-- measured by python -m bench --write -->", "<!-- end of what was measured -->"
HEADINGS = ("", "ours", "docker-registry", "nginx", "ratio", "goal", "")
_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Result:
    """A row's figures by server, in the order of the rounds."""

    row: Row
    figures: Mapping[str, list[float]]

    @property
    def ratio(self) -> float | None:
        """Ours divided by the peer's, pair by pair within a round; None without the peer."""
        ours, peer = self.figures[Ours.name], self.figures.get(self.row.peer)
        return None if peer is None else median(mine / theirs for mine, theirs in zip(ours, peer, strict=True))

    def cells(self) -> list[str]:
        """Returns the row's cells, under `HEADINGS`."""
        row, ratio = self.row, self.ratio
        shown = [self._median(name) for name in (Ours.name, "docker-registry", "nginx")]
        goal = f"{'≤' if row.by_cost else '≥'} {row.goal:g} x {row.peer}"
        if ratio is None:
            return [f"{row.name}, {row.unit}", *shown, "", goal, "no peer"]
        verdict = "reached" if row.reached(ratio) else "missed"
        return [f"{row.name}, {row.unit}", *shown, f"{ratio:.2f}", goal, verdict]

    def _median(self, server: str) -> str:
        if server not in self.figures:
            return "-"
        value = median(self.figures[server])
        return f"{value:.3f}" if self.row.by_cost else f"{value:,.0f}"


def table(results: list[Result]) -> str:
    """Returns the results' table in Markdown."""
    return aligned([list(HEADINGS), *(result.cells() for result in results)])


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """Returns a table in Markdown, its columns aligned; the first line holds the headings."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rendered = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |"
                for line in lines]  # fmt: skip
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([rendered[0], rule, *rendered[1:]])


def facts(versions: Mapping[str, str | None], sizes: Sizes) -> str:
    """Returns when, with what and on what it was measured; nothing that names a machine or a folder."""
    programs = "; ".join(f"{name} {version or 'not installed'}" for name, version in versions.items())
    runs = f"{sizes.runs} rounds; blobs of {sizes.large // _MIB} MiB (GET) and {sizes.upload // _MIB} MiB (upload)"
    return f"{today()}. {runs}.\n{programs}.\n{machine()}."


def today() -> str:
    return time.strftime("%Y-%m-%d", time.gmtime())


def machine() -> str:
    return f"{os.cpu_count()} cores, {_cpu_model()}, {platform.system()} {platform.release()}"


def write(document: Path, measured: str, begin: str = BEGIN) -> None:
    """Puts what was measured between two marks of the document: `begin`, and the next end.

    Raises:
        ValueError: the document has no marks.
    """
    text = document.read_text()
    block = re.compile(f"{re.escape(begin)}.*?{re.escape(END)}", re.DOTALL)
    if not block.search(text):
        raise ValueError(f"{document.name} does not say where the figures stand")
    document.write_text(block.sub(lambda _: f"{begin}\n\n{measured}\n\n{END}", text))


def _cpu_model() -> str:
    told = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return told[1] if told else platform.machine()
