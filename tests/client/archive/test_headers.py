"""Headers of tar: what tarfile writes is read as tarfile reads it, and what is none is refused."""

from __future__ import annotations

import io
import tarfile
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.archive.headers import BLOCK, MAX_EXTENDED, Entry, Kind, entries, padded
from ocispec.errors import ArchiveInvalid
from tests.client.archive.making import link, sized, tar

FORMATS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]
NAMES = st.text("abcé/.-", min_size=1, max_size=260).filter(lambda name: not name.endswith("/"))


def read(archive: bytes) -> list[tuple[Entry, bytes]]:
    """Drive the reader over bytes."""
    stream, reader, found = io.BytesIO(archive), entries(), []
    try:
        wanted = next(reader)
        while True:
            if isinstance(wanted, Entry):
                found.append((wanted, stream.read(padded(wanted.size))[: wanted.size]))
                wanted = reader.send(b"")
            else:
                wanted = reader.send(stream.read(wanted))
    except StopIteration:
        return found


@given(st.lists(st.tuples(NAMES, st.binary(max_size=1200)), max_size=4), st.sampled_from(FORMATS[1:]))
def test_files_are_read_as_they_were_written(files: list[tuple[str, bytes]], form: int):
    assert [(entry.name, body) for entry, body in read(tar(files, form))] == files


@given(st.binary(max_size=3000), st.integers(0, 2900), st.binary(min_size=1, max_size=60))
def test_damage_is_refused_or_read_but_never_anything_else(body: bytes, at: int, damage: bytes):
    archive = bytearray(tar([("é" * 120, body)]))
    archive[at : at + len(damage)] = damage
    with suppress(ArchiveInvalid):
        read(bytes(archive))


@pytest.mark.parametrize("form", FORMATS)
def test_links_folders_and_devices_have_no_body(form: int):
    device = sized("device", 0)
    device.type = tarfile.CHRTYPE
    told = [link("a", "../b"), link("c", "d", tarfile.LNKTYPE), device, ("file", b"x")]
    assert [(entry.name, entry.kind, entry.target) for entry, _ in read(tar(told, form))] == [
        ("a", Kind.SYMLINK, "../b"),
        ("c", Kind.HARD_LINK, "d"),
        ("device", Kind.OTHER, ""),
        ("file", Kind.FILE, ""),
    ]


def test_a_size_of_a_link_is_passed_over_as_go_does():
    header = sized("a", 700)
    header.type, header.linkname = tarfile.SYMTYPE, "b"
    archive = header.tobuf() + tar([("file", b"x")])
    assert [entry.name for entry, _ in read(archive)] == ["a", "file"]


@pytest.mark.parametrize("form", FORMATS[1:])
def test_long_names_and_targets_are_read(form: int):
    name, target = "long/" * 100 + "name", "far/" * 100 + "off"
    (found, _), (other, _) = read(tar([link(name, target), ("next", b"")], form))
    assert (found.name, found.target, other.name) == (name, target, "next")


def test_a_large_size_is_read_from_pax():
    reader, stream = entries(), io.BytesIO(sized("large", 9 * 1024**3).tobuf(tarfile.PAX_FORMAT))
    wanted = next(reader)
    while not isinstance(wanted, Entry):
        wanted = reader.send(stream.read(wanted))
    assert wanted == Entry("large", Kind.FILE, 9 * 1024**3)


def test_names_that_are_not_utf_8_are_escaped():
    archive = tar([("caf\udce9", b"")], tarfile.GNU_FORMAT)
    assert read(archive)[0][0].name == "caf\\xe9"


def test_other_records_of_pax_are_passed_over():
    assert [entry.name for entry, _ in read(pax(b"13 comment=x\n11 path=ab\n"))] == ["ab"]


def test_a_global_header_changes_no_name():
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", pax_headers={"path": "all"}) as archive:
        archive.addfile(tarfile.TarInfo("one"))
    assert [entry.name for entry, _ in read(made.getvalue())] == ["one"]


@pytest.mark.parametrize("end", [b"", bytes(512), bytes(10240)])
def test_an_archive_ends_with_its_blocks_or_its_bytes(end: bytes):
    assert [entry.name for entry, _ in read(sized("a", 0).tobuf() + end)] == ["a"]


def pax(records: bytes, size: int | None = None) -> bytes:
    header = sized("pax", len(records) if size is None else size)
    header.type = tarfile.XHDTYPE
    return header.tobuf() + records + bytes(padded(len(records)) - len(records)) + tar([("file", b"")])


def typed(kind: bytes) -> bytes:
    header = sized("file", 0)
    header.type = kind
    return header.tobuf()


@pytest.mark.parametrize(
    ("archive", "message"),
    [
        (b"", "expected an archive, it is empty"),
        (b"no tar", "found no header of one: truncated header"),
        (b"x" * BLOCK, "found no header of one: invalid header"),
        (pax(b"", MAX_EXTENDED + 1), f"expected an extended header of at most {MAX_EXTENDED} bytes"),
        (pax(b"9 path=a\n")[: BLOCK + 3], "ends in the middle of an extended header"),
        (pax(b"8 path=a\n"), "breaks the grammar of pax"),
        (pax(b"99 path=a\n"), "breaks the grammar of pax"),
        (pax(b"path=a\n"), "breaks the grammar of pax"),
        (pax(b"x path=a\n"), "breaks the grammar of pax"),
        (pax(b"3 \n"), "breaks the grammar of pax"),
        (pax(b"1 path=a\n"), "breaks the grammar of pax"),
        (pax(b"11 size=-1\n"), "'file': expected a size, got '-1'"),
        (pax(b"12 size=1e9\n"), "'file': expected a size, got '1e9'"),
        (pax(b"31 size=9999999999999999999999\n"), "expected a size"),
        (typed(tarfile.GNUTYPE_SPARSE), "sparse files are not supported"),
        (typed(b"M"), "archives of several volumes are not supported"),
    ],
)
def test_what_is_no_archive_is_refused(archive: bytes, message: str):
    with pytest.raises(ArchiveInvalid, match=message):
        read(archive)


def test_a_negative_size_is_refused():
    header = bytearray(sized("a", 1).tobuf())
    header[124:136] = b"\xff" * 12
    header[148:156] = b"%06o\0 " % (sum(header[:148]) + sum(header[156:]) + 8 * 32)
    with pytest.raises(ArchiveInvalid, match="'a': expected a size, got -1"):
        read(bytes(header))
