"""Where a save goes: files, folders, devices and pipes; whole, or left as they were."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from client.archive.choosing import choose
from client.archive.formats import Format
from client.archive.loading import load
from client.archive.saving import save
from client.archive.writing import TarWriter
from client.caching.cache import Cache
from ocispec.errors import (
    ContentTruncated,
    PathUnknown,
    StorageError,
    StorageFull,
)
from ocispec.reference import Reference
from tests.client.archive.making import (
    blobs_in,
    cancelled_everywhere,
    files_in,
    image,
    keep,
)
from tests.client.archive.test_saving import ARM, IMAGE, NAME, saved


async def test_a_folder_that_is_not_there_is_said(cache: Cache, tmp_path: Path):
    await keep(cache, NAME, IMAGE)
    with pytest.raises(PathUnknown, match=r"none/x: its folder does not exist"):
        await save(cache, ["a:1"], tmp_path / "none" / "x")
    with pytest.raises(PathUnknown, match=r"none/x: its folder does not exist"):
        await save(cache, ["a:1"], tmp_path / "none" / "x", format="oci")
    with pytest.raises(StorageError, match=r"is a folder, expected a file"):
        await save(cache, ["a:1"], tmp_path)


async def test_a_link_stays_one_and_a_device_too(cache: Cache, tmp_path: Path):
    await keep(cache, NAME, IMAGE)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "null").symlink_to("/dev/null")
    for name in ("link", "null"):
        await save(cache, ["a:1"], tmp_path / name)
        assert (tmp_path / name).is_symlink()
    assert files_in((tmp_path / "real").read_bytes())
    assert Path("/dev/null").is_char_device()


async def test_a_full_device_is_one_line(cache: Cache):
    await keep(cache, NAME, IMAGE)
    with pytest.raises(StorageFull, match=r"^/dev/full: No space left on device$"):
        await save(cache, ["a:1"], "/dev/full")


@pytest.mark.peer("tmpfs")
@pytest.mark.parametrize("form", Format)
async def test_a_full_disk_is_one_line_and_leaves_nothing(cache: Cache, tmpfs: Path, form: Format):
    (tmpfs / "other").write_bytes(bytes((4 << 20) - 16384))
    await keep(cache, NAME, image(*"abcdefghij", packed="plain"))
    with pytest.raises(StorageFull, match=r"No space left on device"):
        await save(cache, ["a:1"], tmpfs / "saved", format=form)
    assert [each.name for each in tmpfs.iterdir()] == ["other"]


async def test_a_layout_that_is_there_gets_the_image_added(cache: Cache, tmp_path: Path):
    await keep(cache, NAME, IMAGE)
    await keep(cache, "a.example/arm:1", ARM)
    for name in ("a:1", "a.example/arm:1", "a:1"):
        await save(cache, [name], tmp_path / "layout", format="oci")
    other = Cache(tmp_path / "layout")
    assert {each.name for each in await other.images()} == {NAME, "a.example/arm:1"}
    assert blobs_in(other) == blobs_in(cache)


async def test_a_new_layout_is_that_and_nothing_more(cache: Cache, tmp_path: Path):
    await keep(cache, NAME, IMAGE)
    (tmp_path / "layout").mkdir()
    await save(cache, ["a:1"], tmp_path / "layout", format="oci")
    assert {each.name for each in (tmp_path / "layout").iterdir()} == {"oci-layout", "index.json", "blobs"}
    assert (tmp_path / "layout").stat().st_mode & 0o777 == 0o777 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


async def test_what_is_no_layout_is_left_alone(cache: Cache, tmp_path: Path):
    await keep(cache, NAME, IMAGE)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(StorageError, match=r"file is a file, expected an OCI layout's folder or nothing"):
        await save(cache, ["a:1"], tmp_path / "file", format="oci")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_text("mine")
    with pytest.raises(StorageError, match=r"folder is no OCI layout, expected one, an empty folder or nothing"):
        await save(cache, ["a:1"], tmp_path / "folder", format="oci")


@pytest.mark.parametrize("form", Format)
async def test_a_save_that_is_cancelled_anywhere_leaves_nothing_half(cache: Cache, tmp_path: Path, form: Format):
    await keep(cache, NAME, image("x", "y", packed="zstd"))
    (tmp_path / "out").mkdir()
    target = tmp_path / "out" / "saved"
    async for moment, _ in cancelled_everywhere(lambda: save(cache, ["a:1"], target, format=form)):
        if target.exists():
            assert list((tmp_path / "out").iterdir()) == [target]
            await load(Cache(tmp_path / f"other{moment}"), target)
            break
        assert list((tmp_path / "out").iterdir()) == []
    assert moment > 15


async def test_a_blob_that_changes_its_size_meanwhile_is_noticed(cache: Cache):
    await keep(cache, NAME, IMAGE)
    chosen = await choose(cache, Reference.parse(NAME), None, everything=False)
    cache.layout.path(chosen.blobs[0].digest).write_bytes(b"{}")

    async def nowhere(_data: bytes) -> None:
        pass

    async with chosen.content.stream(chosen.blobs[0]) as pieces:
        with pytest.raises(ContentTruncated, match="x: expected 9 bytes, 2 came"):
            await TarWriter(nowhere).stream("x", 9, pieces)


@pytest.mark.parametrize("form", [Format.OCI_ARCHIVE])
async def test_a_pipe_gets_it_all_and_a_stalled_one_is_let_go_at_once(cache: Cache, tmp_path: Path, form: Format):
    await keep(cache, NAME, image(*"abcdefgh", packed="plain"))
    whole = await saved(cache, tmp_path, "a:1", format=form)
    reading, writing = os.pipe()
    running = asyncio.create_task(save(cache, ["a:1"], writing, format=form))
    # Nobody reads: the pipe is full once more than a header came.
    head = await asyncio.to_thread(os.read, reading, 512)
    await asyncio.sleep(0.05)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert os.get_blocking(writing)
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        assert whole.startswith(head + file.read())

    reading, writing = os.pipe()
    running = asyncio.create_task(save(cache, ["a:1"], writing, format=form))
    running.add_done_callback(lambda _: os.close(writing))
    with os.fdopen(reading, "rb") as file:
        assert await asyncio.to_thread(file.read) == whole
    await running


async def test_a_reader_that_goes_is_one_line(cache: Cache):
    await keep(cache, NAME, IMAGE)
    reading, writing = os.pipe()
    os.close(reading)
    with pytest.raises(StorageError, match=rf"^file descriptor {writing}: Broken pipe$"):
        await save(cache, ["a:1"], writing)
    os.close(writing)


async def test_a_named_pipe_without_a_reader_is_not_waited_for(cache: Cache, tmp_path: Path):
    await keep(cache, NAME, IMAGE)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(StorageError, match=r"pipe: No such device or address"):
        await save(cache, ["a:1"], tmp_path / "pipe")
