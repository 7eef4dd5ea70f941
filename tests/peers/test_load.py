"""Many clients at once on real sockets: every byte right, and the server's memory stays small."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.images import MIB, Wire, stream
from tests.support.processes import RegistryProcess, Server

GIB = 1 << 30
MEMORY = 200_000_000  # bytes, the promise
PUSHES = [GIB] * 3 + [32 * MIB] * 13
PULLS = [GIB] * 4 + [64 * MIB] * 60


@dataclass(slots=True)
class Memory:
    """Highest resident size of a server and its children, sampled while it works."""

    idle: int
    peak: int = 0
    _end: threading.Event = field(default_factory=threading.Event)

    def sample(self, server: Server) -> None:
        while not self._end.wait(0.05):
            self.peak = max(self.peak, server.rss())

    def end(self) -> None:
        self._end.set()


@contextmanager
def watched(server: Server) -> Iterator[Memory]:
    memory = Memory(server.rss())
    thread = threading.Thread(target=memory.sample, args=(server,))
    thread.start()
    try:
        yield memory
    finally:
        memory.end()
        thread.join()


@pytest.mark.timeout(300)
def test_64_pull_and_16_push_at_once_with_every_byte_right_in_200_mb(
    scratch: Path, registry_server: Callable[..., RegistryProcess], tell: Callable[[str], None]
) -> None:
    server = registry_server(scratch, covered=False)
    host = server.host
    with Wire(host) as wire:
        ready = {size: wire.push_stream("ready", stream(size, size), size) for size in set(PULLS)}
    start = threading.Barrier(len(PUSHES) + len(PULLS))

    def push(seed: int, size: int) -> str:
        with Wire(host, timeout=240) as wire:
            start.wait()
            return wire.push_stream("pushed", stream(seed, size), size)

    def pull(repo: str, digest: str, barrier: threading.Barrier | None) -> int:
        with Wire(host, timeout=240) as wire:
            if barrier:
                barrier.wait()
            return wire.blob(repo, digest)

    began = time.monotonic()
    with watched(server) as memory, ThreadPoolExecutor(len(PUSHES) + len(PULLS)) as pool:
        pushes = [pool.submit(push, seed, size) for seed, size in enumerate(PUSHES)]
        pulls = [pool.submit(pull, "ready", ready[size], start) for size in PULLS]
        assert [future.result() for future in pulls] == PULLS
        digests = [future.result() for future in pushes]
    seconds = time.monotonic() - began
    assert [pull("pushed", digest, None) for digest in digests] == PUSHES
    tell(
        f"64 pulling, 16 pushing: {(sum(PUSHES) + sum(PULLS)) / 1e9:.1f} GB in {seconds:.0f} s,"
        f" server {memory.idle / 1e6:.0f} MB idle, {memory.peak / 1e6:.0f} MB at most"
    )
    assert memory.peak < MEMORY
