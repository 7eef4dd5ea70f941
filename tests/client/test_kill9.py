"""`kill -9` of a real pullclient at random moments: the next pull ends whole, and fetches no finished part twice."""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import shutil
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from client.caching.cache import Cache
from tests.client.faulty import FaultyRegistry, faulty
from tests.client.scripted import Image
from tests.client.transfers.test_pulling import recorded, verify

KILLS = int(os.environ.get("LAYERHOUSE_KILLS", "50"))
SEED = os.environ.get("LAYERHOUSE_SEED") or secrets.token_hex(4)
MIB = 1 << 20
# Two layers of several parts (8 MiB each) and some that come whole; their bytes are of no account.
LAYERS = [random.Random(number).randbytes(1 << 16) * (size * 16) for number, size in enumerate((20, 12, 3, 1))]
# How fast a connection is, in bytes a second: a pull of all lasts some 800 ms beyond its start.
PACE = 10 * MIB
# A pull is brought to its end after so many kills at the latest.
ROUNDS = 8
LANES = 2


@dataclass
class Rounds:
    """Kills pulls into one cache, again and again, until one ends by itself; then begins with a new cache.

    Attributes:
        parts: how many recorded parts a later pull could have fetched again.
        kept: bytes that no later pull had to fetch.
    """

    registry: FaultyRegistry
    image: Image
    folder: Path
    chance: random.Random
    kills: int = KILLS // LANES
    killed: int = 0
    parts: int = 0
    kept: int = 0
    caches: int = 0
    longest: float = 0.7
    cache: Cache = field(init=False)

    async def run(self) -> None:
        self._begin()
        while self.killed < self.kills:
            ended = await self._killed_at(self.chance.uniform(0.0, self.longest))
            if ended or self.killed % ROUNDS == 0:
                await self._finish()
        await self._finish()

    def _begin(self) -> None:
        self.caches += 1
        self.cache = Cache(self.folder / str(self.caches))

    async def _killed_at(self, seconds: float) -> bool:
        """Kills a pull so long after its first request for a blob; returns whether it had ended before."""
        before = recorded(self.cache), self._whole()
        self.registry.forget()
        process = await self._started()
        while not self.registry.blobs() and process.returncode is None:
            await asyncio.sleep(0.002)
        try:
            async with asyncio.timeout(seconds):
                await process.wait()
        except TimeoutError:
            process.send_signal(signal.SIGKILL)
            self.killed += 1
        out, err = await process.communicate()
        assert process.returncode in (0, -signal.SIGKILL), (out, err)
        self._check(*before)
        return process.returncode == 0

    async def _finish(self) -> None:
        before = recorded(self.cache), self._whole()
        self.registry.forget()
        process = await self._started()
        out, err = await process.communicate()
        assert (process.returncode, err) == (0, b""), out
        self._check(*before)
        assert verify(self.cache, scratch=True) == {self.image.digest, self.image.config, *self.image.layers}
        assert (await self.cache.inspect(f"{self.registry.host}/a/b:1")).variants
        shutil.rmtree(self.cache.root)
        self._begin()

    def _whole(self) -> set[str]:
        """Digests of the blobs that are there; each is what its name says, whenever the kill came."""
        return verify(self.cache, partials=True, scratch=True) if self.cache.root.exists() else set()

    def _check(self, parts: list[tuple[str, int, int]], whole: set[str]) -> None:
        """No byte was sent again that a record named or a whole blob holds."""
        for digest, start, end in parts:
            again = [(at, until) for at, until in self.registry.log.of(digest) if at < end and start < until]
            assert not again, f"{digest}: {start}-{end} was recorded, and {again} were fetched"
        assert not set(self.registry.blobs()) & whole
        self.parts += len(parts)
        self.kept += sum(end - start for _, start, end in parts)

    async def _started(self) -> asyncio.subprocess.Process:
        words = ("pull", "--quiet", "--cache", str(self.cache.root), f"{self.registry.host}/a/b:1")
        return await asyncio.create_subprocess_exec(sys.executable, "-m", "client", *words, stdout=-1, stderr=-1)


def paced(rate: float) -> Callable[[], Awaitable[None]]:
    """Waits before each piece of 64 KiB, so that a body comes at `rate` bytes a second."""
    due = time.monotonic()

    async def wait() -> None:
        nonlocal due
        due = max(due, time.monotonic() - 0.02) + (1 << 16) / rate
        if (left := due - time.monotonic()) > 0.002:
            await asyncio.sleep(left)

    return wait


@pytest.mark.timeout(max(120, 4 * KILLS))
async def test_kill_9_at_random_moments_loses_no_finished_part(scratch: Path, tell: Callable[[str], None]):
    print(f"LAYERHOUSE_SEED={SEED}")

    async def lane(number: int) -> Rounds:
        async with faulty() as registry:
            image = registry.publish("a/b", "1", LAYERS)
            registry.twist = lambda _, sent: replace(sent, pace=paced(PACE))
            rounds = Rounds(registry, image, scratch / str(number), random.Random(f"{SEED}/{number}"))
            await rounds.run()
            return rounds

    lanes = await asyncio.gather(*map(lane, range(LANES)))
    killed, parts, kept = (sum(getattr(each, name) for each in lanes) for name in ("killed", "parts", "kept"))
    what = f"{parts} recorded parts ({kept // MIB} MiB) were fetched by none that followed"
    tell(f"kill -9 of pulls: {killed} kills, {what}, LAYERHOUSE_SEED={SEED}")
    assert parts > 0
