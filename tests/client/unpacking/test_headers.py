"""Headers of tars: what three formats say, what is refused, and that nothing unbounded is read."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.unpacking.headers import MAX_EXTENDED, Entry, Kind, entries
from client.unpacking.source import Source
from ocispec.errors import LayerInvalid
from tests.client.unpacking.making import file, folder, hard_link, symlink, tar


def read(data: bytes, piece: int = 700) -> list[tuple[Entry, bytes]]:
    source = Source(data[at : at + piece] for at in range(0, len(data), piece))
    return [(each, b"".join(source.body(each.size))) for each in entries(source)]


def header(flag: bytes = b"0", name: bytes = b"x", **fields: bytes) -> bytes:
    """One header, whose fields are as they are told, with the right checksum."""
    info = tarfile.TarInfo(name.decode())
    info.type = flag
    block = bytearray(info.tobuf(tarfile.USTAR_FORMAT)[:512])
    places = {"mode": 100, "uid": 108, "gid": 116, "size": 124, "mtime": 136, "magic": 257, "major": 329, "prefix": 345}
    for field, value in fields.items():
        block[places[field] : places[field] + len(value)] = value
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def extended(body: bytes, flag: bytes = b"x") -> bytes:
    return header(flag, size=b"%011o\0" % len(body)) + body.ljust(-(-len(body) // 512) * 512, b"\0")


def record(keyword: bytes, value: bytes) -> bytes:
    rest = b" " + keyword + b"=" + value + b"\n"
    length = len(rest) + 1
    while len(str(length)) + len(rest) != length:
        length = len(str(length)) + len(rest)
    return str(length).encode() + rest


def refused(data: bytes) -> str:
    with pytest.raises(LayerInvalid) as caught:
        read(data)
    return caught.value.message


NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=220).filter(
    lambda name: name.strip("/") and not name.endswith("/") and name.isprintable()
)


@given(
    NAMES,
    NAMES,
    st.integers(0, 0o7777),
    st.integers(0, 2**32 - 2),
    st.integers(-(2**33), 2**40),
    st.binary(max_size=1500),
    st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]),
)
def test_what_tarfile_writes_is_read(name, target, mode, uid, mtime, data, form):  # noqa: PLR0917 - hypothesis
    members = [
        file(name, data, mode, uid=uid, gid=uid, mtime=mtime),
        symlink("s", target, uid=uid),
        hard_link("h", target),
        folder(name, mode),
    ]
    (one, body), (two, _), (three, _), (four, _) = read(tar(*members, form=form))
    assert (one.name, one.kind, body) == (name.encode(), Kind.FILE, data)
    told = one.attributes
    assert (told.mode, told.uid, told.gid, told.mtime) == (mode, uid, uid, mtime * 10**9)
    assert (two.kind, two.target) == (Kind.SYMLINK, target.encode())
    assert (three.kind, three.target) == (Kind.HARD_LINK, target.encode())
    assert (four.kind, four.name.rstrip(b"/")) == (Kind.FOLDER, name.encode())


@given(st.binary(max_size=3000))
def test_what_is_no_tar_is_refused_in_one_way(data: bytes):
    try:
        read(data)
    except LayerInvalid as error:
        message = error.message
    else:
        message = "" if any(data) else "empty"
    assert len(message.splitlines()) == 1


@given(st.data())
def test_a_header_with_any_byte_changed_is_refused_or_read(data):
    whole = bytearray(tar(file("a" * 150, b"data", xattrs={"user.x": "y"}), symlink("s", "t")))
    at = data.draw(st.integers(0, len(whole) - 1))
    whole[at] = data.draw(st.integers(0, 255))
    try:
        message = str(read(bytes(whole)))
    except LayerInvalid as error:
        message = error.message
    assert message


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, 4000])
def test_content_that_is_left_is_passed_over(size: int):
    data = tar(file("a", b"x" * size), file("b", b"y"))
    source = Source(iter([data]))
    assert [each.name for each in entries(source)] == [b"a", b"b"]
    source.drain()
    assert source.position == len(data)


def test_an_empty_layer_has_no_entries():
    for data in (b"", bytes(512), bytes(1024), bytes(10240)):
        assert read(data) == []


def test_fractions_of_seconds_are_kept():
    body = record(b"mtime", b"12.345678901234") + record(b"atime", b"1")
    ((entry, _),) = read(extended(body) + header())
    assert entry.attributes.mtime == 12_345_678_901
    ((entry, _),) = read(extended(record(b"mtime", b"-1.5")) + header())
    assert entry.attributes.mtime == -1_500_000_000
    ((entry, _),) = read(header(mtime=b"\x80" + b"\x7f" * 11))
    assert entry.attributes.mtime == 2**62 * 10**9
    ((entry, _),) = read(header(mtime=b"\xff" * 12))
    assert entry.attributes.mtime == -(10**9)


def test_what_pax_tells_wins_over_the_header_and_empty_values_say_nothing():
    body = record(b"path", b"long") + record(b"uid", b"3000000") + record(b"gid", b"7") + record(b"linkpath", b"to")
    ((entry, _),) = read(extended(body) + header(b"2", b"short"))
    assert (entry.name, entry.target, entry.attributes.uid, entry.attributes.gid) == (b"long", b"to", 3_000_000, 7)
    ((entry, _),) = read(extended(record(b"path", b"")) + header(b"0", b"short"))
    assert entry.name == b"short"
    ((entry, body),) = read(extended(record(b"size", b"3")) + header() + b"abc".ljust(512, b"\0"))
    assert body == b"abc"
    ((entry, _),) = read(extended(record(b"path", b"a")) + extended(b"b\0", b"L") + header())
    assert entry.name == b"b"


def test_a_global_header_tells_nothing_of_an_entry():
    """Go's reader and docker pass over it; whoever does not would see other names in the same bytes."""
    ((entry, _),) = read(extended(record(b"path", b"other"), b"g") + header(b"0", b"mine"))
    assert entry.name == b"mine"


