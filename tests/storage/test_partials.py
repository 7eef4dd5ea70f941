"""Blobs in parts: in any order, by several threads, after any end, and never the wrong bytes."""

from __future__ import annotations

import asyncio
import errno
import os
import random
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import pytest

from ocispec.digest import Digest
from ocispec.errors import ContentTruncated, DigestMismatch, StorageError, StorageFull
from storage import partials
from storage.partials import RECORD_EVERY, Partial, Partials, folder_of, quarantine_of
from tests.support.host import open_files
from tests.support.processes import REPOSITORY_ROOT
from tests.support.steps import cancelled_at
from tests.support.tmpfs import tmpfs

KIB = 1024
DATA = random.Random(1).randbytes(700 * KIB)
DIGEST = Digest.of(DATA)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "layout"


@pytest.fixture
def store(root: Path) -> Partials:
    return Partials(root)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "layout" / "blobs" / "sha256" / DIGEST.hex


def bring(partial: Partial, start: int, end: int, data: bytes = DATA, piece: int = 64 * KIB) -> None:
    """Gives one part, in pieces, and records it."""
    part = partial.part(start, end)
    for at in range(start, end, piece):
        part.take(memoryview(data)[at : min(at + piece, end)])
    part.close()


def files(root: Path) -> list[Path]:
    return [each for each in root.rglob("*") if each.is_file()]


def record(root: Path) -> Path:
    return folder_of(root, DIGEST) / "parts"


@pytest.mark.parametrize("seed", range(6))
async def test_parts_in_any_order_give_the_right_hash(store: Partials, root: Path, target: Path, seed: int):
    chance = random.Random(seed)
    cuts = [0, *sorted(chance.sample(range(1, len(DATA)), 9)), len(DATA)]
    spans = list(pairwise(cuts))
    chance.shuffle(spans)
    async with store.opened(DIGEST, len(DATA)) as partial:
        for came, (start, end) in enumerate(spans):
            assert partial.came == sum(right - left for left, right in spans[:came])
            bring(partial, start, end, piece=chance.randint(1, 200 * KIB))
        assert partial.missing(KIB) == []
        partial.verify()
        await store.keep(partial, target)
    assert target.read_bytes() == DATA
    assert files(root) == [target]
    assert not folder_of(root, DIGEST).exists()


async def test_parts_of_several_threads_at_once_give_the_right_hash(store: Partials, target: Path):
    data = random.Random(2).randbytes(16_000 * KIB)
    together = threading.Barrier(5)

    def worker(partial: Partial, number: int) -> None:
        together.wait(30)
        for at in range(number * 500 * KIB, len(data), 2_000 * KIB):
            bring(partial, at, at + 500 * KIB, data)

    async with store.opened(Digest.of(data), len(data)) as partial:
        with ThreadPoolExecutor(4) as pool:
            done = [pool.submit(worker, partial, number) for number in range(4)]
            together.wait(30)
            while not all(each.done() for each in done):
                assert 0 <= partial.came <= len(data)
        for each in done:
            each.result()
        assert partial.came == len(data)
        partial.verify()
        await store.keep(partial, target)
    assert target.read_bytes() == data


async def test_what_was_recorded_is_not_missing_the_next_time(store: Partials, root: Path, target: Path):
    async with store.opened(DIGEST, len(DATA)) as partial:
        bring(partial, 100 * KIB, 300 * KIB)
        bring(partial, 600 * KIB, 700 * KIB)
        partial.part(0, 5).take(memoryview(DATA)[:5])  # ends without record, as at kill -9
    async with Partials(root).opened(DIGEST, len(DATA)) as partial:
        assert partial.came == 300 * KIB
        limit = 250 * KIB
        assert partial.missing(limit) == [(0, 100 * KIB), (300 * KIB, limit), (550 * KIB, 50 * KIB)]
        for offset, length in partial.missing(limit):
            bring(partial, offset, offset + length)
        partial.verify()
        await store.keep(partial, target)
    assert target.read_bytes() == DATA


async def test_a_long_part_is_recorded_while_it_comes(store: Partials, root: Path):
    data = memoryview(bytes(RECORD_EVERY + 2 * KIB))
    async with store.opened(DIGEST, 3 * RECORD_EVERY) as partial:
        part = partial.part(KIB, 3 * RECORD_EVERY)
        part.take(data[: RECORD_EVERY - 1])
        assert record(root).read_text() == ""
        part.take(data[:2])
        assert record(root).read_text() == f"{KIB} {RECORD_EVERY + 1}\n"
        part.take(data[:3])
        part.close()
        part.close()
        assert record(root).read_text() == f"{KIB} {RECORD_EVERY + 1}\n{KIB + RECORD_EVERY + 1} 3\n"


