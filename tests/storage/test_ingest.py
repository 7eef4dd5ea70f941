"""A blob on its way in: there whole or not at all."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocispec.digest import Digest
from ocispec.errors import ContentTruncated, DigestMismatch, StorageError
from storage.ingest import PIECE
from storage.layout import ImageLayout

DATA = bytes(range(256)) * 4096 * 4


@pytest.fixture
def layout(tmp_path: Path) -> ImageLayout:
    return ImageLayout(tmp_path / "cache")


async def take_in(layout: ImageLayout, data: bytes, *, digest: Digest, size: int, chunk: int = 300_000) -> None:
    async with layout.ingest(digest, size) as blob:
        for start in range(0, len(data), chunk):
            await blob.write(data[start : start + chunk])
        await blob.commit()


def files(layout: ImageLayout) -> list[Path]:
    return [each for each in layout.root.rglob("*") if each.is_file()]


@pytest.mark.parametrize("chunk", [70_000, PIECE, 2 * PIECE + 1])
@pytest.mark.parametrize("data", [b"", b"x", DATA], ids=["empty", "one byte", "4 MiB"])
async def test_a_blob_arrives_whole_whatever_its_pieces(layout: ImageLayout, data: bytes, chunk: int):
    digest = Digest.of(data)
    await take_in(layout, data, digest=digest, size=len(data), chunk=chunk)
    assert files(layout) == [layout.path(digest)]
    assert layout.path(digest).read_bytes() == data


async def test_other_bytes_leave_nothing(layout: ImageLayout):
    with pytest.raises(DigestMismatch, match="its content hashes to"):
        await take_in(layout, DATA, digest=Digest.of(b"x"), size=len(DATA))
    assert not files(layout)


async def test_too_few_bytes_leave_nothing(layout: ImageLayout):
    with pytest.raises(ContentTruncated, match=f"ended after 5 of {len(DATA)} bytes"):
        await take_in(layout, DATA[:5], digest=Digest.of(DATA), size=len(DATA))
    assert not files(layout)


async def test_a_sender_that_does_not_stop_is_cut_off(layout: ImageLayout):
    with pytest.raises(DigestMismatch, match="more than the expected 400000 bytes"):
        await take_in(layout, DATA, digest=Digest.of(DATA), size=400_000)
    assert not files(layout)


async def test_leaving_without_commit_leaves_nothing(layout: ImageLayout):
    async with layout.ingest(Digest.of(DATA), len(DATA)) as blob:
        await blob.write(DATA)
        await blob.write(b"")
    assert not files(layout)


async def test_a_new_blob_replaces_a_torn_one(layout: ImageLayout):
    digest = Digest.of(DATA)
    await layout.add(digest, DATA)
    layout.path(digest).write_bytes(b"torn")
    await take_in(layout, DATA, digest=digest, size=len(DATA))
    assert layout.path(digest).read_bytes() == DATA


async def test_a_full_disk_is_said_in_one_line():
    layout = ImageLayout(Path("/dev/full"))
    with pytest.raises(StorageError, match="/dev/full"):
        await take_in(layout, DATA, digest=Digest.of(DATA), size=len(DATA))


@settings(max_examples=60, deadline=None)
@given(steps=st.integers(0, 120))
def test_cancelled_at_any_step_it_is_there_whole_or_not_at_all(tmp_path_factory: pytest.TempPathFactory, steps: int):
    async def cancelled() -> None:
        layout = ImageLayout(tmp_path_factory.mktemp("cache"))
        digest = Digest.of(DATA)
        taking = asyncio.create_task(take_in(layout, DATA, digest=digest, size=len(DATA)))
        for _ in range(steps):
            await asyncio.sleep(0)
        taking.cancel()
        await asyncio.gather(taking, return_exceptions=True)
        assert all(each == layout.path(digest) and each.read_bytes() == DATA for each in files(layout))
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(cancelled())
