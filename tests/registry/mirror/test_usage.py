"""What a mirror knows of what it fetched: over restarts, processes, damage, and as it looks after its space."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from ocispec.digest import Digest
from ocispec.errors import StorageError, Unavailable
from registry.mirror.index import Index, Link
from registry.mirror.marks import Kind
from registry.mirror.space import Share, Space
from registry.mirror.usage import Usage
from storage.blobs import HostedBlobs
from storage.memory import MemoryEngine
from tests.registry.mirror.keeping import HOSTED, SHARES, A, Keeping, has, manifest

ONE, TWO = bytes(1000), bytes([1]) * 1000


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (("_FLUSH_SECONDS", 0.01), ("_LOOK_SECONDS", 0.01), ("_OFTEN", 0.0), ("_RETRY_SECONDS", 0.01)):
        monkeypatch.setattr(f"registry.mirror.usage.{name}", seconds)


@pytest.fixture
def kept(tmp_path: Path) -> Keeping:
    return Keeping(MemoryEngine(), tmp_path)


@asynccontextmanager
async def running(usage: Usage) -> AsyncIterator[None]:
    task = asyncio.create_task(usage.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def used(usage: Usage, data: bytes) -> float:
    found = await usage.index.do(Index.contents, [Digest.of(data)])
    return found[Digest.of(data)].used


async def removed(usage: Usage) -> dict[tuple[str, str], int]:
    return {(each.upstream, each.cause): each.bytes for each in await usage.index.do(Index.removed)}


async def test_uses_are_gathered_and_written_also_at_the_end(kept: Keeping) -> None:
    await kept.fetch_blob(A, ONE)
    kept.now += 1000
    async with running(kept.usage):
        kept.usage.used(A, Digest.of(ONE))
        while await used(kept.usage, ONE) != kept.now:
            await asyncio.sleep(0.005)
        kept.now += 1000
        kept.usage.used(A, Digest.of(ONE))
    assert await used(kept.usage, ONE) == kept.now


async def test_uses_are_bounded_in_memory(kept: Keeping, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("registry.mirror.usage._MOST_USES", 2)
    for data in (b"1", b"2", b"3"):
        kept.usage.used(A, Digest.of(data))
    assert len(kept.usage._uses) == 2


async def test_an_earlier_use_that_is_written_late_changes_nothing(kept: Keeping) -> None:
    await kept.fetch_blob(A, ONE)
    when = await used(kept.usage, ONE)
    await kept.usage.index.do(Index.use, {str(Digest.of(ONE)): when - 10, str(Digest.of(TWO)): when})
    assert await used(kept.usage, ONE) == when


async def test_an_index_that_is_lost_or_damaged_is_made_anew_from_the_tree(
    kept: Keeping, caplog: pytest.LogCaptureFixture
) -> None:
    await kept.fetch(A, manifest(ONE), [ONE], "1")
    await kept.push(HOSTED, manifest(TWO), [TWO])
    before = await kept.entered()
    assert len(before) == 2
    path = kept.usage.index.path
    await kept.usage.index.close()
    path.write_bytes(b"no database" * 1000)
    kept.restart()
    await kept.usage.completed()
    assert await kept.entered() == before, "and what was pushed is not in it"
    assert "pins that were set by command are lost" in caplog.messages[0]


async def test_the_leader_completes_the_index_and_takes_out_what_has_gone(kept: Keeping) -> None:
    await kept.fetch_blob(A, ONE)
    stale = Link(A, Kind.BLOB, Digest.of(TWO))
    await kept.usage.index.do(Index.link, [(stale, 5, kept.now)])
    async with running(kept.usage):
        while await kept.kept() != 1000:
            await asyncio.sleep(0.005)
    assert await kept.entered() == {(A, "blob", str(Digest.of(ONE)))}


async def test_the_leader_keeps_the_cap_and_lets_expire(tmp_path: Path) -> None:
    kept = Keeping(MemoryEngine(), tmp_path, Space((Share("docker.io", "docker.io/", ttl=60.0),), cap=1500))
    async with running(kept.usage):
        for data in (ONE, TWO):
            await kept.fetch_blob(A, data)
        while await has(kept.engine, Digest.of(ONE)):
            await asyncio.sleep(0.005)
        assert await has(kept.engine, Digest.of(TWO))
        async with kept.usage.room(A, 1000):
            while await has(kept.engine, Digest.of(TWO)):
                await asyncio.sleep(0.005)
        await kept.fetch_blob(A, ONE)
        kept.now += 61
        while (found := await removed(kept.usage)) != {("", "cap"): 2000, ("docker.io", "ttl"): 1000}:
            assert sum(found.values()) <= 3000
            await asyncio.sleep(0.005)
    assert await kept.bytes_here() == set()


async def test_an_upstream_that_is_down_is_told_of_and_keeps_what_it_has(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def down() -> None:
        raise Unavailable("it does not answer")

    kept = Keeping(MemoryEngine(), tmp_path, Space((Share("docker.io", "docker.io/", ttl=10.0, reachable=down),)))
    await kept.fetch_blob(A, ONE)
    kept.now += 100
    async with running(kept.usage):
        while "nothing of docker.io expires: it does not answer" not in caplog.messages:
            await asyncio.sleep(0.005)
    assert await has(kept.engine, Digest.of(ONE))


async def test_a_disk_that_fails_is_told_of_and_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = Keeping(MemoryEngine(), tmp_path, Space(SHARES, cap=500))
    await kept.fetch_blob(A, ONE)
    with monkeypatch.context() as failing:

        async def children(*_: object) -> None:
            raise StorageError("the disk does not answer")

        failing.setattr(kept.engine, "children", children)
        task = asyncio.create_task(kept.usage.run())
        while "the mirror's space cannot be looked after: the disk does not answer" not in caplog.messages:
            await asyncio.sleep(0.005)
    while await has(kept.engine, Digest.of(ONE)):
        await asyncio.sleep(0.005)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_an_index_that_cannot_be_written_fails_no_fetch(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    kept = Keeping(MemoryEngine(), tmp_path)
    kept.usage.index.path.parent.parent.mkdir(exist_ok=True)
    kept.usage.index.path.parent.write_text("in the way")
    await kept.fetch_blob(A, ONE)
    await kept.usage.flush()
    assert await HostedBlobs(kept.engine, A).size(Digest.of(ONE)) == 1000
    assert "is not in the mirror's index until it is completed" in caplog.messages[0]
    assert list(await kept.usage.families()) == []


async def test_one_of_several_processes_leads(tmp_path: Path) -> None:
    kept = Keeping(MemoryEngine(), tmp_path, Space(SHARES, cap=1500))
    other = Usage(kept.engine, kept.space, scratch=tmp_path / "scratch", state=tmp_path, clock=lambda: kept.now)
    other.remover._pause = kept.pause
    async with running(kept.usage), running(other):
        for data in (ONE, TWO):
            await kept.fetch_blob(A, data)
        kept.now += 1
        other.used(A, Digest.of(ONE))
        while await used(other, ONE) != kept.now and await kept.kept() > 1000:
            await asyncio.sleep(0.005)
        while await kept.kept() > 1000:
            await asyncio.sleep(0.005)
    assert await has(kept.engine, Digest.of(ONE)) != await has(kept.engine, Digest.of(TWO))


async def test_metrics_tell_what_is_kept_and_was_removed(tmp_path: Path) -> None:
    space = Space((Share("docker.io", "docker.io/", cap=5000), SHARES[1]), cap=9000)
    kept = Keeping(MemoryEngine(), tmp_path, space)
    for data in (ONE, TWO):
        await kept.fetch_blob(A, data)
    await kept.usage.evictor.make_room(space.whole, 1000)
    await kept.usage.index.do(Index.count, "not.configured", "cap", 1, 1)
    values = {(name, labels): value for family in await kept.usage.families() for name, labels, value in family.samples}
    docker, ghcr = (("upstream", "docker.io"),), (("upstream", "ghcr.io"),)
    of_all = (("cause", "cap"), ("upstream", ""))
    assert values == {
        ("registry_mirror_kept_bytes", ()): 1000,
        ("registry_mirror_cap_bytes", ()): 9000,
        ("registry_mirror_upstream_kept_bytes", docker): 1000,
        ("registry_mirror_upstream_kept_bytes", ghcr): 0,
        ("registry_mirror_upstream_cap_bytes", docker): 5000,
        ("registry_mirror_removed_bytes_total", of_all): 1000,
        ("registry_mirror_removed_contents_total", of_all): 1,
    }