@pytest.mark.parametrize(
    ("torn", "came"),
    [("0 1000\n2000 10", 1010), ("0 1000\n20", 1000), ("0 1000\n2000 ", 1000), ("0 1000\n-", 1000), ("", 0)],
)
async def test_a_torn_last_line_is_no_harm_to_those_that_follow(store: Partials, root: Path, torn: str, came: int):
    async with store.opened(DIGEST, len(DATA)) as partial:
        bring(partial, 0, 3000)
    record(root).write_text(torn)
    async with store.opened(DIGEST, len(DATA)) as partial:
        assert partial.came == came
        bring(partial, 5000, 6000)
    async with store.opened(DIGEST, len(DATA)) as partial:
        assert partial.came == came + 1000


@pytest.mark.parametrize(
    "lie",
    [b"0 99999999\n", b"-5 10\n", b"0 0\n", b"0 -1\n", b"1 2 3\n", b"x y\n", b"\xff\xfe\n", b"9" * 5000 + b" 1\n"],
)
async def test_a_record_of_what_cannot_be_there_is_not_believed_and_not_kept(store: Partials, root: Path, lie: bytes):
    async with store.opened(DIGEST, len(DATA)) as partial:
        bring(partial, 10, 20)
    record(root).write_bytes(lie + b"10 10\n")
    async with store.opened(DIGEST, len(DATA)) as partial:
        assert partial.came == 10
        assert record(root).read_bytes() == b"10 10\n"


async def test_a_line_that_is_true_only_once_the_file_has_grown_stays_a_lie(store: Partials, root: Path):
    async with store.opened(DIGEST, len(DATA)) as partial:
        bring(partial, 0, 1000)
    # Power loss: the record reached the disk, the bytes did not.
    os.truncate(folder_of(root, DIGEST) / "data", 0)
    async with store.opened(DIGEST, len(DATA)) as partial:
        assert partial.came == 0
        bring(partial, 5000, 6000)
    async with store.opened(DIGEST, len(DATA)) as partial:
        assert partial.missing(5000)[0] == (0, 5000)


async def test_bytes_that_the_record_only_claims_are_found_out_and_quarantined(store: Partials, root: Path):
    async with store.opened(DIGEST, len(DATA)) as partial:
        bring(partial, len(DATA) - 1, len(DATA))
    record(root).write_text(f"0 {len(DATA)}\n")
    async with store.opened(DIGEST, len(DATA)) as partial:
        assert partial.missing(1) == []
        with pytest.raises(DigestMismatch, match=f"expected {DIGEST}, its content hashes to sha256:"):
            partial.verify()
        await store.quarantine(partial, DIGEST)
    assert files(root) == [quarantine_of(root, DIGEST)]
    async with store.opened(DIGEST, len(DATA)) as partial:
        assert partial.came == 0


async def test_a_file_that_grew_longer_than_the_blob_is_cut(store: Partials, root: Path, target: Path):
    # Another image gave another size for the same digest.
    async with store.opened(DIGEST, 2 * len(DATA)) as partial:
        bring(partial, 0, 10)
        bring(partial, len(DATA), len(DATA) + 10, DATA * 2)
    async with store.opened(DIGEST, len(DATA)) as partial:
        assert partial.came == 10
        bring(partial, 10, len(DATA))
        partial.verify()
        await store.keep(partial, target)
    assert target.read_bytes() == DATA


async def test_what_is_not_all_there_is_not_verified(store: Partials, root: Path):
    async with store.opened(DIGEST, len(DATA)) as partial:
        bring(partial, 0, 10)
        bring(partial, 20, 30)
        with pytest.raises(ContentTruncated, match=f"ended after 10 of {len(DATA)} bytes"):
            partial.verify()
        bring(partial, 10, 20)
        bring(partial, 30, len(DATA))
        partial.verify()


async def test_bytes_that_somebody_took_away_are_missed(store: Partials, root: Path):
    async with store.opened(DIGEST, len(DATA)) as partial:
        bring(partial, 500, len(DATA))
        os.truncate(folder_of(root, DIGEST) / "data", 1000)
        bring(partial, 0, 500)
        with pytest.raises(DigestMismatch, match="ends before"):
            partial.verify()


