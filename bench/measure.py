"""The measurements: one row each, every server in turn, round after round."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from bench.content import MANIFEST, REPOSITORY, Content
from bench.servers import Distribution, Nginx, Ours, Server, forget_blob

CONNECTIONS = 8
_GB = 1e9
_PROJECT = Path(__file__).parents[1]
# What docker sends with a manifest's GET, in its order.
ACCEPTED: list[tuple[str, str]] = [
    ("User-Agent", "docker/20.10.24 go/go1.19.8 git-commit/5d6db84 kernel/6.1.0 os/linux arch/amd64"),
    ("Accept", MANIFEST),
    ("Accept", "application/vnd.docker.distribution.manifest.v1+prettyjws"),
    ("Accept", "application/json"),
    ("Accept", "application/vnd.docker.distribution.manifest.v2+json"),
    ("Accept", "application/vnd.docker.distribution.manifest.list.v2+json"),
    ("Accept", "application/vnd.oci.image.index.v1+json"),
    ("Accept-Encoding", "gzip"),
]
_PLAIN = ACCEPTED[:1]


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is done in one run.

    Attributes:
        runs: rounds of every row.
        large, upload: bytes of the blob that is fetched, and of the one that is pushed.
        volume: bytes fetched in a run, in whole blobs.
        seconds: how long small things are asked for.
    """

    runs: int
    large: int
    upload: int
    volume: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Row:
    """One thing that is measured.

    Attributes:
        by_cost: whether the figure is CPU seconds per GB (less is better), else requests per CPU second.
        peer: whose figure the goal speaks of.
        goal: ours divided by the peer's, at most or at least.
        others: further servers that are measured, without a goal.
        job: gives the load's job for a server.
    """

    name: str
    by_cost: bool
    peer: str
    goal: float
    job: Callable[[Server], dict[str, Any]]
    others: tuple[str, ...] = ()

    @property
    def servers(self) -> tuple[str, ...]:
        return (Ours.name, self.peer, *self.others)

    @property
    def unit(self) -> str:
        return "CPU s/GB" if self.by_cost else "requests/CPU s"

    def figure(self, amount: float, cpu: float) -> float:
        """Returns the row's figure for bytes or requests, and the CPU seconds that they took."""
        return cpu / (amount / _GB) if self.by_cost else amount / max(cpu, 0.01)

    def reached(self, ratio: float) -> bool:
        return ratio <= self.goal if self.by_cost else ratio >= self.goal


def rows(content: Content, sizes: Sizes) -> list[Row]:
    """Returns all rows, in the order of the report."""
    seeds = count(1000)
    images = content.images
    by_digest = [image.digest for image in images]

    def fetch(server: Server) -> dict[str, Any]:
        path = server.path("blobs", REPOSITORY, content.large)
        times = max(1, sizes.volume // content.large_size)
        return {"kind": "download", "path": path, "size": content.large_size, "digest": content.large, "times": times}

    def push(_: Server) -> dict[str, Any]:
        return {"kind": "upload", "repository": "bench/upload", "size": sizes.upload, "seed": next(seeds)}

    def ask(
        kind: str, references: list[str], digests: list[str], headers: list[tuple[str, str]]
    ) -> Callable[[Server], dict[str, Any]]:
        def job(server: Server) -> dict[str, Any]:
            paths = [server.path(kind, REPOSITORY, reference) for reference in references]
            each = {"connections": CONNECTIONS, "seconds": sizes.seconds}
            return {"kind": "requests", "paths": paths, "headers": headers, "digests": digests, **each}

        return job

    tagged = ask("manifests", [image.tag for image in images], by_digest, ACCEPTED)
    digested = ask("manifests", by_digest, by_digest, ACCEPTED)
    small = [image.small for image in images]
    return [
        Row("large blob GET", True, Nginx.name, 1.2, fetch, (Distribution.name,)),
        Row("upload: POST, PATCH, PUT", True, Distribution.name, 0.45, push),
        Row("manifest GET by tag", False, Distribution.name, 12, tagged),
        Row("manifest GET by digest", False, Distribution.name, 12, digested),
        Row("5 KB blob GET", False, Distribution.name, 15, ask("blobs", small, small, _PLAIN), (Nginx.name,)),
    ]


def measure(row: Row, servers: Sequence[Server], sizes: Sizes) -> dict[str, list[float]]:
    """Returns each server's figures, round by round: A B C, A B C, and so on.

    A run that moves gigabytes follows one of the same server that does not count: where the host of a virtual machine
    takes back free memory, a run that fills other memory than the one before it freed may cost twice as much.
    """
    taking_part = [server for server in servers if server.name in row.servers]
    figures: dict[str, list[float]] = {server.name: [] for server in taking_part}
    for _ in range(sizes.runs):
        for server in taking_part:
            if row.by_cost:
                _run(row, server)
            figures[server.name].append(_run(row, server))
    return figures


def _run(row: Row, server: Server) -> float:
    job = json.dumps({"port": server.port, **row.job(server)})
    command = [sys.executable, "-m", "bench.load", job]
    with subprocess.Popen(
        command, cwd=_PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as load:
        told, asked = load.stdout, load.stdin
        if told is None or asked is None or told.readline() != "ready\n":
            raise RuntimeError(f"the load of {row.name} on {server.name} did not start")
        before = server.cpu()
        asked.write("go\n")
        line = told.readline()
        cpu = server.cpu() - before
    if load.returncode or not line:
        raise RuntimeError(f"the load of {row.name} on {server.name} failed")
    result = json.loads(line)
    if "digest" in result:
        forget_blob(server.root, result["digest"])
    return row.figure(result["amount"], cpu)
