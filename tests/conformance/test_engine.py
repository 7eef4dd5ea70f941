"""The engine suite: what `storage/engine.py` promises, asked of every engine."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ocispec.errors import PathUnknown, StorageError, UploadBusy
from storage.engine import INLINE, PIECE, Engine
from storage.files import FilesEngine
from storage.memory import MemoryEngine

SIZES = [0, 1, INLINE, INLINE + 1, PIECE, 2 * PIECE + 3]


@pytest.fixture(params=["files", "memory"])
async def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Engine:
    made: Engine = FilesEngine(tmp_path / "root") if request.param == "files" else MemoryEngine()
    await made.start()
    return made


async def everything(pieces: AsyncIterator[bytes]) -> bytes:
    return b"".join([piece async for piece in pieces])


async def begin(engine: Engine, path: str) -> None:
    await engine.write(path, b"", durable=False)


@pytest.mark.parametrize("size", SIZES)
async def test_what_was_written_is_read_again(engine: Engine, size: int) -> None:
    data = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    await engine.write("a/b/c", data)
    assert await engine.read("a/b/c", size) == data
    assert (await engine.stat("a/b/c")).size == size
    content = await engine.open("a/b/c")
    assert content.size == size
    assert await everything(content.stream(0, size)) == data
    await content.close()


async def test_a_small_object_comes_read(engine: Engine) -> None:
    await engine.write("small", b"x" * INLINE)
    content = await engine.open("small")
    assert content.data == b"x" * INLINE
    await content.close()


@pytest.mark.parametrize(("offset", "count"), [(0, 1), (5, 0), (PIECE - 1, 2), (17, 2 * PIECE), (3 * PIECE - 1, 1)])
async def test_a_range_is_read_exactly(engine: Engine, offset: int, count: int) -> None:
    data = hashlib.shake_256(b"seed").digest(3 * PIECE)
    await engine.write("big", data)
    content = await engine.open("big")
    assert await everything(content.stream(offset, count)) == data[offset : offset + count]
    await content.close()


async def test_reading_stops_at_the_limit(engine: Engine) -> None:
    await engine.write("a", b"12345")
    with pytest.raises(StorageError, match="longer than 4"):
        await engine.read("a", 4)


@pytest.mark.parametrize("path", ["none", "a/none", "a", "a/b/none"])
async def test_nothing_there_and_a_folder_are_unknown_paths(engine: Engine, path: str) -> None:
    await engine.write("a/b", b"x")
    with pytest.raises(PathUnknown):
        await engine.read(path, 10)
    with pytest.raises(PathUnknown):
        await engine.stat(path)
    with pytest.raises(PathUnknown):
        await engine.open(path)
    with pytest.raises(PathUnknown):
        async with engine.append(path):
            pass


async def test_an_opened_object_keeps_its_bytes_when_it_is_replaced_and_deleted(engine: Engine) -> None:
    first = b"1" * (2 * PIECE)
    await engine.write("a/b", first)
    content = await engine.open("a/b")
    await engine.write("a/b", b"2" * PIECE)
    await engine.delete("a")
    assert await everything(content.stream(0, len(first))) == first
    await content.close()


async def test_closing_twice_is_harmless(engine: Engine) -> None:
    await engine.write("a", b"x" * PIECE)
    content = await engine.open("a")
    await content.close()
    await content.close()


async def test_move_replaces_the_target_and_removes_the_source(engine: Engine) -> None:
    await engine.write("from/x", b"new")
    await engine.write("to/deep/y", b"old")
    await engine.move("from/x", "to/deep/y")
    assert await engine.read("to/deep/y", 10) == b"new"
    with pytest.raises(PathUnknown):
        await engine.stat("from/x")


async def test_moving_nothing_is_an_unknown_path_and_leaves_the_target(engine: Engine) -> None:
    await engine.write("to", b"old")
    with pytest.raises(PathUnknown):
        await engine.move("from", "to")
    assert await engine.read("to", 10) == b"old"


async def test_delete_takes_a_folder_with_all_below_and_is_content_with_nothing(engine: Engine) -> None:
    await engine.write("a/b/c", b"1")
    await engine.write("a/d", b"2")
    await engine.write("ab", b"3")
    await engine.delete("a")
    await engine.delete("a")
    assert await engine.children("a") == []
    assert await engine.read("ab", 1) == b"3"


async def test_pruning_takes_no_more_than_an_empty_folder(engine: Engine) -> None:
    for path in ("a/b/one", "a/b/two"):
        await engine.write(path, b"x")
    await engine.delete("a/b/two")
    for path in ("a/b", "a", "a/b/one", "nowhere", "nowhere/below"):
        await engine.prune(path)
    assert await engine.read("a/b/one", 1) == b"x"
    await engine.delete("a/b/one")
    for path in ("a/b", "a"):
        await engine.prune(path)
    assert "a" not in await engine.children("")
    await engine.write("a/b/one", b"y")
    assert await engine.read("a/b/one", 1) == b"y"


async def test_discard_takes_objects_with_the_folders_that_only_they_held(engine: Engine) -> None:
    for path in ("a/b/c", "a/d/e", "a/d/f", "a/g"):
        await engine.write(path, b"1")
    await engine.discard(["a/b/c", "a/d/e", "a/none", "none/at/all", "a/g/below"])
    assert await engine.children("a") == ["d", "g"]
    assert await engine.children("a/d") == ["f"]
    await engine.discard([])


async def test_children_are_the_names_right_below_in_order(engine: Engine) -> None:
    for path in ("r/b/x", "r/a", "r/b/y", "r/B", "s/z"):
        await engine.write(path, b"")
    assert await engine.children("r") == ["B", "a", "b"]
    assert await engine.children("r/b") == ["x", "y"]
    assert await engine.children("r/none") == []
    assert await engine.children("r/a") == []


@pytest.mark.parametrize("limit", [None, 0, 1, 3, 100])
@pytest.mark.parametrize("after", ["", "a", "a-", "a-b", "a/b", "aa", "c", "zz", "é"])
async def test_children_come_page_by_page(engine: Engine, after: str, limit: int | None) -> None:
    names = ["a", "a-b", "a.b", "a0", "A", "_a", "c", "b"]
    for name in names:
        await engine.write(f"r/{name}/below", b"")
    expected = [name for name in sorted(names) if name > after]
    for _ in range(2):
        assert await engine.children("r", after, limit) == expected[:limit]
        assert await engine.children("r/none", after, limit) == []
        await engine.delete("r/b")
        expected = [name for name in expected if name != "b"]


async def test_pages_of_children_hold_all_that_stays_while_others_come_and_go(engine: Engine) -> None:
    lasting, passing = [f"n{n:04}" for n in range(0, 1500, 2)], [f"n{n:04}" for n in range(1, 1500, 60)]
    for name in lasting:
        await engine.write(f"r/{name}/x", b"", durable=False)
    done = asyncio.Event()

    async def churn() -> None:
        while not done.is_set():
            for name in passing:
                await engine.write(f"r/{name}/x", b"", durable=False)
                await asyncio.sleep(0)
            for name in passing:
                await engine.delete(f"r/{name}", durable=False)

    async with asyncio.TaskGroup() as group:
        group.create_task(churn())
        for _ in range(3):
            found: list[str] = []
            while page := await engine.children("r", found[-1] if found else "", 100):
                found += page
                await asyncio.sleep(0)
            assert found == sorted(set(found))
            assert set(lasting) <= set(found) <= {*lasting, *passing}
        done.set()


async def test_an_object_grows_across_appenders(engine: Engine) -> None:
    await begin(engine, "up/data")
    running = hashlib.sha256()
    for expected, piece in ((0, b"a" * PIECE), (PIECE, bytearray(b"bc")), (PIECE + 2, memoryview(b"d"))):
        async with engine.append("up/data") as appender:
            assert appender.size == expected
            await appender.write(piece, running)
        assert (await engine.stat("up/data")).size == expected + len(piece)
    whole = b"a" * PIECE + b"bcd"
    assert running.hexdigest() == hashlib.sha256(whole).hexdigest()
    async with engine.append("up/data") as appender:
        assert await everything(appender.read(1)) == whole[1:]
    await engine.move("up/data", "blob")
    assert await engine.read("blob", len(whole)) == whole


async def test_what_was_appended_can_be_taken_back(engine: Engine) -> None:
    await begin(engine, "data")
    async with engine.append("data") as appender:
        await appender.write(b"kept")
        await appender.write(b"not")
        await appender.truncate(4)
        assert appender.size == 4
        await appender.write(b"!")
    assert await engine.read("data", 10) == b"kept!"


async def test_one_appender_at_a_time(engine: Engine) -> None:
    await begin(engine, "data")
    held, release = asyncio.Event(), asyncio.Event()
    sizes: list[int] = []

    async def first() -> None:
        async with engine.append("data") as appender:
            held.set()
            await release.wait()
            await appender.write(b"12")

    async def second() -> None:
        await held.wait()
        async with engine.append("data") as appender:
            sizes.append(appender.size)
            await appender.write(b"3")

    async with asyncio.TaskGroup() as group:
        group.create_task(first())
        waiting = group.create_task(second())
        await held.wait()
        await asyncio.sleep(0)
        assert not waiting.done()
        release.set()
    assert sizes == [2]
    assert await engine.read("data", 10) == b"123"


async def test_who_waits_too_long_for_an_upload_hears_that_it_is_busy(engine: Engine) -> None:
    await begin(engine, "data")
    async with engine.append("data"):
        with pytest.raises(UploadBusy):
            async with engine.append("data"):
                pass


async def test_who_waited_for_an_object_that_was_moved_away_finds_nothing(engine: Engine) -> None:
    await begin(engine, "data")
    waiting = asyncio.Event()

    async def second() -> None:
        waiting.set()
        async with engine.append("data"):
            pass

    async with engine.append("data") as appender:
        task = asyncio.create_task(second())
        await waiting.wait()
        await appender.write(b"1")
        await engine.move("data", "blob")
    with pytest.raises(PathUnknown):
        await task


async def test_a_cancelled_append_leaves_whole_pieces_and_lets_go(engine: Engine) -> None:
    await begin(engine, "data")
    started = asyncio.Event()

    async def endless() -> None:
        async with engine.append("data") as appender:
            while True:
                await appender.write(b"x" * PIECE)
                started.set()
                await asyncio.sleep(0)

    task = asyncio.create_task(endless())
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with engine.append("data") as appender:
        assert appender.size == (await engine.stat("data")).size
        assert appender.size % PIECE == 0
        assert appender.size > 0


async def test_concurrent_writers_leave_one_of_their_values(engine: Engine) -> None:
    values = [bytes([65 + n]) * 5000 for n in range(12)]

    async def reader() -> None:
        for _ in range(100):
            assert await engine.read("a/b/link", 5000) in values
            await asyncio.sleep(0)

    await engine.write("a/b/link", values[0])
    async with asyncio.TaskGroup() as group:
        group.create_task(reader())
        for value in values:
            group.create_task(engine.write("a/b/link", value))
    assert await engine.read("a/b/link", 5000) in values


async def test_writes_survive_deletes_of_the_folder_they_go_to(engine: Engine) -> None:
    async def delete() -> None:
        for _ in range(30):
            await engine.delete("repo/tags/t")
            await asyncio.sleep(0)

    async def write() -> None:
        for n in range(30):
            await engine.write(f"repo/tags/t/{n}/link", b"x")

    async with asyncio.TaskGroup() as group:
        group.create_task(delete())
        group.create_task(write())
        group.create_task(write())
    await engine.write("repo/tags/t/current/link", b"last")
    assert await engine.read("repo/tags/t/current/link", 10) == b"last"
