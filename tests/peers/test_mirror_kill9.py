"""`kill -9` of real mirrors in the middle of a fetch: nothing is fetched twice, and who waits elsewhere goes on."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

import pytest

from storage.following import lines
from tests.client.faulty import FaultyRegistry, faulty, honest
from tests.support.images import sha256
from tests.support.processes import RegistryProcess

NAME = "team/app"
MIB = 1 << 20
# Of several parts (8 MiB each); its bytes are of no account.
LARGE = random.Random(9).randbytes(1 << 16) * (20 * 16)
DIGEST = sha256(LARGE)
HALT = 6 * MIB


@dataclass
class Download:
    """One GET of the large blob, read while it comes."""

    host: str
    body: bytearray = field(default_factory=bytearray)

    def __post_init__(self) -> None:
        self.task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        host, _, port = self.host.partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        for path in ("manifests/latest", f"blobs/{DIGEST}"):
            writer.write(f"GET /v2/{NAME}/{path} HTTP/1.1\r\nHost: {self.host}\r\n\r\n".encode())
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            assert b" 200 " in head.split(b"\r\n")[0], head
            size = int(head.split(b"content-length: ")[1].split(b"\r\n")[0])
            self.body.clear()
            while len(self.body) < size and (piece := await reader.read(min(MIB, size - len(self.body)))):
                self.body += piece
        writer.close()

    async def at_least(self, count: int) -> Self:
        while len(self.body) < count:
            assert not self.task.done()
            await asyncio.sleep(0.005)
        return self


class Halting:
    """Lets an upstream send so many bytes of the blob, in all, and no more until it is told to."""

    def __init__(self, upstream: FaultyRegistry) -> None:
        self._going = asyncio.Event()
        self._upstream = upstream
        upstream.twist = lambda _, sent: replace(sent, pace=self._pace)

    async def _pace(self) -> None:
        if sum(end - at for at, end in self._upstream.log.of(DIGEST)) >= HALT:
            await self._going.wait()

    def go(self) -> None:
        self._upstream.twist = honest
        self._going.set()


def recorded(root: Path) -> list[tuple[int, int]]:
    record = root / ".layerhouse/mirror/.partial/sha256" / DIGEST.removeprefix("sha256:") / "parts"
    return [(at, at + length) for at, length in lines(record.read_bytes())]


def again(upstream: FaultyRegistry, here: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """What was sent of the blob although it was here."""
    return [(at, end) for at, end in upstream.log.of(DIGEST) for a, b in here if at < b and a < end]


@pytest.fixture
def root(scratch: Path) -> Path:
    """Asked for before the servers: what they write to is removed after they have ended."""
    return scratch / "root"


async def started(start: Callable[..., RegistryProcess], upstream: FaultyRegistry, root: Path) -> RegistryProcess:
    env = {"REGISTRY_PROXY_REMOTEURL": f"http://{upstream.host}"}
    return await asyncio.to_thread(start, root, env=env)


async def test_the_next_request_after_kill_9_goes_on_from_what_came(
    root: Path,
    registry_server: Callable[..., RegistryProcess],
) -> None:
    async with faulty() as upstream:
        upstream.publish(NAME, "latest", [LARGE])
        halting = Halting(upstream)
        mirror = await started(registry_server, upstream, root)
        reading = await Download(mirror.host).at_least(16 * 1024)
        while sum(end - at for at, end in recorded(root)) < MIB:
            await asyncio.sleep(0.005)
        mirror.kill()
        await asyncio.gather(reading.task, return_exceptions=True)
        here = recorded(root)
        upstream.forget()
        halting.go()
        await asyncio.to_thread(mirror.start)
        reading = Download(mirror.host)
        await reading.task
        assert reading.body == LARGE
        assert again(upstream, here) == []
        asked = [each for each in upstream.seen if "/blobs/" in each.path and each.method == "GET"]
    assert all("range" in each.headers for each in asked)


async def test_who_waits_at_another_process_goes_on_when_the_one_that_fetches_is_killed(
    root: Path,
    registry_server: Callable[..., RegistryProcess],
) -> None:
    async with faulty() as upstream:
        upstream.publish(NAME, "latest", [LARGE])
        halting = Halting(upstream)
        one, two = [await started(registry_server, upstream, root) for _ in range(2)]
        first = await Download(one.host).at_least(16 * 1024)
        second = await Download(two.host).at_least(16 * 1024)
        assert not first.task.done()
        one.kill()
        await asyncio.gather(first.task, return_exceptions=True)
        assert len(first.body) < len(LARGE)
        here = recorded(root)
        upstream.forget()
        halting.go()
        await second.task
        assert second.body == LARGE
        assert again(upstream, here) == []
