"""`python -m bench.lists`: what a page of a long list takes, ours beside docker-registry where it is installed."""

from __future__ import annotations

import argparse
import hashlib
import http.client
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from statistics import median

from bench import report
from bench.servers import Distribution, Ours, Server

BEGIN = "<!-- measured by python -m bench.lists --write -->"
HEADINGS = ("", Ours.name, Distribution.name, "goal", "")
PAGE = 100
GOAL = 50.0  # milliseconds
_DOCUMENT = Path(__file__).parents[1] / "docs" / "performance.md"
_TAGGED = "tagged/image"
_PATIENCE = 600.0  # seconds
_AT_REST = 3.0  # seconds
_WARM = 20  # requests: what a server's first ones cost is not measured here


@dataclass(frozen=True, slots=True)
class Place:
    """A page of a list, and what has to stand on it."""

    name: str
    path: str
    key: str
    entries: list[str]
    is_paged_by_peer: bool


Places = tuple[Place, ...]
Figures = dict[tuple[str, str, bool], list[float]]
"""Milliseconds of each round, by page, server, and whether the server had been asked for that page before."""


def main() -> None:
    options = _options()
    kinds: list[type[Ours | Distribution]] = [Ours]
    versions = {Ours.name: Ours.version(), Distribution.name: Distribution.version()}
    if versions[Distribution.name] and options.peers != ["none"]:
        kinds.append(Distribution)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=options.folder) as folder:
        starts = _fill(Path(folder) / "root", options.entries)
        time.sleep(0 if options.quick else _AT_REST)  # what changed just now is not measured here
        figures = _measure(Path(folder), starts, kinds, options.runs)
        measured = f"{_facts(versions, options)}\n\n{report.aligned([list(HEADINGS), *_rows(starts, figures)])}"
        print(measured, flush=True)
        if options.write:
            report.write(_DOCUMENT, measured, BEGIN)
        print("removing what was measured …", file=sys.stderr)


def _fill(root: Path, count: int) -> list[Places]:
    """Makes the repositories, and the tags of one more, on disk: pushing them would take hours.

    Returns:
        For each start of a server, the pages it is asked for: none of them helps another.
    """
    repositories = [f"name-{number:06}" for number in range(count)]
    tags = [f"v{number:06}" for number in range(count)]
    below, digest = root / "docker/registry/v2/repositories", f"sha256:{hashlib.sha256(b'').hexdigest()}"
    for name in repositories:
        (below / name / "_layers").mkdir(parents=True)
        (below / name / "_manifests" / "revisions").mkdir(parents=True)
    for tag in tags:
        link = below / _TAGGED / "_manifests" / "tags" / tag / "current" / "link"
        link.parent.mkdir(parents=True)
        link.write_text(digest)
    both = _places("repositories", "/v2/_catalog", repositories), _places("tags", f"/v2/{_TAGGED}/tags/list", tags)
    return list(zip(*both, strict=True))


def _places(key: str, path: str, entries: Sequence[str]) -> tuple[Place, Place]:
    paged, middle = key == "repositories", len(entries) // 2
    name = f"{len(entries):,} {key}"
    first = Place(f"{name}, the first page", f"{path}?n={PAGE}", key, list(entries[:PAGE]), paged)
    asked, shown = f"{path}?n={PAGE}&last={entries[middle]}", list(entries[middle + 1 : middle + 1 + PAGE])
    return first, Place(f"{name}, one in the middle", asked, key, shown, paged)


def _measure(folder: Path, starts: Sequence[Places], kinds: Sequence[type[Ours | Distribution]], runs: int) -> Figures:
    figures: Figures = {}
    for number in range(runs):
        print(f"round {number + 1} …", file=sys.stderr)
        for start, places in enumerate(starts):
            for kind in kinds:
                with kind(folder / f"{kind.name}-{number}-{start}", folder / "root") as server:
                    for _ in range(_WARM):
                        _answer(server, "/v2/")
                    for place in places:
                        first, *others = [_ask(server, place) for _ in range(6)]
                        figures.setdefault((place.name, kind.name, False), []).append(first)
                        figures.setdefault((place.name, kind.name, True), []).append(median(others))
    return figures


def _ask(server: Server, place: Place) -> float:
    """Returns the milliseconds that the page took, to its last byte."""
    took, body = _answer(server, place.path)
    shown = json.loads(body).get(place.key)
    all_at_once = not place.is_paged_by_peer and server.name == Distribution.name
    if shown != place.entries and not (all_at_once and set(place.entries) <= set(shown)):
        raise RuntimeError(f"{server.name} answered {place.path} with {body[:200]!r}")
    return took


def _answer(server: Server, path: str) -> tuple[float, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=_PATIENCE)
    try:
        connection.connect()
        began = time.perf_counter()
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
        took = (time.perf_counter() - began) * 1000
    finally:
        connection.close()
    if answer.status != 200:
        raise RuntimeError(f"{server.name} answered {path} with {answer.status}: {body[:200]!r}")
    return took, body


def _rows(starts: Sequence[Places], figures: Figures) -> Iterator[list[str]]:
    for again in (False, True):
        for place in chain.from_iterable(zip(*starts, strict=True)):
            ours = median(figures[place.name, Ours.name, again])
            peer = figures.get((place.name, Distribution.name, again))
            shown = f"{median(peer):,.1f}" if peer else "-"
            when = "again" if again else "after the start"
            verdict = "reached" if ours <= GOAL else "missed"
            yield [f"{place.name}, {when}: ms", f"{ours:,.1f}", shown, f"≤ {GOAL:g}", verdict]


def _facts(versions: dict[str, str | None], options: argparse.Namespace) -> str:
    programs = "; ".join(f"{name} {version or 'not installed'}" for name, version in versions.items())
    return f"{report.today()}. {options.runs} rounds; pages of {PAGE}.\n{programs}.\n{report.machine()}."


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.lists", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round of short lists: whether it works, not how well")
    parser.add_argument("--write", action="store_true", help="put the table into docs/performance.md")
    parser.add_argument("--runs", type=int, help="rounds (5)")
    parser.add_argument("--entries", type=int, help="repositories, and tags of one more (100,000)")
    parser.add_argument("--peers", nargs="*", choices=[Distribution.name, "none"], help="whom to measure beside ours")
    parser.add_argument("--folder", type=Path, help="where 3 GB of folders may lie for the time (the system's)")
    given = parser.parse_args()
    for name, value in ({"runs": 1, "entries": 2000} if given.quick else {"runs": 5, "entries": 100_000}).items():
        if getattr(given, name) is None:
            setattr(given, name, value)
    return given


if __name__ == "__main__":
    main()
