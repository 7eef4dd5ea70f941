"""Room is made of what was used least lately, and of nothing that somebody else needs."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ocispec.digest import Digest
from ocispec.errors import StorageError, Unavailable
from ocispec.reference import RepositoryName, Tag
from registry.mirror import tree
from registry.mirror.eviction import ABANDONED
from registry.mirror.expiry import expire
from registry.mirror.index import Index
from registry.mirror.marks import Kind
from registry.mirror.removing import ASIDE
from registry.mirror.space import Share, Space
from storage import links, paths
from storage.blobs import HostedBlobs
from storage.files import FilesEngine
from storage.memory import MemoryEngine
from tests.registry.mirror.keeping import HOSTED, SHARES, A, B, C, Crash, Crashing, Keeping, has, index, manifest

ONE, TWO, THREE, FOUR = (bytes([n]) * 1000 for n in range(4))
WHOLE = Share("")


@pytest.fixture
def kept(tmp_path: Path) -> Keeping:
    return Keeping(Crashing(FilesEngine(tmp_path / "images")), tmp_path)


async def here(keeping: Keeping, *contents: bytes) -> list[bool]:
    return [await has(keeping.engine, Digest.of(each)) for each in contents]


async def test_what_was_used_least_lately_goes_first_and_manifests_last(kept: Keeping) -> None:
    image = manifest(ONE, TWO, THREE)
    await kept.fetch(A, image, [ONE, TWO, THREE], "1")
    kept.now += 1
    kept.usage.used(B, Digest.of(ONE))
    await kept.usage.flush()
    freed = await kept.usage.evictor.make_room(WHOLE, 2000 + len(image))
    assert freed == 1000
    assert await here(kept, ONE, TWO, THREE, image) == [True, False, True, True]
    await kept.usage.evictor.make_room(WHOLE, len(image))
    assert await here(kept, ONE, TWO, THREE, image) == [False, False, False, True]
    await kept.usage.evictor.make_room(WHOLE, 0)
    assert await kept.engine.children(paths.REPOSITORIES) == [], "nobody lists a repository in which nothing is left"
    assert await kept.bytes_here() == set()


async def test_an_image_needs_what_its_indexes_and_manifests_name_at_any_depth(kept: Keeping) -> None:
    amd64, arm64 = manifest(ONE, TWO), manifest(ONE, THREE)
    both = index(amd64, arm64)
    for each, layers in ((both, ()), (amd64, (ONE, TWO)), (arm64, (ONE,))):
        await kept.fetch(A, each, layers)
    found = await tree.needed(kept.engine, A, [Digest.of(both)])
    assert found == {Digest.of(each) for each in (both, amd64, arm64, ONE, TWO, THREE)}


@pytest.mark.parametrize(
    ("pin", "stays"),
    [
        ("docker.io/library/a", [True, True]),
        ("docker.io/**", [True, True]),
        ("docker.io/library/a:1", [True, False]),
        ("docker.io/library/a:1*", [True, False]),
        ("docker.io/library/*:2", [False, True]),
        ("docker.io/library/a@" + str(Digest.of(manifest(TWO))), [False, True]),
        ("ghcr.io/**", [False, False]),
    ],
)
async def test_what_is_pinned_stays(tmp_path: Path, pin: str, stays: list[bool]) -> None:
    kept = Keeping(MemoryEngine(), tmp_path, Space(SHARES, pins=(pin,)))
    await kept.fetch(A, manifest(ONE), [ONE], "1.2")
    await kept.store.repository(A).manifests.put(Tag("1"), manifest(ONE), None)
    async with kept.usage.fetched(A, Digest.of(manifest(ONE)), 1, Kind.MANIFEST):
        pass
    await kept.fetch(A, manifest(TWO), [TWO], "2")
    await kept.usage.evictor.make_room(WHOLE, 0)
    assert await here(kept, ONE, TWO) == stays
    assert await here(kept, manifest(ONE), manifest(TWO)) == stays


async def test_what_was_pushed_to_a_repository_that_is_mirrored_since_then_keeps_what_it_names(kept: Keeping) -> None:
    image = manifest(ONE, TWO)
    await kept.push(A, image, [ONE], "pushed")
    old = time.time() - 3600
    for each in (kept.folder / "images").rglob("link"):
        os.utime(each, (old, old))
    # Two comes from upstream; and what was pushed does so too, by another tag.
    await kept.fetch(A, image, [ONE, TWO], "fetched")
    await kept.usage.evictor.make_room(WHOLE, 0)
    assert await here(kept, image, ONE, TWO) == [True, True, True]
    assert await kept.entered() == {(A, "blob", str(Digest.of(TWO)))}


async def test_what_is_pushed_anew_is_not_taken_for_fetched(kept: Keeping) -> None:
    await kept.fetch(A, manifest(ONE), [ONE], "1")
    await asyncio.sleep(0.02)  # by the file system's clock it is later
    await kept.store.repository(A).manifests.put(Tag("1"), manifest(ONE), None)
    await kept.usage.completed(again=True)
    await kept.usage.evictor.make_room(WHOLE, 0)
    assert await here(kept, ONE, manifest(ONE)) == [True, True]


async def test_a_blob_that_several_have_goes_once_and_from_all(kept: Keeping) -> None:
    for name in (A, C):
        await kept.fetch(name, manifest(ONE), [ONE], "1")
    size = 1000 + len(manifest(ONE))
    assert [await kept.kept(each) for each in ("", "docker.io/", "ghcr.io/")] == [size] * 3
    assert await kept.usage.evictor.make_room(WHOLE, 0) == size
    assert await kept.entered() == set()


async def test_a_cap_of_one_upstream_takes_nothing_from_another(kept: Keeping) -> None:
    for name in (A, C):
        await kept.fetch(name, manifest(ONE), [ONE], "1")
    await kept.usage.evictor.make_room(SHARES[0], 0)
    assert [await kept.kept(each) for each in ("docker.io/", "ghcr.io/")] == [0, 1000 + len(manifest(ONE))]
    assert await here(kept, ONE, manifest(ONE)) == [True, True]
    assert (await kept.store.repository(C).manifests.get(Tag("1"))).raw == manifest(ONE)


async def test_caps_are_kept_with_what_is_on_its_way(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    share = Share("docker.io", "docker.io/", cap=2500)
    kept = Keeping(MemoryEngine(), tmp_path, Space((share,), cap=10_000))
    for each in (ONE, TWO):
        await kept.fetch_blob(A, each)
    await kept.usage.evictor.keep_caps(lambda _share: 0)
    assert await kept.kept() == 2000
    async with kept.usage.room(A, 900), kept.usage.room(C, 900):
        await kept.usage.evictor.keep_caps(kept.usage._reserved)
    assert await here(kept, ONE, TWO) == [False, True]
    assert caplog.messages == ["the mirror of docker.io: 1000 bytes were evicted, to keep its cap of 2500"]


async def test_a_cap_that_cannot_be_kept_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    kept = Keeping(MemoryEngine(), tmp_path, Space(SHARES, cap=1000, pins=("docker.io/**",)))
    await kept.fetch(A, manifest(ONE), [ONE], "1")
    await kept.usage.evictor.keep_caps(lambda _share: 0)
    (told,) = caplog.messages
    over = 100 + len(manifest(ONE))
    assert told == f"the mirror: {over} bytes more than its cap of 1kB are pinned, pushed, or on their way"


async def test_downloads_that_nobody_goes_on_with_are_given_up_and_others_are_not(kept: Keeping) -> None:
    kept.now = time.time()
    scratch = kept.folder / "scratch"
    for name in ("held", "old", "young"):
        folder = scratch / ".partial" / "sha256" / name
        folder.mkdir(parents=True)
        (folder / "data").write_bytes(bytes(4096))
        (folder / "parts").write_bytes(b"")
        if name != "young":
            for each in (folder / "data", folder / "parts", folder):
                os.utime(each, (kept.now - ABANDONED - 60,) * 2)
    held = os.open(scratch / ".partial/sha256/held/data", os.O_RDWR)
    fcntl.flock(held, fcntl.LOCK_EX)
    use = await kept.usage.evictor.use(WHOLE, 100_000)
    assert (use.kept, use.arriving) == (0, 2 * 4096 + 100_000)
    await kept.usage.evictor.make_room(WHOLE, 0)
    assert sorted(each.name for each in (scratch / ".partial/sha256").iterdir()) == ["held", "young"]
    os.close(held)


@pytest.mark.parametrize("age", [0, 1])
async def test_only_what_nobody_used_for_so_long_expires(kept: Keeping, age: int) -> None:
    await kept.fetch(A, manifest(ONE), [ONE], "1")
    kept.now += 100
    kept.usage.used(A, Digest.of(ONE))
    await kept.usage.flush()
    gone = await expire(SHARES[0], kept.now + age, kept.usage.index, kept.usage.remover)
    assert {each.digest for each in gone} == {Digest.of(manifest(ONE))} | ({Digest.of(ONE)} if age else set())
    assert await expire(SHARES[1], kept.now + 999, kept.usage.index, kept.usage.remover) == []
    counted = await kept.usage.index.do(Index.removed)
    assert [(each.upstream, each.cause, each.contents) for each in counted] == [("docker.io", "ttl", len(gone))]


async def test_nothing_expires_while_upstream_is_down(kept: Keeping) -> None:
    async def down() -> None:
        raise Unavailable("upstream is down")

    await kept.fetch_blob(A, ONE)
    with pytest.raises(Unavailable):
        await expire(Share("docker.io", reachable=down), kept.now + 1, kept.usage.index, kept.usage.remover)
    assert await here(kept, ONE) == [True]


class Beside(Crashing):
    """Does something else before one of the calls of an eviction."""

    def __init__(self, engine: Any, at: int, work: Callable[[], Any]) -> None:
        super().__init__(engine)
        self.at, self.work, self.calls = at, work, 0

    def __getattr__(self, name: str) -> Any:
        return self._counted(getattr(self._engine, name))

    async def _change(self, change: Any) -> None:
        await self._step()
        await change

    def _counted(self, call: Any) -> Any:
        async def counted(*args: Any, **kwargs: Any) -> Any:
            await self._step()
            return await call(*args, **kwargs)

        return counted

    async def _step(self) -> None:
        self.calls += 1
        if self.calls == self.at:
            await self.work()


@pytest.mark.parametrize("way", ["push", "mount"])
async def test_a_push_beside_an_eviction_loses_nothing(tmp_path: Path, way: str) -> None:
    """What is put in its place at any moment is linked by the pause, or by what follows it."""
    at, more, linked = 1, True, 0
    while more:
        engine = MemoryEngine()
        kept = Keeping(engine, tmp_path / str(at))
        await kept.fetch_blob(A, ONE)
        waiting: list[Callable[[], Any]] = []
        hosted, digest = HostedBlobs(engine, HOSTED), Digest.of(ONE)

        async def begin() -> None:
            if way == "push":
                await engine.write(paths.blob_data(digest), ONE)  # noqa: B023 - run in this round
            elif not await HostedBlobs(engine, A).has(digest):  # noqa: B023
                return
            waiting.append(lambda: hosted.link(digest))  # noqa: B023
            if paused:  # noqa: B023
                await waiting.pop()()  # noqa: B023

        paused = False

        async def pause() -> None:
            nonlocal paused
            paused = True
            while waiting:  # noqa: B023
                await waiting.pop()()  # noqa: B023

        beside = Beside(engine, at, begin)
        kept.usage.remover._engine = beside
        kept.usage.remover._pause = pause
        await kept.usage.evictor.make_room(WHOLE, 0)
        more = beside.calls >= at
        if await links.read(engine, paths.layer_link(HOSTED, digest)):
            linked += 1
            assert await hosted.size(digest) == 1000, f"at call {at}"
        assert await engine.children(ASIDE) == []
        await kept.usage.index.close()
        at += 1
    assert linked > 5


@pytest.mark.parametrize("pushed", [False, True])
async def test_what_lay_aside_when_it_crashed_is_put_back_where_somebody_has_it(kept: Keeping, pushed: bool) -> None:
    digest = await kept.fetch_blob(A, ONE)
    kept.engine.left, kept.engine.done = 3, True  # the link has gone, the bytes lie aside
    with pytest.raises(Crash):
        await kept.usage.evictor.make_room(WHOLE, 0)
    kept.engine.left = 0
    assert len(await kept.engine.children(ASIDE)) == 1
    if pushed:
        await HostedBlobs(kept.engine, HOSTED).link(digest)
    kept.restart()
    await kept.usage.completed(again=True)
    assert (await kept.bytes_here(), await kept.engine.children(ASIDE)) == ({digest} if pushed else set(), [])


async def test_what_cannot_be_read_is_left_as_it_is(kept: Keeping, monkeypatch: pytest.MonkeyPatch) -> None:
    await kept.fetch_blob(A, ONE)

    async def failing(*_: object) -> None:
        raise StorageError("the disk does not answer")

    monkeypatch.setattr(kept.engine._engine, "children", failing)
    with pytest.raises(StorageError, match="does not answer"):
        await kept.usage.evictor.make_room(WHOLE, 0)
    assert await here(kept, ONE) == [True]


async def test_a_tag_that_stands_for_something_else_by_now_stays(kept: Keeping) -> None:
    await kept.fetch(A, manifest(ONE), [ONE], "1")
    await kept.fetch(A, manifest(TWO), [TWO], "1")
    name = RepositoryName(A)
    await kept.usage.evictor.make_room(WHOLE, 2 * len(manifest(TWO)) - 1)
    assert [tag async for tag, _ in tree.tags(kept.engine, name)] == ["1"]
    assert (await kept.store.repository(name).manifests.get(Tag("1"))).raw == manifest(TWO)
