"""The measurements: warm pulls beside hosted ones, first bytes beside going direct, and many pulls over one link."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from bench.client.image import REPOSITORY, Image, push
from bench.client.servers import Relay
from bench.content import MANIFEST
from bench.content import push as push_content
from bench.load import Connection
from bench.measure import Row, Sizes
from bench.measure import measure as measure_cost
from bench.measure import rows as costs
from bench.mirror.servers import DistributionMirror, Far, Hosted, Mirror, link
from bench.servers import Distribution, Ours, Server

WITHOUT = "without"
CLIENTS = 20
RATE = "200mbit"
_PROJECT = Path(__file__).parents[2]
_LAYERS = 8
_MB = 1_000_000
# docker-registry fetches a blob for each client that asks (its issue #4511), which takes that many times as long.
_TIMES_AT_MOST = 3
_WARM = ("manifest GET by tag", "manifest GET by digest", "5 KB blob GET", "large blob GET")


@dataclass(frozen=True, slots=True)
class Result:
    """A line of the report.

    Attributes:
        figures: of each round, by who was measured: `WITHOUT` a mirror, through ours, through docker-registry's; None
            for a round that was given up.
        ratio: what the goal speaks of.
        goal: at most that.
        decimals: how many are shown.
    """

    name: str
    figures: Mapping[str, Sequence[float | None]]
    ratio: float | None = None
    goal: float | None = None
    decimals: int = 1


def warm(folder: Path, peers: Sequence[str], sizes: Sizes, rest: float) -> list[Result]:
    """What a pull of what is there costs, `rest` seconds after it came, beside a registry that hosts the same."""
    with ExitStack() as ending:
        hosted = ending.enter_context(Hosted(folder / "hosted", folder / "hosted-root"))
        content = push_content(hosted.port, sizes.large)
        upstream = f"127.0.0.1:{hosted.port}"
        servers: list[Server] = [hosted]
        servers += [ending.enter_context(each) for each in _mirrors(folder, "warm", upstream, peers)]
        found = []
        rows = [row for row in costs(content, sizes) if row.name in _WARM]
        for row in rows:
            # What has to come from upstream comes now.
            measure_cost(replace(row, peer=Mirror.name, others=(Distribution.name,)), servers, replace(sizes, runs=1))
        time.sleep(rest)
        for row in rows:
            _say(f"warm: {row.name} …")
            mine = replace(row, peer=Mirror.name, others=(Distribution.name,))
            found.append(_cost(mine, measure_cost(mine, servers, sizes)))
    return found


def _cost(row: Row, figures: Mapping[str, list[float]]) -> Result:
    """Figures as costs: microseconds of CPU for a request, milliseconds for a MB."""
    # A run that is too short for the system's clock counts as some of it.
    shown = {
        {Ours.name: WITHOUT}.get(name, name): [max(each, 1e-3) * 1000 if row.by_cost else 1e6 / each for each in values]
        for name, values in figures.items()
    }
    unit = "CPU µs/MB" if row.by_cost else "CPU µs"
    return Result(f"{row.name}, warm: {unit}", shown, _ratio(shown[Mirror.name], shown[WITHOUT]), 1.1)


def first_bytes(folder: Path, peers: Sequence[str], images: int, size: int) -> list[Result]:
    """How long a client waits for the first byte of a blob that nobody has asked for yet."""
    found = []
    with ExitStack() as ending:
        origin = ending.enter_context(Ours(folder / "origin", folder / "origin-root"))
        relay = ending.enter_context(Relay(folder / "relay", origin.port))
        pushed = [push(origin.port, f"first-{number}", [size], seed=1000 + number) for number in range(images)]
        for name, port, goal in (("far away", relay.port, 1.2), ("on loopback", origin.port, None)):
            _say(f"cold: first byte, {name} …")
            mirrors = [ending.enter_context(each) for each in _mirrors(folder, name, f"127.0.0.1:{port}", peers)]
            ways = {WITHOUT: port, **{each.name: each.port for each in mirrors}}
            figures: dict[str, list[float]] = {way: [] for way in ways}
            for image in pushed:
                for way, at in ways.items():
                    figures[way].append(_first_byte(at, image))
            ratio = _ratio(figures[Mirror.name], figures[WITHOUT])
            found.append(Result(f"first byte of a blob, cold, {name}: ms", figures, ratio, goal))
    return found


def _first_byte(port: int, image: Image) -> float:
    """Returns the milliseconds from the request for an image's layer to its first byte, after its manifest's."""
    with Connection(port) as connection:
        _ask_manifest(connection, image)
        began = time.monotonic()
        connection.socket.sendall(connection.head("GET", _blobs(image)[0][0]))
        _, _, body = connection.answer()
        if not body:
            connection.socket.recv(1)
        return (time.monotonic() - began) * 1000


def crowds(folder: Path, peers: Sequence[str], size: int, rounds: int) -> list[Result]:
    """How long one cold pull of an image takes over a narrow link, and how long many at once do."""
    one: dict[str, list[float | None]] = {}
    many: dict[str, list[float | None]] = {}
    with ExitStack() as ending:
        root = folder / "far-root"
        with Ours(folder / "near", root) as near:
            image = push(near.port, "crowd", [size // _LAYERS] * _LAYERS, seed=0)
        far = ending.enter_context(Far(folder / "far", root, ending.enter_context(link(RATE))))
        for number in range(rounds):
            for clients, figures in ((1, one), (CLIENTS, many)):
                for mirror in _mirrors(folder, f"crowd-{number}-{clients}", far.host, peers):
                    with mirror:
                        alone = next(iter(one.get(mirror.name, [])), None) or 600.0
                        took = _pulled(mirror.port, image, clients, _TIMES_AT_MOST * alone)
                    figures.setdefault(mirror.name, []).append(took)
                    _say(f"{clients} cold pulls: {mirror.name} {took or float('nan'):.1f} s")
    name = f"{round(image.size / _MB)} MB over {RATE.removesuffix('mbit')} Mbit/s"
    ratio = _ratio([each or 0.0 for each in many[Mirror.name]], [each or 0.0 for each in one[Mirror.name]])
    return [Result(f"one cold pull of {name}: s", one), Result(f"{CLIENTS} at once: s", many, ratio, 1.15)]


def _pulled(port: int, image: Image, clients: int, patience: float) -> float | None:
    manifest = f"/v2/{REPOSITORY}/manifests/{image.tag}"
    job = {"port": port, "manifest": manifest, "blobs": _blobs(image), "clients": clients, "patience": patience}
    command = [sys.executable, "-m", "bench.mirror.load", json.dumps(job)]
    told = subprocess.run(command, cwd=_PROJECT, stdout=subprocess.PIPE, text=True, check=True).stdout
    took: float | None = json.loads(told)
    return took


def _ask_manifest(connection: Connection, image: Image) -> None:
    status, _, told = connection.ask("GET", f"/v2/{REPOSITORY}/manifests/{image.tag}", [("Accept", MANIFEST)])
    if status != 200:
        raise ConnectionError(f"the manifest was answered with {status}: {told[:200]!r}")


def _blobs(image: Image) -> list[tuple[str, int]]:
    return [(f"/v2/{REPOSITORY}/blobs/{layer.digest}", layer.size) for layer in image.layers]


def _mirrors(folder: Path, name: str, upstream: str, peers: Sequence[str]) -> list[Server]:
    """Returns mirrors on fresh folders."""
    kinds: list[Callable[[Path, Path, str], Server]] = [Mirror]
    if Distribution.name in peers:
        kinds.append(DistributionMirror)
    places = [folder / f"{name}-{number}" for number in range(len(kinds))]
    return [kind(place, place / "root", upstream) for kind, place in zip(kinds, places, strict=True)]


def _ratio(ours: Sequence[float], others: Sequence[float]) -> float:
    """Ours divided by the other's, pair by pair within a round, and then the median."""
    return median(mine / theirs for mine, theirs in zip(ours, others, strict=True))


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
