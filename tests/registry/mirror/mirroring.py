"""A mirror before an upstream that gets things wrong, and readers that can be watched."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import pytest

from client.registries.retrying import Patience
from client.session import Session
from client.wire.transport import HttpTransport
from registry.config import Settings
from storage.files import FilesEngine
from storage.following import lines
from tests.client.faulty import FaultyRegistry, Sent, Twist, faulty
from tests.client.scripted import Reply, Seen
from tests.support.api import Api, Broken, serving
from tests.support.images import sha256

NAME = "team/app"
KIB = 1024
PART = 512 * KIB
LARGE = Random(7).randbytes(3 * 1024 * KIB + 777)
DIGEST = sha256(LARGE)
PATH = f"/v2/{NAME}/blobs/{DIGEST}"
TAG = f"/v2/{NAME}/manifests/latest"


@pytest.fixture(params=["stream", "parts"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Whether the large blob comes in one stream or in seven parts."""
    for name in ("SMALLEST_PART", "LARGEST_PART"):
        monkeypatch.setattr(f"client.transfers.transfer.{name}", PART if request.param == "parts" else 16 * PART)
    return str(request.param)


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SMALLEST_PART", "LARGEST_PART"):
        monkeypatch.setattr(f"client.transfers.transfer.{name}", PART)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes seconds in life takes parts of one here."""
    monkeypatch.setattr("registry.mirror.upstream.Patience", partial(Patience, first=0.001))
    monkeypatch.setattr("registry.mirror.straight._PAUSE", 0.001)


@pytest.fixture
def watchful(monkeypatch: pytest.MonkeyPatch) -> None:
    """An upstream that sends nothing for 0.3 seconds counts as broken."""
    quick = partial(Session, connect=lambda number: HttpTransport(number, silence=0.3))
    monkeypatch.setattr("registry.mirror.upstream.Session", quick)


@pytest.fixture
async def upstream() -> AsyncIterator[FaultyRegistry]:
    async with faulty() as registry:
        registry.publish(NAME, "latest", [LARGE, b"small"])
        yield registry


@pytest.fixture
async def mirror(tmp_path: Path, upstream: FaultyRegistry) -> AsyncIterator[Callable[..., Any]]:
    """Starts a mirror of `upstream`, on the same images each time, unless told otherwise."""
    async with AsyncExitStack() as ending:

        async def start(root: Path = tmp_path / "mirror", url: str = f"http://{upstream.host}") -> Api:
            return await ending.enter_async_context(mirroring(root, url))

        yield start


@asynccontextmanager
async def mirroring(root: Path, url: str) -> AsyncIterator[Api]:
    """A mirror that has seen the image's manifest, so that it knows how long its blobs are."""
    settings = Settings.model_validate(
        {"proxy": {"remoteurl": url}, "storage": {"filesystem": {"rootdirectory": root}}}
    )
    async with serving(FilesEngine(root), settings) as api:
        await api.get(TAG)
        yield api


@dataclass
class Reader:
    """One that reads a blob piece by piece.

    Attributes:
        status: of the answer, once it has begun.
        body: what came so far.
        ready: a slow reader takes nothing while this is clear.
    """

    api: Api
    target: str = PATH
    headers: dict[str, str] = field(default_factory=dict)
    status: int = 0
    body: bytearray = field(default_factory=bytearray)
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    ended: bool = False

    def __post_init__(self) -> None:
        self.ready.set()
        self.task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async def send(message: dict[str, Any]) -> None:
            await self.ready.wait()
            self.status = message.get("status", self.status)
            self.body += message.get("body", b"")
            self.ended = message["type"] == "http.response.body" and not message.get("more_body")

        async def receive() -> Any:
            await asyncio.Event().wait()

        await self.api.app(self.api.scope("GET", self.target, self.headers), receive, send)

    async def at_least(self, count: int) -> None:
        while len(self.body) < count:
            assert not self.task.done(), (self.status, len(self.body))
            await asyncio.sleep(0.001)

    async def whole(self) -> bytes:
        """Returns all that came; raises Broken where the connection broke."""
        await self.task
        if not self.ended:
            raise Broken(f"{len(self.body)} bytes came")
        return bytes(self.body)

    async def leave(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


def large(twist: Twist, *numbers: int) -> Twist:
    """Applies to the requests for the large blob alone: to those with the given numbers, from 1, or to all."""
    count = 0

    def twisted(request: Seen, sent: Sent) -> Sent | Reply:
        nonlocal count
        if request.path != PATH:
            return sent
        count += 1
        return twist(request, sent) if count in numbers or not numbers else sent

    return twisted


def kept(root: Path) -> list[str]:
    """Digests of the blobs that are in the tree."""
    return sorted(f"sha256:{path.parent.name}" for path in root.glob("docker/registry/v2/blobs/*/*/*/data"))


def left(root: Path) -> list[Path]:
    """Files of fetches that are not whole."""
    return [path for path in (root / ".layerhouse/mirror").rglob("*") if path.is_file()]


async def until_kept(root: Path, digest: str = DIGEST) -> None:
    while digest not in kept(root):
        await asyncio.sleep(0.001)


def recorded(root: Path) -> list[tuple[int, int]]:
    """Spans of the large blob that a fetch left on disk, as its record names them."""
    record = root / ".layerhouse/mirror/.partial/sha256" / DIGEST.removeprefix("sha256:") / "parts"
    return [(at, at + length) for at, length in lines(record.read_bytes())]


def overlap(one: list[tuple[int, int]], other: list[tuple[int, int]]) -> bool:
    return any(a < d and c < b for a, b in one for c, d in other)
