"""Names of members are keys: they lead nowhere else, whatever they say."""

from __future__ import annotations

import tarfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.archive import members
from client.archive.headers import Entry, Kind
from client.archive.members import Extent, Members, digest_in, normal, scan
from ocispec.digest import Digest
from ocispec.errors import ArchiveInvalid, PathUnknown
from tests.client.archive.making import link, sized, tar


def scanned(folder: Path, *told: tuple[str, bytes] | tarfile.TarInfo) -> Members:
    (folder / "a.tar").write_bytes(tar(told))
    return scan(folder / "a.tar")


async def content(place: Extent | None) -> bytes:
    assert place is not None
    return await place.read()


async def test_files_are_found_where_they_lie(tmp_path: Path):
    found = scanned(tmp_path, ("./a", b"first"), ("b//c", b"second" * 1000), link("d", "", tarfile.DIRTYPE))
    assert await content(found.find("a")) == b"first"
    assert await content(found.find("b/c")) == b"second" * 1000
    assert found.find("d") is None
    assert b"".join([piece async for piece in found.find("b/c").pieces(1000)]) == b"second" * 1000


@pytest.mark.parametrize(
    "told",
    [
        link("x/layer.tar", "../y/layer.tar"),
        link("x/layer.tar", ".././y//layer.tar"),
        link("x/layer.tar", "y/layer.tar", tarfile.LNKTYPE),
    ],
)
async def test_links_lead_to_other_members(tmp_path: Path, told: tarfile.TarInfo):
    found = scanned(tmp_path, told, ("y/layer.tar", b"layer"))
    assert await content(found.find("x/layer.tar")) == b"layer"


@pytest.mark.parametrize(
    "told",
    [
        ("../a", b""),
        ("a/../../b", b""),
        ("a/../b", b""),
        ("/etc/passwd", b""),
        ("./", b""),
        link("a", "../b"),
        link("a/b", "../../c"),
        link("a", "/etc/passwd"),
        link("a/b", "../c", tarfile.LNKTYPE),
        link("../a", "b"),
    ],
)
def test_what_leads_out_of_the_archive_is_refused(tmp_path: Path, told: tuple[str, bytes] | tarfile.TarInfo):
    with pytest.raises(ArchiveInvalid, match="leads out of the archive"):
        scanned(tmp_path, told if isinstance(told, tarfile.TarInfo) or told[0] != "./" else ("/.", b""))


@given(st.text("ab./é\n"), st.text("ab./"), st.sampled_from([tarfile.SYMTYPE, tarfile.LNKTYPE]))
def test_no_name_and_no_link_ever_leads_out(name: str, target: str, kind: bytes):
    found = Members()
    with suppress(ArchiveInvalid):
        key = normal(name)
        assert key
        assert not key.startswith("/")
        assert not {"", ".", ".."} & set(key.split("/"))
        found.add_link(Entry(name, {tarfile.SYMTYPE: Kind.SYMLINK, tarfile.LNKTYPE: Kind.HARD_LINK}[kind], 0, target))
        assert found.find(key) is None


def test_links_in_a_circle_are_refused(tmp_path: Path):
    found = scanned(tmp_path, link("a", "b"), link("b", "a"))
    with pytest.raises(ArchiveInvalid, match="more than 16 links"):
        found.find("a")


@pytest.mark.parametrize("second", [("./a", b""), link("a", "b")])
def test_a_name_that_stands_twice_is_refused(tmp_path: Path, second: tuple[str, bytes] | tarfile.TarInfo):
    with pytest.raises(ArchiveInvalid, match="'a' stands in it twice"):
        scanned(tmp_path, ("a", b""), second)


def test_there_is_a_bound_on_members(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(members, "MAX_MEMBERS", 2)
    with pytest.raises(ArchiveInvalid, match="at most 2 members"):
        scanned(tmp_path, ("a", b""), ("b", b""), ("c", b""))


def test_a_body_that_is_not_there_is_noticed(tmp_path: Path):
    (tmp_path / "a.tar").write_bytes(sized("a", 10**6).tobuf() + bytes(1024))
    with pytest.raises(ArchiveInvalid, match="'a': expected 1000000 bytes, the archive ends before"):
        scan(tmp_path / "a.tar")


async def test_a_file_that_becomes_shorter_is_noticed(tmp_path: Path):
    place = scanned(tmp_path, ("a", b"x" * 5000)).find("a")
    (tmp_path / "a.tar").write_bytes(b"")
    with pytest.raises(ArchiveInvalid, match="expected 5000 bytes at 512, got 0: it became shorter"):
        await content(place)


async def test_a_file_that_is_not_there_is_said_to_be_so(tmp_path: Path):
    with pytest.raises(PathUnknown):
        scan(tmp_path / "none")
    with pytest.raises(PathUnknown):
        await Extent(tmp_path / "none", 0, 1).read()


def test_blobs_lie_where_a_layout_has_them():
    digest = Digest.of(b"")
    assert digest_in(f"blobs/sha256/{digest.hex}") == digest
    for name in (f"blobs/sha256/{digest.hex}/x", f"x/sha256/{digest.hex}", "blobs/sha256", f"blobs/md5/{digest.hex}"):
        assert digest_in(name) is None


def test_the_normal_form_of_a_name():
    assert normal("./a//b/./c/") == "a/b/c"
    with pytest.raises(ArchiveInvalid):
        normal("")