async def test_a_part_takes_no_byte_that_belongs_to_the_next(store: Partials):
    async with store.opened(DIGEST, len(DATA)) as partial:
        bring(partial, 100, 200)
        part = partial.part(0, 100)
        part.take(memoryview(DATA)[:99])
        with pytest.raises(DigestMismatch, match="more than the expected 100 of"):
            part.take(memoryview(b"xy"))
        bring(partial, 99, 100)
        bring(partial, 200, len(DATA))
        partial.verify()


async def test_a_blob_that_comes_from_its_first_byte_again_is_hashed_again(store: Partials, root: Path):
    async with store.opened(DIGEST, len(DATA)) as partial:
        bring(partial, 0, 500)
        part = partial.part(500, 900)
        part.restart()
        assert (part.at, part.end, partial.came) == (0, len(DATA), 0)
        part.take(memoryview(b"x" * 500))  # not the bytes that were hashed
        bring(partial, 500, len(DATA))
        with pytest.raises(DigestMismatch):
            partial.verify()


async def test_clearing_forgets_everything(store: Partials, root: Path):
    async with store.opened(DIGEST, len(DATA)) as partial:
        bring(partial, 0, 500, b"x" * 500)
        partial.clear()
        assert (partial.came, partial.missing(len(DATA))) == (0, [(0, len(DATA))])
    async with store.opened(DIGEST, len(DATA)) as partial:
        assert partial.came == 0
        bring(partial, 0, len(DATA))
        partial.verify()


async def test_an_empty_blob_misses_nothing(store: Partials, tmp_path: Path):
    empty = Digest.of(b"")
    async with store.opened(empty, 0) as partial:
        assert partial.missing(1) == []
        partial.verify()
        await store.keep(partial, tmp_path / "empty")
    assert (tmp_path / "empty").read_bytes() == b""


async def test_what_a_partial_takes_on_disk_is_told(store: Partials, root: Path):
    assert store.held(DIGEST) == 0
    async with store.opened(DIGEST, len(DATA)) as partial:
        bring(partial, 400 * KIB, 600 * KIB)
        # Not what lies before it, which is a hole.
        assert 200 * KIB <= store.held(DIGEST) < 300 * KIB
        partial.discard()
    assert (store.held(DIGEST), files(root)) == (0, [])


async def test_a_second_task_waits_and_finds_the_blob(store: Partials, root: Path, target: Path):
    order = []

    async def second() -> None:
        async with Partials(root).opened(DIGEST, len(DATA)) as partial:
            order.append("second")
            assert target.read_bytes() == DATA
            assert partial.came == 0
            partial.discard()

    async with store.opened(DIGEST, len(DATA)) as partial:
        waiting = asyncio.create_task(second())
        await asyncio.sleep(0.01)
        bring(partial, 0, len(DATA))
        partial.verify()
        order.append("first")
        await store.keep(partial, target)
    await waiting
    assert order == ["first", "second"]
    assert files(root) == [target]


async def test_another_process_waits_until_this_one_has_ended(store: Partials, root: Path):
    code = f"""if True:
        import asyncio
        from pathlib import Path
        from ocispec.digest import Digest
        from storage.partials import Partials
        async def main():
            print("begins", flush=True)
            async with Partials(Path({str(root)!r})).opened(Digest.parse({str(DIGEST)!r}), {len(DATA)}) as partial:
                print(partial.came, flush=True)
        asyncio.run(main())
    """
    async with store.opened(DIGEST, len(DATA)) as partial:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", code, stdout=subprocess.PIPE, cwd=REPOSITORY_ROOT
        )
        assert process.stdout
        assert await process.stdout.readline() == b"begins\n"
        bring(partial, 0, 12345)
    # It looked only after we had ended, or it would not have found so much.
    assert await process.stdout.readline() == b"12345\n"
    assert await process.wait() == 0


async def test_who_waits_while_bytes_go_to_quarantine_keeps_its_own_files(store: Partials, root: Path, target: Path):
    """The one that ends must not remove what the one that waited has made under the same names meanwhile."""
    folder = folder_of(root, DIGEST)
    async with store.opened(DIGEST, len(DATA)) as partial:
        bring(partial, 0, 5)
        moved, made = partials.durable.move, []

        def move(*arguments: object) -> None:
            moved(*arguments)
            made.append(partials._locked(folder))
            record(root).write_text("theirs")

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(partials.durable, "move", move)
            await store.quarantine(partial, DIGEST)
    assert made != [None]
    assert os.path.samestat(os.fstat(made[0]), (folder / "data").stat())
    assert record(root).read_text() == "theirs"
    os.close(made[0])


