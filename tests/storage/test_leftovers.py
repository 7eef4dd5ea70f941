"""What lies in a layout and is no blob: found, measured, and removed unless somebody is at work on it."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from ocispec.digest import Digest
from ocispec.errors import StorageError
from storage.leftovers import Kind, Leftover, held, leftovers, remove
from storage.partials import Partials, folder_of, quarantine_of

BLOB = Digest.of(b"blob")


def partial(root: Path, data: bytes = b"some") -> Path:
    folder = folder_of(root, BLOB)
    folder.mkdir(parents=True)
    (folder / "data").write_bytes(data)
    (folder / "parts").write_text("0 4\n")
    return folder


def by_kind(root: Path) -> dict[Kind, Leftover]:
    return {each.kind: each for each in leftovers(root)}


def test_where_nothing_is_nothing_is_found(tmp_path: Path):
    assert leftovers(tmp_path) == []


def test_each_kind_is_found_with_its_bytes_on_disk(tmp_path: Path):
    folder = partial(tmp_path)
    with (folder / "data").open("r+b") as file:  # a part far behind, and a hole before it
        file.seek(50_000_000)
        file.write(b"x" * 4096)
    quarantine_of(tmp_path, BLOB).parent.mkdir(parents=True)
    quarantine_of(tmp_path, BLOB).write_bytes(b"bad")
    (tmp_path / ".ingest").mkdir()
    (tmp_path / ".ingest" / "1").write_bytes(b"12345")
    found = by_kind(tmp_path)
    assert (found[Kind.PARTIAL].path, found[Kind.QUARANTINED].size, found[Kind.SCRATCH].size) == (folder, 3, 5)
    assert 4096 <= found[Kind.PARTIAL].size < 1_000_000
    assert all(remove(each) for each in found.values())
    assert leftovers(tmp_path) == []
    assert not folder.exists()


def test_its_age_is_that_of_the_last_byte(tmp_path: Path):
    folder = partial(tmp_path)
    for each, age in ((folder, 10), (folder / "parts", 20), (folder / "data", 30)):
        os.utime(each, (age, age))
    assert by_kind(tmp_path)[Kind.PARTIAL].modified == 30


async def test_a_download_that_goes_on_is_held_and_stays(tmp_path: Path):
    folder = partial(tmp_path)
    (found,) = leftovers(tmp_path)
    async with Partials(tmp_path).opened(BLOB, 4):
        assert held(found)
        assert not remove(found)
        assert (folder / "data").exists()
    assert not held(found)
    assert remove(found)
    async with Partials(tmp_path).opened(BLOB, 4) as anew:
        assert anew.came == 0


def test_a_waiter_that_begins_anew_keeps_its_file(tmp_path: Path):
    folder = partial(tmp_path)
    (folder / "other").write_text("a file that came meanwhile")
    (found,) = leftovers(tmp_path)
    assert remove(found)
    assert [each.name for each in folder.iterdir()] == ["other"]


def test_what_crashes_and_others_leave_there_goes_too(tmp_path: Path):
    folder_of(tmp_path, BLOB).mkdir(parents=True)
    (tmp_path / ".partial" / "README").write_text("foreign")
    found = leftovers(tmp_path)
    assert len(found) == 2
    assert not any(held(each) for each in found)
    assert all(remove(each) for each in found)
    assert leftovers(tmp_path) == []


def test_links_are_not_followed(tmp_path: Path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("kept")
    (tmp_path / ".quarantine").mkdir()
    (tmp_path / ".quarantine" / "sha256").symlink_to(outside)
    (tmp_path / ".ingest").mkdir()
    (tmp_path / ".ingest" / "1").symlink_to(outside)
    found = leftovers(tmp_path)
    assert [each.size for each in found] == [0, 0]
    assert all(remove(each) for each in found)
    assert (outside / "kept").read_text() == "kept"
    assert leftovers(tmp_path) == []


def test_what_is_gone_when_it_is_looked_at_is_no_error(tmp_path: Path):
    folder = partial(tmp_path)
    (found,) = leftovers(tmp_path)
    fd = os.open(folder / "data", os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_SH)
    os.close(fd)
    assert remove(found)
    assert remove(found)
    assert not held(found)


def test_what_cannot_be_removed_is_named(tmp_path: Path):
    with pytest.raises(StorageError, match="File name too long"):
        remove(Leftover(Kind.SCRATCH, tmp_path / ("n" * 300), 0, 0))
