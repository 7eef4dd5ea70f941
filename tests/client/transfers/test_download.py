"""Blobs into a layout: verified, told step by step, healed once, left out or waited for, and never half there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from client.caching.cache import Cache
from client.progress import Event, LayerDone, LayerProgress, LayerSkipped, LayerStarted, Warned
from client.registries.foreign import ForeignSource
from client.registries.remote import Remote
from client.registries.retrying import Patience
from client.session import Session
from client.transfers.download import Downloads
from client.transfers.slots import Slots
from ocispec.descriptor import Descriptor
from ocispec.digest import Digest
from ocispec.errors import BlobUnknown, ContentTruncated, DigestMismatch, ResponseInvalid, StorageFull, UnknownError
from ocispec.reference import Reference
from storage.partials import Partial, Partials, folder_of, quarantine_of
from tests.client.faulty import FaultyRegistry, faulty
from tests.client.scripted import LAYER, Reply, Seen
from tests.support.tmpfs import tmpfs

FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
DATA = b"0123456789" * 200_000
DIGEST = Digest.of(DATA)
PATH = f"/v2/a/b/blobs/{DIGEST}"


@pytest.fixture
async def registry() -> AsyncIterator[FaultyRegistry]:
    async with faulty() as server:
        yield server


@dataclass
class Bench:
    registry: FaultyRegistry
    cache: Cache
    session: Session
    events: list[Event] = field(default_factory=list)
    foreign: bool = False

    @property
    def downloads(self) -> Downloads:
        foreign = (lambda url: ForeignSource(url, self.session.send)) if self.foreign else None
        return Downloads(self.cache.layout, self.session.slots, self.session.patience, self.events.append, foreign)

    @property
    def remote(self) -> Remote:
        return self.session.remote(Reference.parse(f"{self.registry.host}/a/b:1"))

    async def fetch(self, wanted: Descriptor) -> int:
        return await self.downloads.fetch(self.remote, wanted)

    def files(self) -> list[Path]:
        return sorted(each for each in self.cache.root.rglob("*") if each.is_file())


@pytest.fixture
async def bench(registry: FaultyRegistry, cache: Cache) -> AsyncIterator[Bench]:
    async with Session(patience=Patience(first=0.001)) as session:
        made = Bench(registry, cache, session)
        session.report = made.events.append
        yield made


def described(data: bytes = DATA, media_type: str = LAYER, **members: object) -> Descriptor:
    return Descriptor(media_type, Digest.of(data), len(data), **members)


async def test_a_blob_arrives_and_every_step_is_told(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("client.transfers.download.PROGRESS_EVERY", 0.001)
    bench.registry.blob("a/b", DATA)
    bench.registry.twist = lambda _, sent: replace(sent, pace=lambda: asyncio.sleep(0.002))
    assert await bench.fetch(described()) == len(DATA)
    assert bench.files() == [bench.cache.layout.path(DIGEST)]
    assert bench.files()[0].read_bytes() == DATA
    first, *between, last = bench.events
    assert (type(first), first.received, type(last), last.cached) == (LayerStarted, 0, LayerDone, False)
    received = [each.received for each in between if isinstance(each, LayerProgress)]
    assert received == sorted(received)
    assert len(received) > 2
    assert received[-1] == len(DATA)


async def test_what_came_before_is_told_and_not_counted(bench: Bench):
    bench.registry.blob("a/b", DATA)
    async with Partials(bench.cache.root).opened(DIGEST, len(DATA)) as partial:
        part = partial.part(0, 1_500_000)
        part.take(memoryview(DATA)[:1_500_000])
        part.close()
    assert await bench.fetch(described()) == 500_000
    assert isinstance(bench.events[0], LayerStarted)
    assert bench.events[0].received == 1_500_000
    assert bench.registry.log.of(str(DIGEST)) == [(1_500_000, len(DATA))]


@pytest.mark.parametrize(
    ("reply", "kind", "text", "tries"),
    [
        (Reply(200, DATA[:5], promised=len(DATA)), ContentTruncated, f"ended after 5 of {len(DATA)} bytes", 5),
        (Reply(200, DATA[:5], promised=-1), ContentTruncated, f"ended after 5 of {len(DATA)} bytes", 5),
        (Reply(200, DATA[:5]), ContentTruncated, f"ended after 5 of {len(DATA)} bytes: the host sent no more", 5),
        (Reply(404), BlobUnknown, "blob unknown to registry", 1),
        (Reply(206, DATA), UnknownError, "(status 206)", 5),
    ],
    ids=["cut", "cut without a promise", "short", "unknown", "a range nobody asked for"],
)
async def test_what_does_not_come_is_named_and_no_blob_appears(
    bench: Bench, reply: Reply, kind: type[Exception], text: str, tries: int
):
    bench.registry.behaviours[PATH] = reply
    with pytest.raises(kind) as raised:
        await bench.fetch(described())
    assert str(raised.value).startswith(f"{bench.registry.host}/a/b:1: {DIGEST}: ")
    assert text in str(raised.value)
    assert len(bench.registry.seen) == tries
    kept = {folder_of(bench.cache.root, DIGEST) / each for each in ("data", "parts")}
    assert set(bench.files()) == (kept if kind is ContentTruncated else set())


@pytest.mark.parametrize(
    ("body", "text"),
    [(DATA[:-1] + b"x", "its content hashes to"), (DATA + b"x", f"more than the expected {len(DATA)}")],
    ids=["wrong bytes", "too many"],
)
async def test_wrong_bytes_are_fetched_once_more_from_zero_and_then_given_up(bench: Bench, body: bytes, text: str):
    bench.registry.behaviours[PATH] = Reply(200, body)
    with pytest.raises(DigestMismatch) as raised:
        await bench.fetch(described())
    assert str(raised.value).startswith(f"{bench.registry.host}/a/b:1: {DIGEST}: ")
    assert str(raised.value).count(text) == 2
    assert "; fetched twice: " in str(raised.value)
    assert [each.headers.get("range") for each in bench.registry.seen] == [None, None]
    assert bench.files() == [quarantine_of(bench.cache.root, DIGEST)]


async def test_wrong_bytes_that_come_once_are_healed_kept_aside_and_warned_of(bench: Bench):
    bench.registry.blob("a/b", DATA)
    wrong = DATA[:-1] + b"x"

    def once(_: Seen) -> Reply:
        del bench.registry.behaviours[PATH]
        return Reply(200, wrong)

    bench.registry.behaviours[PATH] = once
    assert await bench.fetch(described()) == len(DATA)
    assert bench.cache.layout.path(DIGEST).read_bytes() == DATA
    assert quarantine_of(bench.cache.root, DIGEST).read_bytes() == wrong
    (warning,) = [each.message for each in bench.events if isinstance(each, Warned)]
    assert warning.startswith(f"{bench.registry.host}/a/b:1: {DIGEST}: expected {DIGEST}, its content hashes to ")
    assert warning.endswith("; fetched once more it was right")


async def test_a_bad_partial_is_healed_too(bench: Bench):
    bench.registry.blob("a/b", DATA)
    async with Partials(bench.cache.root).opened(DIGEST, len(DATA)) as partial:
        part = partial.part(0, 1000)
        part.take(memoryview(b"x" * 1000))
        part.close()
    assert await bench.fetch(described()) == len(DATA)
    assert bench.cache.layout.path(DIGEST).read_bytes() == DATA


async def test_two_that_want_one_blob_fetch_it_once(bench: Bench):
    bench.registry.blob("a/b", DATA)
    bench.registry.twist = lambda _, sent: replace(sent, pace=lambda: asyncio.sleep(0.001))
    found = await asyncio.gather(*(bench.fetch(described()) for _ in range(4)))
    assert sorted(found) == [0, 0, 0, len(DATA)]
    assert bench.registry.log.once(str(DIGEST), len(DATA))
    done = [each.cached for each in bench.events if isinstance(each, LayerDone)]
    assert sorted(done) == [False, True, True, True]
    assert bench.files() == [bench.cache.layout.path(DIGEST)]


async def test_who_waits_goes_on_where_the_first_one_failed(bench: Bench):
    bench.registry.blob("a/b", DATA)
    never, cut = asyncio.Event(), 1_200_000
    bench.registry.twist = lambda _, sent: replace(sent, cut=cut, then=never.wait) if sent.first == 0 else sent
    first = asyncio.create_task(bench.fetch(described()))
    while bench.registry.log.of(str(DIGEST)) != [(0, cut)]:
        await asyncio.sleep(0.001)
    second = asyncio.create_task(bench.fetch(described()))
    await asyncio.sleep(0.1)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    came = await second
    assert bench.registry.log.once(str(DIGEST), len(DATA)) or came >= len(DATA) - cut
    assert bench.cache.layout.path(DIGEST).read_bytes() == DATA


async def test_an_empty_blob_needs_no_request(bench: Bench):
    assert await bench.fetch(described(b"")) == 0
    assert bench.cache.layout.path(Digest.of(b"")).read_bytes() == b""
    assert bench.registry.seen == []


async def test_only_what_is_asked_for_is_told_and_all_of_it_comes(bench: Bench):
    blobs = [b"config", b"one" * 9, b"two" * 99]
    for each in blobs:
        bench.registry.blob("a/b", each)
    wanted = [described(each) for each in blobs]
    assert await bench.downloads.fetch_all(bench.remote, wanted, wanted[1:]) == sum(map(len, blobs))
    told = {each.digest for each in bench.events if isinstance(each, LayerDone)}
    assert told == {each.digest for each in wanted[1:]}
    assert await bench.cache.layout.missing(wanted) == []


async def test_a_foreign_layer_that_the_registry_lacks_is_left_out_with_a_warning(bench: Bench):
    bench.registry.behaviours[PATH] = Reply(404)
    assert await bench.fetch(described(media_type=FOREIGN, urls=("https://x/y",))) == 0
    assert isinstance(bench.events[-1], LayerSkipped)
    assert bench.events[-1].urls == ("https://x/y",)
    assert bench.files() == []
    with pytest.raises(BlobUnknown):
        await bench.fetch(described(media_type=FOREIGN))
    with pytest.raises(BlobUnknown):
        await bench.fetch(described(urls=("https://x/y",)))


async def test_a_foreign_layer_that_the_registry_has_is_fetched(bench: Bench):
    bench.registry.blob("a/b", DATA)
    assert await bench.fetch(described(media_type=FOREIGN, urls=("https://x/y",))) == len(DATA)


async def test_a_foreign_layer_comes_from_its_address_where_asked_for(bench: Bench):
    bench.foreign, bench.registry.behaviours[PATH] = True, Reply(404)
    async with faulty() as elsewhere:
        elsewhere.blob("far", DATA)
        url = f"http://{elsewhere.host}/v2/far/blobs/{DIGEST}"
        assert await bench.fetch(described(media_type=FOREIGN, urls=(url,))) == len(DATA)
        assert "authorization" not in elsewhere.seen[0].headers
    assert bench.cache.layout.path(DIGEST).read_bytes() == DATA


async def test_a_foreign_layer_that_lies_elsewhere_is_named(bench: Bench):
    bench.foreign, bench.registry.behaviours[PATH] = True, Reply(404)
    with pytest.raises(ResponseInvalid, match=r"a/b:1: sha256:\w+: foreign layer: 'ftp://x/y' is neither http nor"):
        await bench.fetch(described(media_type=FOREIGN, urls=("ftp://x/y",)))


@pytest.mark.peer("tmpfs")
async def test_a_full_disk_leaves_nothing_of_any_blob_that_is_not_whole(bench: Bench, tmp_path: Path):
    big, small, held = DATA * 2, DATA[:1_000_000], DATA[:999_999]
    for each in (big, small, held):
        bench.registry.blob("a/b", each)
    with tmpfs(tmp_path / "small", 3_000_000) as root:
        bench.cache = Cache(root / "cache")
        async with Partials(bench.cache.root).opened(Digest.of(held), len(held)) as other:
            part = other.part(0, 10)
            part.take(memoryview(held)[:10])
            with pytest.raises(StorageFull, match=r"a/b:1: sha256:\w+: .*No space left on device$"):
                await bench.downloads.fetch_all(bench.remote, [described(big), described(small), described(held)], [])
            assert not folder_of(bench.cache.root, Digest.of(big)).exists()
            # What another one fetches is his.
            assert (folder_of(bench.cache.root, Digest.of(held)) / "data").exists()
            other.discard()
        assert set(bench.files()) <= {bench.cache.layout.path(Digest.of(each)) for each in (small, held)}


async def test_a_blob_that_was_whole_but_for_its_move_is_moved_the_next_time(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
):
    bench.registry.blob("a/b", DATA)

    def full(*_: object) -> None:
        raise StorageFull("no folder can be made")

    with monkeypatch.context() as patch:
        patch.setattr(Partial, "move", full)
        with pytest.raises(StorageFull, match=r"a/b:1: sha256:\w+: no folder can be made$"):
            await bench.fetch(described())
    bench.registry.forget()
    assert await bench.fetch(described()) == 0
    assert bench.registry.seen == []
    assert bench.cache.layout.path(DIGEST).read_bytes() == DATA


async def test_no_more_are_fetched_at_once_than_there_are_places(registry: FaultyRegistry, cache: Cache):
    blobs = [bytes([number]) * 100 for number in range(12)]
    running, most, full = 0, 0, asyncio.Event()

    async def pace() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        if most == 3:
            full.set()
        await full.wait()
        await asyncio.sleep(0.002)
        running -= 1

    for each in blobs:
        registry.blob("a/b", each)
    registry.twist = lambda _, sent: replace(sent, pace=pace)
    async with Session(jobs=3, per_host=3) as session:
        downloads = Downloads(cache.layout, Slots(3, 3), Patience(), lambda _: None)
        remote = session.remote(Reference.parse(f"{registry.host}/a/b:1"))
        await downloads.fetch_all(remote, list(map(described, blobs)), [])
    assert most == 3