def test_attributes_are_bytes():
    body = record(b"SCHILY.xattr.security.capability", b"\x01\0\n=\xff")
    ((entry, _),) = read(extended(body) + header())
    assert entry.attributes.xattrs == ((b"security.capability", b"\x01\0\n=\xff"),)


def test_the_first_part_of_a_long_name_is_the_posix_formats_alone():
    times = b"00000000001\0" * 2
    for magic, prefix, name in (
        (b"ustar\00000", b"first/part\0", b"first/part/x"),
        (b"ustar  \0", times, b"x"),
        (b"\0" * 8, times, b"x"),
    ):
        ((entry, _),) = read(header(magic=magic, prefix=prefix))
        assert entry.name == name
    star = bytearray(header(prefix=b"p" * 140))
    star[508:512] = b"tar\0"
    star[148:156] = b" " * 8
    star[148:156] = b"%06o\0 " % sum(star)
    ((entry, _),) = read(bytes(star))
    assert entry.name == b"p" * 131 + b"/x"


def test_old_tars_are_read():
    ((entry, _),) = read(header(b"\0", b"dir/"))
    assert entry.kind is Kind.FOLDER
    ((entry, _),) = read(header(b"7"))
    assert entry.kind is Kind.FILE
    signed = bytearray(header(b"0", "é".encode()))
    signed[148:156] = b" " * 8
    signed[148:156] = b"%06o\0 " % (sum(signed) - 256 * sum(each > 127 for each in signed))
    ((entry, _),) = read(bytes(signed))
    assert entry.name == "é".encode()


def test_nothing_follows_what_is_no_file():
    ((entry, _), (after, _)) = read(header(b"2", b"s", size=b"00000001000\0") + header(b"0", b"next"))
    assert (entry.size, after.name) == (0, b"next")


def promised(kind: bytes) -> Iterator[bytes]:
    yield header(kind, size=b"%011o\0" % (MAX_EXTENDED + 1))
    raise AssertionError("what it promises was read")


@pytest.mark.parametrize("kind", [b"x", b"X", b"L", b"K"])
def test_no_header_of_any_size_is_read(kind: bytes):
    with pytest.raises(LayerInvalid, match="expected an extended header of at most 1048576 bytes, got 1048577"):
        list(entries(Source(promised(kind))))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"no tar".ljust(512), "expected a header of a tar, its checksum is wrong"),
        (header()[:100], "it ends in the middle of a header"),
        (header(b"x", size=b"00000000100\0"), "it ends in the middle of an extended header"),
        (header(size=b"00000000010\0") + b"abc", "expected 8 bytes of content, it ends after 3"),
        (header(size=b"00000000010\0") + b"12345678", "expected 504 bytes of content, it ends after 0"),
        (bytes(512) + header(), "something follows the end of its archive"),
        (header(b"S"), "'x': sparse files are not supported"),
        (extended(record(b"GNU.sparse.major", b"1")) + header(), "'x': sparse files are not supported"),
        (header(b"M"), "'x': expected a type of entry that layers have, got b'M'"),
        (header(size=b"\xff" * 12), "'x': expected a size, got -1"),
        (header(b"L", size=b"\xff" * 12), "'x': expected a size, got -1"),
        (header(b"g", size=b"\xff" * 12), "'x': expected a size, got -1"),
        (header(size=b"0000000009x\0"), "size: expected a number, got '0000000009x'"),
        (header(uid=b"\xff" * 8), "'x': expected an owner from 0 to 4294967294, got -1"),
        (
            extended(record(b"gid", b"4294967295")) + header(),
            "'x': expected an owner from 0 to 4294967294, got 4294967295",
        ),
        (extended(record(b"uid", b"-1")) + header(), "'x': uid: expected a number, got '-1'"),
        (extended(record(b"size", b"1" * 20)) + header(), "'x': size: expected a number, got '11111111111111111111'"),
        (extended(record(b"mtime", b"1e9")) + header(), "'x': mtime: expected a number, got '1e9'"),
        (extended(b"nonsense") + header(), "an extended header breaks the grammar of pax"),
        (extended(b"99 path=x\n") + header(), "an extended header breaks the grammar of pax"),
        (extended(b"8 path=x") + header(), "an extended header breaks the grammar of pax"),
        (extended(b"6 path\n") + header(), "an extended header breaks the grammar of pax"),
    ],
)
def test_what_breaks_the_grammar_is_refused(data: bytes, message: str):
    assert refused(data) == message


def test_a_body_arrives_in_pieces_however_long_it_is():
    source = Source(iter([bytes(10)] * 100))
    assert max(len(each) for each in source.body(1000)) == 10
    assert source.take(1) == b""
    assert io.BytesIO(b"".join(Source(iter([b"ab", b"", b"cd"])).body(4))).read() == b"abcd"
