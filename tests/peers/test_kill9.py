"""`kill -9` at random moments of concurrent pushes loses nothing that was acknowledged, and never serves a wrong byte.

LAYERHOUSE_KILLS sets the number of kills (100), LAYERHOUSE_SEED repeats the choices of an earlier run.
"""

from __future__ import annotations

import http.client
import itertools
import os
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest

from tests.support.images import MIB, Answer, RefusedError, Wire, manifest_bytes, pull_image_on, push_parts, sha256
from tests.support.processes import RegistryProcess

KILLS = int(os.environ.get("LAYERHOUSE_KILLS", "100"))
SEED = int(os.environ.get("LAYERHOUSE_SEED", str(time.time_ns() % 1_000_000)))
LANES = 2  # servers side by side, so that one starts while the other works
PUSHERS = 4
EARLIER = 5  # tags of earlier rounds that each round looks at again

Tag = tuple[str, str]  # repository, tag


@dataclass(slots=True)
class Ledger:
    """What one registry has promised, and what it may have done without promising."""

    tags: dict[Tag, str] = field(default_factory=dict)  # the digest last acknowledged
    attempts: dict[Tag, str] = field(default_factory=dict)  # a digest that was sent and not acknowledged
    blobs: list[tuple[str, str]] = field(default_factory=list)  # acknowledged since the last look
    recent: list[Tag] = field(default_factory=list)  # tags touched since the last look
    progress: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))  # requests answered


class RecordingWire(Wire):
    """A connection that notes each blob the registry acknowledges."""

    def __init__(self, host: str, ledger: Ledger) -> None:
        super().__init__(host, timeout=20)
        self.ledger = ledger

    def ask(self, method: str, path: str, body: Any = None, *, expect: int | None = None, **headers: str) -> Answer:
        answer = super().ask(method, path, body, expect=expect, **headers)
        self.ledger.progress.release()
        return answer

    def push_blob(self, repo: str, data: bytes) -> str:
        digest = super().push_blob(repo, data)
        self.ledger.blobs.append((repo, digest))
        return digest

    def push_tag(self, repo: str, tag: str, manifest: Mapping[str, Any]) -> None:
        key = (repo, tag)
        self.ledger.attempts[key] = sha256(manifest_bytes(manifest))
        self.ledger.recent.append(key)
        self.ledger.tags[key] = self.push_manifest(repo, tag, manifest)
        del self.ledger.attempts[key]


class Lane:
    """One registry that is killed again and again while it is pushed to and pulled from."""

    def __init__(self, folder: Path, seed: str) -> None:
        folder.mkdir()
        self.random = random.Random(seed)
        self.server = RegistryProcess(folder / "storage", log=folder / "registry.log", covered=False)
        self.ledger = Ledger()
        self.pool = self.random.randbytes(8 * MIB)
        self.shared = [self.layer(self.random) for _ in range(3)]

    def run(self, kills: int) -> Ledger:
        try:
            for turn in range(kills):
                self.server.start()
                self.verify()
                self.push_until_killed(turn)
            self.server.start()
            self.ledger.recent = list(self.ledger.tags)
            self.verify()
        except BaseException:
            print(self.server.log())
            raise
        finally:
            self.server.kill()
        return self.ledger

    def layer(self, rng: random.Random) -> bytes:
        """1 KB to 2 MB, each power of two as likely as the next, and no two alike."""
        size = int(1024 * 2 ** rng.uniform(0, 11))
        start = rng.randrange(len(self.pool) - size)
        return rng.randbytes(16) + self.pool[start : start + size - 16]

    def push_until_killed(self, turn: int) -> None:
        killed = threading.Event()
        seeds = [self.random.getrandbits(64) for _ in range(PUSHERS)]
        self.ledger.progress = threading.Semaphore(0)
        with ThreadPoolExecutor(PUSHERS + 1) as pool:
            clients = [pool.submit(self.push, turn, number, seed, killed) for number, seed in enumerate(seeds)]
            clients.append(pool.submit(self.pull, turn, killed))
            self.await_moment()
            killed.set()
            self.server.kill()
        for client in clients:
            client.result()

    def await_moment(self) -> None:
        """A random number of requests answered, so that slow machines get as far as fast ones, then a moment more."""
        for _ in range(self.random.randrange(80)):
            if not self.ledger.progress.acquire(timeout=20):
                return
        time.sleep(self.random.uniform(0, 0.03))

    def push(self, turn: int, number: int, seed: int, killed: threading.Event) -> None:
        """Push images until the server is gone: each under a tag of its own, and as the repository's `latest`."""
        rng, repo = random.Random(seed), f"pushed/by{number}"
        with until_killed(killed), RecordingWire(self.server.host, self.ledger) as wire:
            for count in itertools.count():
                layers = [self.layer(rng) for _ in range(rng.randint(1, 3))] + rng.sample(
                    self.shared, rng.randint(0, 2)
                )
                manifest = push_parts(wire, repo, layers)
                for tag in (f"t{turn}-{count}", "latest"):
                    wire.push_tag(repo, tag, manifest)

    def pull(self, turn: int, killed: threading.Event) -> None:
        """Pull what was acknowledged, old and new, until the server is gone."""
        rng = random.Random(turn)
        with until_killed(killed), Wire(self.server.host, timeout=20) as wire:
            while not killed.is_set():
                if tags := list(self.ledger.tags):
                    pull_image_on(wire, *rng.choice(tags))
                else:
                    killed.wait(0.01)

    def verify(self) -> None:
        """After a restart: what was acknowledged in the last round, and some of before, is there and whole."""
        earlier = list(self.ledger.tags)
        tags = {*self.ledger.recent, *self.random.sample(earlier, min(EARLIER, len(earlier)))}
        with Wire(self.server.host) as wire:
            for repo, digest in set(self.ledger.blobs):
                wire.blob(repo, digest)
            for tag in sorted(tags):
                self.verify_tag(wire, tag)
        self.ledger.blobs.clear()
        self.ledger.recent.clear()

    def verify_tag(self, wire: Wire, tag: Tag) -> None:
        """What a tag names now is what it names from here on: an attempt has taken effect, or never will."""
        promised, attempted = self.ledger.tags.get(tag), self.ledger.attempts.pop(tag, None)
        try:
            digest = next(iter(pull_image_on(wire, *tag)))
        except RefusedError as error:
            if promised is not None or error.status != HTTPStatus.NOT_FOUND:
                raise
        else:
            assert digest in {promised, attempted}, f"{tag} is {digest}, not {promised} or {attempted}"
            self.ledger.tags[tag] = digest


@contextmanager
def until_killed(killed: threading.Event) -> Iterator[None]:
    """A client's work ends when the server is killed; a server that goes away before is a failure."""
    try:
        yield
    except (OSError, http.client.HTTPException):
        if not killed.is_set():
            raise


@pytest.mark.timeout(max(420, 5 * KILLS))
def test_kill_9_at_random_moments_loses_no_acknowledged_tag_and_serves_no_wrong_byte(
    scratch: Path, tell: Callable[[str], None]
) -> None:
    print(f"LAYERHOUSE_SEED={SEED}")
    lanes = [Lane(scratch / str(number), f"{SEED}/{number}") for number in range(LANES)]
    with ThreadPoolExecutor(LANES) as pool:
        ledgers = list(pool.map(lambda lane: lane.run(KILLS // LANES), lanes))
    tags = sum(len(ledger.tags) for ledger in ledgers)
    tell(f"kill -9: {KILLS // LANES * LANES} kills, {tags} acknowledged tags whole, LAYERHOUSE_SEED={SEED}")
    assert tags > 0