async def test_a_lock_on_a_file_that_was_moved_away_counts_for_nothing(
    store: Partials, root: Path, monkeypatch: pytest.MonkeyPatch
):
    locked, folder = partials.fcntl.flock, folder_of(root, DIGEST)

    def flock(fd: int, kind: int) -> None:
        monkeypatch.undo()
        (folder / "data").unlink()  # between opening and locking
        locked(fd, kind)

    monkeypatch.setattr(partials.fcntl, "flock", flock)
    async with store.opened(DIGEST, len(DATA)) as partial:
        bring(partial, 0, 10)
        assert (folder / "data").stat().st_size == 10


async def test_a_folder_that_goes_away_before_it_is_used_is_made_again(
    store: Partials, root: Path, monkeypatch: pytest.MonkeyPatch
):
    opened, folder = os.open, folder_of(root, DIGEST)

    def vanishing(path: Path, *arguments: int) -> int:
        if path == folder / "data":
            monkeypatch.undo()
            folder.rmdir()
        return opened(path, *arguments)

    monkeypatch.setattr(partials.os, "open", vanishing)
    async with store.opened(DIGEST, len(DATA)) as partial:
        bring(partial, 0, 10)
    assert (folder / "data").exists()


async def test_cancelled_at_any_step_it_holds_nothing_and_loses_nothing_recorded(root: Path, target: Path):
    async def work() -> None:
        store = Partials(root)
        async with store.opened(DIGEST, len(DATA)) as partial:
            for offset, length in partial.missing(300 * KIB):
                await partials.finish(bring, partial, offset, offset + length)
            await partials.finish(partial.verify)
            await store.keep(partial, target)

    came, step = 0, 0
    while not target.exists():
        step += 1
        await cancelled_at(step, work())
        assert open_files(root) == 0
        if not target.exists():
            async with Partials(root).opened(DIGEST, len(DATA)) as partial:
                assert partial.came >= came
                came = partial.came
    assert step > 5
    assert target.read_bytes() == DATA
    assert files(root) == [target]


async def test_cancelled_while_it_waits_it_leaves_the_lock_to_others(store: Partials, root: Path):
    async def wait() -> None:
        async with store.opened(DIGEST, len(DATA)):
            raise NotImplementedError

    async with store.opened(DIGEST, len(DATA)):
        waiting = asyncio.create_task(wait())
        await asyncio.sleep(2 * partials.LOCK_POLL)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    async with store.opened(DIGEST, len(DATA)):
        pass


async def test_a_record_that_cannot_be_read_leaves_no_file_open(store: Partials, root: Path):
    record(root).mkdir(parents=True)
    with pytest.raises(StorageError, match=str(folder_of(root, DIGEST))):
        async with store.opened(DIGEST, len(DATA)):
            raise NotImplementedError
    assert open_files(root) == 0


async def test_a_root_that_is_a_file_is_named(root: Path):
    root.write_text("")
    with pytest.raises(StorageError, match=str(root)):
        async with Partials(root).opened(DIGEST, 1):
            raise NotImplementedError


async def test_a_write_in_several_pieces_puts_each_at_its_place(
    store: Partials, target: Path, monkeypatch: pytest.MonkeyPatch
):
    written = os.pwrite
    monkeypatch.setattr(partials.os, "pwrite", lambda fd, data, at: written(fd, data[:1000], at))
    async with store.opened(DIGEST, len(DATA)) as partial:
        bring(partial, 0, len(DATA))
        partial.verify()
        await store.keep(partial, target)
    assert target.read_bytes() == DATA


@pytest.mark.peer("tmpfs")
async def test_a_full_disk_says_so_and_what_came_can_be_thrown_away(tmp_path: Path):
    with tmpfs(tmp_path / "small", 512 * KIB) as root:
        store = Partials(root)
        async with store.opened(DIGEST, len(DATA)) as partial:
            with pytest.raises(StorageFull, match=os.strerror(errno.ENOSPC)):
                bring(partial, 0, len(DATA))
            assert partial.came <= 512 * KIB
            partial.discard()
        assert files(root) == []
