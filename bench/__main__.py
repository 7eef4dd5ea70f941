"""`python -m bench`: what a request costs, ours beside docker-registry and nginx where they are installed."""

from __future__ import annotations

import argparse
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from bench import report
from bench.content import push
from bench.measure import Sizes, measure, rows
from bench.servers import Distribution, Nginx, Ours, Server

_DOCUMENT = Path(__file__).parents[1] / "docs" / "performance.md"
_MIB = 1 << 20
_PEERS: dict[str, type[Distribution | Nginx]] = {peer.name: peer for peer in (Distribution, Nginx)}


def main() -> None:
    options = _options()
    sizes = Sizes(options.runs, options.large * _MIB, options.upload * _MIB, options.volume * _MIB, options.seconds)
    versions = {Ours.name: Ours.version(), **{name: peer.version() for name, peer in _PEERS.items()}}
    present = [name for name, version in versions.items() if version and name in (options.peers or _PEERS)]
    with tempfile.TemporaryDirectory(prefix="bench-", dir=options.folder) as folder, ExitStack() as ending:
        results = _measure(Path(folder), ending, present, sizes, options.rows)
    measured = f"{report.facts(versions, sizes)}\n\n{report.table(results)}"
    print(measured)
    if options.write:
        report.write(_DOCUMENT, measured)


def _measure(folder: Path, ending: ExitStack, peers: list[str], sizes: Sizes, chosen: str) -> list[report.Result]:
    ours = ending.enter_context(Ours(folder / "ours", folder / "root"))
    content = push(ours.port, sizes.large)
    servers: list[Server] = [ours]
    if Distribution.name in peers:
        servers.append(ending.enter_context(Distribution(folder / "distribution", folder / "distribution-root")))
        push(servers[-1].port, sizes.large)
    if Nginx.name in peers:
        servers.append(ending.enter_context(Nginx(folder / "nginx", ours.root)))
    results = []
    for row in rows(content, sizes):
        if chosen in row.name:
            print(f"{row.name} …", file=sys.stderr)
            results.append(report.Result(row, measure(row, servers, sizes)))
    return results


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short run of each: whether it works, not how well")
    parser.add_argument("--write", action="store_true", help="put the table into docs/performance.md")
    parser.add_argument("--runs", type=int, help="rounds of every row (7)")
    parser.add_argument("--large", type=int, help="MiB of the blob that is fetched (512)")
    parser.add_argument("--upload", type=int, help="MiB of the blob that is pushed (1024)")
    parser.add_argument("--volume", type=int, help="MiB fetched in a run, in whole blobs (4096)")
    parser.add_argument("--seconds", type=float, help="how long a run asks for small things (3)")
    parser.add_argument("--peers", nargs="*", choices=[*_PEERS, "none"], help="whom to measure beside ours")
    parser.add_argument("--rows", default="", help="only the rows whose name holds this")
    parser.add_argument("--folder", type=Path, help="where 4 GB of content may lie for the time (the system's)")
    whole = {"runs": 7, "large": 512, "upload": 1024, "volume": 4096, "seconds": 3.0}
    quick = {"runs": 1, "large": 64, "upload": 128, "volume": 512, "seconds": 0.5}
    given = parser.parse_args()
    for name, value in (quick if given.quick else whole).items():
        if getattr(given, name) is None:
            setattr(given, name, value)
    return given


if __name__ == "__main__":
    main()
