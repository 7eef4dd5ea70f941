"""`python -m bench.client`: what a pull takes, ours beside skopeo, crane and docker where they are installed."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from bench import report
from bench.client.clients import Client, Crane, Docker, Pullclient, Skopeo
from bench.client.image import push
from bench.client.measure import Figures, Images, Row, figures, measure, probe, rows
from bench.client.report import BEGIN, facts, table
from bench.client.servers import Engine, Relay
from bench.servers import Ours

_DOCUMENT = Path(__file__).parents[2] / "docs" / "performance.md"
_PEERS: dict[str, type[Client]] = {peer.name: peer for peer in (Skopeo, Crane, Docker)}
_LAYERS = 8
_MB = 1_000_000


def main() -> None:
    options = _options()
    versions = {Pullclient.name: Pullclient.version(), **{name: peer.version() for name, peer in _PEERS.items()}}
    present = [name for name, version in versions.items() if version and name in (options.peers or _PEERS)]
    with tempfile.TemporaryDirectory(prefix="bench-", dir=options.folder) as folder, ExitStack() as ending:
        clients = _clients(Path(folder), ending, present)
        images = _images(Path(folder), ending, options)
        relay = probe(images.relay, images.many)
        print(f"through the relay, one connection {relay}", file=sys.stderr)
        results = _measure(rows(images), clients, options)
    measured = f"{facts(versions, options.runs, relay)}\n\n{table(results)}"
    print(measured)
    if options.write:
        report.write(_DOCUMENT, measured, BEGIN)


def _clients(folder: Path, ending: ExitStack, peers: Sequence[str]) -> list[Client]:
    clients: list[Client] = [Pullclient(folder / Pullclient.name)]
    clients += [peer(folder / peer.name) for peer in (Skopeo, Crane) if peer.name in peers]
    if Docker.name in peers:
        engine = ending.enter_context(Engine(folder / "engine", folder / "engine-root"))
        clients.append(Docker(folder / Docker.name, engine))
    return clients


def _images(folder: Path, ending: ExitStack, options: argparse.Namespace) -> Images:
    port = ending.enter_context(Ours(folder / "registry", folder / "registry-root")).port
    relay = ending.enter_context(Relay(folder / "relay", port)).port
    many = push(port, "many", [options.image * _MB // _LAYERS] * _LAYERS, seed=0)
    large = push(port, "large", [options.layer * _MB], seed=_LAYERS)
    far = push(port, "far", [options.far * _MB], seed=_LAYERS + 1)
    return Images(port, relay, many, large, far)


def _measure(
    chosen: Sequence[Row], clients: Sequence[Client], options: argparse.Namespace
) -> list[tuple[Row, Figures]]:
    jobs = {row.job.name: row.job for row in chosen if row.job and options.rows in row.job.name}
    costs = {name: measure(job, clients, options.runs) for name, job in jobs.items()}
    return [(row, figures(row, costs)) for row in chosen if row.job is None or row.job.name in costs]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.client", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short run of each: whether it works, not how well")
    parser.add_argument("--write", action="store_true", help="put the table into docs/performance.md")
    parser.add_argument("--runs", type=int, help="rounds of every row (5)")
    parser.add_argument("--image", type=int, help=f"MB of the image with {_LAYERS} layers (1000)")
    parser.add_argument("--layer", type=int, help="MB of the layer that is an image of its own (2000)")
    parser.add_argument("--far", type=int, help="MB of the layer that is pulled through the relay (500)")
    parser.add_argument("--peers", nargs="*", choices=[*_PEERS, "none"], help="whom to measure beside ours")
    parser.add_argument("--rows", default="", help="only what has this in its name")
    parser.add_argument("--folder", type=Path, help="where 12 GB may lie for the time (the system's)")
    whole = {"runs": 5, "image": 1000, "layer": 2000, "far": 500}
    quick = {"runs": 1, "image": 40, "layer": 40, "far": 20}
    given = parser.parse_args()
    for name, value in (quick if given.quick else whole).items():
        if getattr(given, name) is None:
            setattr(given, name, value)
    return given


if __name__ == "__main__":
    main()
