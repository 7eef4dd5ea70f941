"""A whole pull from a registry that gets things wrong."""

from __future__ import annotations

import asyncio
import io
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace

import pytest

from client.caching.cache import Cache
from client.display import Style, shown
from client.progress import Event, Pulled
from client.registries.retrying import Patience
from client.session import Session
from client.transfers.pulling import Options, pull_in
from client.wire.transport import HttpTransport
from ocispec.digest import Digest
from ocispec.reference import Reference
from tests.client.faulty import FaultyRegistry, Sent, Twist, faulty
from tests.client.scripted import Image, Reply, Seen
from tests.client.transfers.test_pulling import verify

KIB = 1024
PART = 512 * KIB
DATA = random.Random(5).randbytes(3 * 1024 * KIB + 777)
BIG = Digest.of(DATA)
PATH = f"/v2/a/b/blobs/{BIG}"


@pytest.fixture(params=["stream", "parts"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Whether the large layer comes in one stream or in seven parts."""
    for name in ("SMALLEST_PART", "LARGEST_PART"):
        monkeypatch.setattr(f"client.transfers.transfer.{name}", PART if request.param == "parts" else 16 * PART)
    return str(request.param)


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SMALLEST_PART", "LARGEST_PART"):
        monkeypatch.setattr(f"client.transfers.transfer.{name}", PART)


@pytest.fixture(autouse=True)
def quick_records(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("storage.partials.RECORD_EVERY", PART)


@dataclass
class Bench:
    """A registry with an image of one large and one small layer, and a cache."""

    registry: FaultyRegistry
    cache: Cache
    image: Image
    events: list[Event] = field(default_factory=list)
    silence: float = 30.0
    mirrors: tuple[str, ...] = ()
    foreign: bool = False
    first: float = 0.001

    @property
    def name(self) -> str:
        return f"{self.registry.host}/a/b:1"

    async def pull(self) -> Pulled:
        """Pulls as another process would: nothing is remembered but what lies in the cache."""
        session = Session(
            patience=Patience(first=self.first),
            mirrors=self.mirrors,
            connect=lambda number: HttpTransport(number, silence=self.silence),
        )
        session.report = self.events.append
        async with session:
            options = Options(foreign=self.foreign)
            cache = Cache(self.cache.root)
            return await pull_in(session, cache, Reference.parse(self.name), options, self.events.append)

    @property
    def once(self) -> bool:
        """Whether every byte of the large layer came, and none twice."""
        return self.registry.log.once(str(BIG), len(DATA))

    def whole(self, **left: bool) -> bool:
        return verify(self.cache, **left) == {self.image.digest, self.image.config, *self.image.layers}

    def told(self, kind: type[Event]) -> list[str]:
        """The lines that somebody at a terminal would read of such events."""
        warnings = io.StringIO()
        with shown(Style.QUIET, io.StringIO(), warnings) as report:
            for each in self.events:
                if isinstance(each, kind):
                    report(each)
        return warnings.getvalue().splitlines()


@pytest.fixture
async def bench(cache: Cache) -> AsyncIterator[Bench]:
    async with faulty() as registry:
        yield Bench(registry, cache, registry.publish("a/b", "1", [DATA, b"small"]))


def large(twist: Twist, *numbers: int) -> Twist:
    """Applies to the requests for the large layer alone: to those with the given numbers, from 1, or to all."""
    count = 0

    def twisted(request: Seen, sent: Sent) -> Sent | Reply:
        nonlocal count
        if request.path != PATH:
            return sent
        count += 1
        return twist(request, sent) if count in numbers or not numbers else sent

    return twisted


def spoilt(_: Seen, sent: Sent) -> Sent:
    return replace(sent, body=memoryview(b"x" + bytes(sent.body[1:])))


def others(bench: Bench) -> list[str]:
    return [each for each in (bench.image.config, *bench.image.layers) if each != str(BIG)]


async def interrupted(bench: Bench, came: int) -> None:
    """Cancels a pull once so many bytes of the large layer, and all else, have come."""
    pulling = asyncio.create_task(bench.pull())
    await arrived(bench, came)
    pulling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pulling


async def arrived(bench: Bench, came: int) -> None:
    data = bench.cache.root / ".partial/sha256" / BIG.hex / "data"
    small = [bench.cache.layout.path(Digest.parse(each)) for each in others(bench)]
    while not (all(each.exists() for each in (data, *small)) and data.stat().st_size >= came):
        await asyncio.sleep(0.001)
