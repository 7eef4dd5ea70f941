"""What only files can get wrong: crashes, leftovers, descriptors, slow and failing disks."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from pathlib import Path

import pytest

from ocispec.errors import PathUnknown, StorageError, StorageFull
from storage import durable
from storage.engine import INLINE, PIECE
from storage.files import SCRATCH, SCRATCH_AGE, FilesEngine


@pytest.fixture
async def engine(tmp_path: Path) -> FilesEngine:
    made = FilesEngine(tmp_path)
    await made.start()
    return made


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def leftovers(root: Path) -> list[Path]:
    return list((root / SCRATCH).iterdir())


async def test_a_path_is_a_file_of_that_name(engine: FilesEngine, tmp_path: Path) -> None:
    await engine.write("docker/registry/v2/x/link", b"sha256:ab")
    assert (tmp_path / "docker/registry/v2/x/link").read_bytes() == b"sha256:ab"


async def test_nothing_temporary_is_left_behind(engine: FilesEngine, tmp_path: Path) -> None:
    await engine.write("a/b", b"1")
    await engine.write("a/b", b"2")
    await engine.delete("a")
    with pytest.raises(StorageError):
        await engine.write("a/" + "n" * 300, b"a name that no file system takes")
    assert leftovers(tmp_path) == []


async def test_start_removes_what_a_crash_left_a_day_ago(tmp_path: Path) -> None:
    scratch = tmp_path / SCRATCH
    scratch.mkdir(parents=True)
    old, young, grave = scratch / "old", scratch / "young", scratch / "grave"
    for each in (old, young):
        each.write_bytes(b"x")
    (grave / "below").mkdir(parents=True)
    past = time.time() - SCRATCH_AGE - 10
    for each in (old, grave):
        os.utime(each, (past, past))
    await FilesEngine(tmp_path).start()
    assert leftovers(tmp_path) == [young]


async def test_a_large_object_hands_its_descriptor_over_once(engine: FilesEngine) -> None:
    before = descriptors()
    await engine.write("big", b"x" * (INLINE + 1))
    content = await engine.open("big")
    fd = content.detach()
    assert fd is not None
    assert content.detach() is None
    await content.close()
    assert os.fstat(fd).st_size == INLINE + 1
    os.close(fd)
    assert descriptors() == before


async def test_reading_past_the_end_is_an_error_and_never_padding(engine: FilesEngine, tmp_path: Path) -> None:
    await engine.write("big", b"x" * (2 * PIECE))
    content = await engine.open("big")
    os.truncate(tmp_path / "big", PIECE)
    with pytest.raises(StorageError, match="ended"):
        async for _ in content.stream(0, 2 * PIECE):
            pass
    await content.close()
    with pytest.raises(StorageError, match="closed"):
        async for _ in content.stream(0, 1):
            pass


async def test_cancelled_opening_leaks_no_descriptor(engine: FilesEngine) -> None:
    await engine.write("big", b"x" * (INLINE + 1))
    engine.suspect()
    before = descriptors()
    for _ in range(50):
        opening = asyncio.create_task(engine.open("big"))
        await asyncio.sleep(0)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
    assert descriptors() == before


async def test_a_disk_that_lets_us_wait_is_asked_in_threads(engine: FilesEngine, tmp_path: Path) -> None:
    """A pipe without a writer stands for a disk that stalls: the loop must go on while it is read."""
    os.mkfifo(tmp_path / "stalls")
    engine.suspect()
    reading = asyncio.create_task(engine.read("stalls", 10))
    await asyncio.sleep(0.05)
    assert not reading.done()
    writer = threading.Thread(target=(tmp_path / "stalls").write_bytes, args=(b"at last",))
    writer.start()
    assert await reading == b"at last"
    writer.join()


async def test_an_error_of_the_disk_names_path_and_cause(engine: FilesEngine) -> None:
    with pytest.raises(StorageError, match="File name too long") as caught:
        await engine.write("n" * 300, b"x")
    assert not isinstance(caught.value, PathUnknown)
    with pytest.raises(StorageError, match="File name too long"):
        await engine.children("n" * 300)


@pytest.mark.peer("tmpfs")
async def test_a_full_disk_takes_nothing_of_the_piece_and_keeps_what_was_there(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "4m") as root:
        engine = FilesEngine(root)
        await engine.start()
        await engine.write("up/data", b"", durable=False)
        async with engine.append("up/data") as appender:
            await appender.write(b"x" * PIECE)
            with pytest.raises(StorageFull, match="No space left"):
                await appender.write(b"y" * (8 * PIECE))
            assert appender.size == PIECE
        with pytest.raises(StorageFull, match="No space left"):
            await engine.write("big", b"z" * (8 * PIECE))
        assert (await engine.stat("up/data")).size == PIECE
        assert leftovers(root) == []
        await engine.write("small", b"still works")


class small_disk:  # noqa: N801 - used like a function
    def __init__(self, folder: Path, size: str) -> None:
        self.folder, self.size = folder, size

    def __enter__(self) -> Path:
        self.folder.mkdir()
        assert os.spawnlp(os.P_WAIT, "mount", "mount", "-t", "tmpfs", "-o", f"size={self.size}", "t", self.folder) == 0
        return self.folder

    def __exit__(self, *_: object) -> None:
        assert os.spawnlp(os.P_WAIT, "umount", "umount", self.folder) == 0


def test_folders_known_as_durable_are_made_again_after_a_delete(tmp_path: Path) -> None:
    folders = durable.DurableFolders(tmp_path)
    folders.ensure(tmp_path / "a/b")
    (tmp_path / "a/b").rmdir()
    folders.ensure(tmp_path / "a/b")
    assert (tmp_path / "a/b").is_dir()


def test_moving_what_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        durable.move(tmp_path / "none", tmp_path / "target", durable.DurableFolders(tmp_path))
