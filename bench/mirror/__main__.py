"""`python -m bench.mirror`: what a mirror costs, ours beside none and beside docker-registry where it is installed."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median

from bench import report
from bench.measure import Sizes
from bench.mirror.measure import WITHOUT, Result, crowds, first_bytes, warm
from bench.mirror.servers import Mirror, can_link
from bench.servers import Distribution, Ours

BEGIN = "<!-- measured by python -m bench.mirror --write -->"
HEADINGS = ("", "without", "mirror", "docker-registry", "ratio", "goal", "")
_DOCUMENT = Path(__file__).parents[2] / "docs" / "performance.md"
_MIB, _MB = 1 << 20, 1_000_000
_ROWS = ("warm", "first", "crowd")


def main() -> None:
    options = _options()
    versions = {Ours.name: Ours.version(), Distribution.name: Distribution.version()}
    peers = [name for name, version in versions.items() if version and name in (options.peers or versions)]
    with tempfile.TemporaryDirectory(prefix="bench-", dir=options.folder) as folder:
        results = list(_measured(Path(folder), peers, options))
    rows = [list(HEADINGS), *(cells(each) for each in results)]
    measured = f"{_facts(versions, options)}\n\n{report.aligned(rows)}"
    print(measured)
    if options.write:
        report.write(_DOCUMENT, measured, BEGIN)


def _measured(folder: Path, peers: Sequence[str], options: argparse.Namespace) -> Iterator[Result]:
    if "warm" in options.rows:
        large, volume = options.large * _MIB, options.volume * _MIB
        yield from warm(folder, peers, Sizes(options.runs, large, 0, volume, options.seconds), options.rest)
    if "first" in options.rows:
        yield from first_bytes(folder, peers, options.images, 4 * _MB)
    if "crowd" in options.rows and can_link():
        yield from crowds(folder, peers, options.image * _MB, options.crowds)


def cells(result: Result) -> list[str]:
    """Returns a line's cells, under `HEADINGS`."""
    shown = [_shown(result, name) for name in (WITHOUT, Mirror.name, Distribution.name)]
    ratio = "" if result.ratio is None else f"{result.ratio:.2f}"
    if result.ratio is None or result.goal is None:
        return [result.name, *shown, ratio, "", ""]
    return [result.name, *shown, ratio, f"≤ {result.goal:g}", "reached" if result.ratio <= result.goal else "missed"]


def _shown(result: Result, name: str) -> str:
    values = result.figures.get(name)
    if values is None:
        return "-"
    ended = [each for each in values if each is not None]
    return f"{median(ended):,.{result.decimals}f}" if len(ended) == len(values) else "given up"


def _facts(versions: dict[str, str | None], options: argparse.Namespace) -> str:
    programs = "; ".join(f"{name} {version or 'not installed'}" for name, version in versions.items())
    rounds = f"{options.runs} rounds of warm pulls, {options.images} first bytes, {options.crowds} of many pulls"
    return f"{report.today()}. {rounds}.\n{programs}.\n{report.machine()}."


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.mirror", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short run of each: whether it works, not how well")
    parser.add_argument("--write", action="store_true", help="put the table into docs/performance.md")
    parser.add_argument("--runs", type=int, help="rounds of warm pulls (5)")
    parser.add_argument("--seconds", type=float, help="how long a run asks for small things (3)")
    parser.add_argument(
        "--rest", type=float, help="seconds before it: a disk that was busy is not trusted at once (12)"
    )
    parser.add_argument("--large", type=int, help="MiB of the large blob (512)")
    parser.add_argument("--volume", type=int, help="MiB of it that are fetched in a run (2048)")
    parser.add_argument("--images", type=int, help="images whose first byte is waited for (21)")
    parser.add_argument("--crowds", type=int, help="rounds of many pulls at once (1)")
    parser.add_argument("--image", type=int, help="MB of the image that many pull (1000)")
    parser.add_argument("--peers", nargs="*", choices=[Distribution.name, "none"], help="whom to measure beside ours")
    parser.add_argument("--rows", nargs="*", choices=_ROWS, default=_ROWS, help="which of them to measure")
    parser.add_argument("--folder", type=Path, help="where 8 GB may lie for the time (the system's)")
    whole = {
        "runs": 5,
        "seconds": 3.0,
        "rest": 12.0,
        "large": 512,
        "volume": 2048,
        "images": 21,
        "crowds": 1,
        "image": 1000,
    }
    quick = {"runs": 1, "seconds": 0.3, "rest": 0.0, "large": 16, "volume": 64, "images": 3, "crowds": 1, "image": 16}
    given = parser.parse_args()
    for name, value in (quick if given.quick else whole).items():
        if getattr(given, name) is None:
            setattr(given, name, value)
    return given


if __name__ == "__main__":
    main()
