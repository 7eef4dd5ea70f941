"""The measurements: every client in turn, round after round, each run from an empty store."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from bench.client.clients import Client, Command, Cost, Crane, Docker, Pullclient, Skopeo
from bench.client.image import REPOSITORY, Image
from bench.load import Connection

Figures = Mapping[str, Sequence[float]]
"""By client, in the order of the rounds."""
_MB = 1e6


@dataclass(frozen=True, slots=True)
class Job:
    """What every client does in turn.

    Attributes:
        words: gives the command of a client.
        image: what is pulled, if anything.
        fresh: whether each run starts from an empty store; else all start from one that has the image.
        clients: who takes part.
    """

    name: str
    words: Callable[[Client], Command]
    image: Image | None = None
    fresh: bool = False
    clients: tuple[str, ...] = (Pullclient.name, Skopeo.name, Crane.name, Docker.name)


@dataclass(frozen=True, slots=True)
class Goal:
    """At most `limit` times the figure of `peer`; without a peer, at most `limit`."""

    limit: float
    peer: str | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the report, made of the costs of a job, or of all jobs where it has none."""

    name: str
    what: Literal["wall", "cpu", "memory"]
    goal: Goal | None = None
    job: Job | None = None


@dataclass(frozen=True, slots=True)
class Images:
    """What was pushed, the ports of the registry and of the relay before it."""

    port: int
    relay: int
    many: Image
    large: Image
    far: Image


def rows(images: Images) -> list[Row]:
    """Returns all rows, in the order of the report."""
    many = _pull(f"{len(images.many.layers)} layers, {_size(images.many)}", images.many, images.port)
    large = _pull(f"one layer, {_size(images.large)}", images.large, images.port)
    far = _pull(f"one layer, {_size(images.far)}, far away", images.far, images.relay)
    again = images.many.reference(images.port)
    # crane has no store that it would look into.
    others = (Pullclient.name, Skopeo.name, Docker.name)
    cached = Job("all of it there already", lambda client: client.pull(again), images.many, clients=others)
    asked = Job("`--help`", lambda _: ["--help"])
    wall, cpu, far_wall = Goal(0.8, Skopeo.name), Goal(0.6, Skopeo.name), Goal(0.35, Skopeo.name)
    return [
        Row(f"{many.name}: s", "wall", wall, many),
        Row(f"{many.name}: CPU s", "cpu", cpu, many),
        Row(f"{large.name}: s", "wall", wall, large),
        Row(f"{large.name}: CPU s", "cpu", cpu, large),
        Row(f"{far.name}: s", "wall", far_wall, far),
        Row(f"{far.name}: CPU s", "cpu", None, far),
        Row(f"{cached.name}: s", "wall", Goal(0.25), cached),
        Row(f"{asked.name}: s", "wall", Goal(0.15), asked),
        Row("most memory in any run: MB", "memory", Goal(120)),
    ]


def measure(job: Job, clients: Iterable[Client], rounds: int) -> dict[str, list[Cost]]:
    """Returns each client's costs, round by round: A B C, A B C, and so on.

    Each run follows one of the same client that does not count: where the host of a virtual machine takes back free
    memory, a run that fills other memory than the one before it freed may cost twice as much.
    """
    taking_part = [client for client in clients if client.name in job.clients]
    costs: dict[str, list[Cost]] = {client.name: [] for client in taking_part}
    for _ in range(rounds):
        for client in taking_part:
            _run(job, client)
            cost = _run(job, client)
            print(f"{job.name}: {client.name} {cost.wall:.2f} s, {cost.cpu:.2f} CPU s", file=sys.stderr)
            costs[client.name].append(cost)
    for client in taking_part:
        client.forget()
    return costs


def figures(row: Row, costs: Mapping[str, Mapping[str, Sequence[Cost]]]) -> dict[str, list[float]]:
    """Returns a row's figures by client, from the costs by job; those of memory are each run's, of every job."""
    found: dict[str, list[float]] = {}
    for job, by_client in costs.items():
        for client, each in by_client.items():
            if row.job is None or row.job.name == job:
                values = [getattr(cost, row.what) for cost in each]
                found.setdefault(client, []).extend(value for value in values if value is not None)
    if row.what == "memory":
        return {client: [max(values) / _MB] for client, values in found.items() if values}
    return found


def probe(port: int, image: Image) -> str:
    """Says what one connection to a port is, by fetching the first layer of an image over it."""
    layer, started = image.layers[0], time.monotonic()
    with Connection(port) as connection:
        connection.ask("GET", "/v2/")
        first = time.monotonic() - started
        connection.ask("GET", "/v2/")
        second = time.monotonic() - started - first
        connection.skip(connection.head("GET", f"/v2/{REPOSITORY}/blobs/{layer.digest}"), layer.size)
        rate = layer.size * 8 / (time.monotonic() - started - first - 2 * second)
    answers = f"the first request after {first * 1000:.0f} ms, the next after {second * 1000:.0f} ms"
    return f"answers {answers}, and sends {rate / _MB:.0f} Mbit/s"


def _pull(name: str, image: Image, port: int) -> Job:
    reference = image.reference(port)
    return Job(name, lambda client: client.pull(reference), image, fresh=True)


def _run(job: Job, client: Client) -> Cost:
    if job.fresh:
        client.forget()
    os.sync()
    cost = client.run(job.words(client))
    if job.image and not client.holds(job.image):
        raise RuntimeError(f"{client.name} ended well, and does not hold what it pulled")
    if job.fresh:
        client.forget()
    return cost


def _size(image: Image) -> str:
    megabytes = round(image.size / _MB)
    return f"{megabytes / 1000:g} GB" if megabytes >= 1000 else f"{megabytes} MB"
