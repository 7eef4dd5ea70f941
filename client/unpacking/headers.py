"""The tar of a layer: every entry with all its attributes (POSIX.1-2001 ustar and pax, GNU's long names).

Where readers of tar differ this one does as Go's, which docker, containerd and umoci use: two readers that see
different files in the same verified bytes are a way to smuggle one in. Sparse files are refused (image-spec, layer.md:
they should not be used).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import NoReturn

from client.pax import records
from client.unpacking.source import Source
from ocispec.errors import GrammarError, LayerInvalid

BLOCK = 512
# Room for a name and a link's target of the longest kind, and for all attributes that Linux gives a file (64 KiB).
MAX_EXTENDED = 1024 * 1024
MAX_ID = 2**32 - 2  # what is one more means "unchanged" to chown
_MAX_TIME = 2**62  # seconds either way, what a system call takes; the file system rounds to what it holds
_SECOND = 10**9

_OCTAL = re.compile(rb"[0-7]*")
_DECIMAL = re.compile(rb"[0-9]{1,19}")
_TIME = re.compile(rb"(-?)([0-9]{1,19})(?:\.([0-9]*))?")
_XATTR = b"SCHILY.xattr."


class Kind(Enum):
    """What an entry is; the value is its type flag."""

    FILE = b"0"
    HARD_LINK = b"1"
    SYMLINK = b"2"
    CHARACTER_DEVICE = b"3"
    BLOCK_DEVICE = b"4"
    FOLDER = b"5"
    FIFO = b"6"


_KINDS = {each.value: each for each in Kind} | {b"\0": Kind.FILE, b"7": Kind.FILE}
_LONG_NAME, _LONG_TARGET, _PAX, _PAX_SOLARIS, _PAX_GLOBAL = b"L", b"K", b"x", b"X", b"g"


@dataclass(frozen=True, slots=True)
class Attributes:
    """What a file has besides its content.

    Attributes:
        mode: permissions with setuid, setgid and sticky bits.
        uid: its owner.
        gid: its group.
        mtime: in nanoseconds since the epoch, which a folder has that no layer tells of: an image has one tree.
        xattrs: extended attributes, name and value.
    """

    mode: int
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    xattrs: tuple[tuple[bytes, bytes], ...] = ()


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a layer.

    Attributes:
        name: as it stands, not checked.
        kind: what it is.
        size: of the content that follows, in bytes.
        attributes: to be set.
        target: of a link, as it stands.
        device: major and minor number.
    """

    name: bytes
    kind: Kind
    size: int
    attributes: Attributes
    target: bytes = b""
    device: tuple[int, int] = (0, 0)


def shown(name: bytes) -> str:
    """Returns a name for a message: one line, not too long."""
    return repr(name[:200].decode("utf-8", "backslashreplace"))


def entries(source: Source) -> Iterator[Entry]:
    """Yields the entries of a tar; the content of each is read from `source`, or left, before the next is taken.

    Raises:
        LayerInvalid: no tar, or one that ends in the middle of a header, or a header of more than `MAX_EXTENDED` bytes.
    """
    pax: dict[bytes, bytes] = {}
    long: dict[bytes, bytes] = {}
    while any(block := source.take(BLOCK)):
        _check(block)
        flag, size = block[156:157], _size(block)
        if flag in (_PAX, _PAX_SOLARIS):
            pax = dict(_records(_extended(source, size)))
        elif flag in (_LONG_NAME, _LONG_TARGET):
            long[flag] = _extended(source, size).partition(b"\0")[0]
        elif flag == _PAX_GLOBAL:
            # It tells nothing of a single entry; docker passes over it too.
            source.skip(_padded(size))
        else:
            entry = _entry(block, pax, long)
            end = source.position + _padded(entry.size)
            yield entry
            source.skip(end - source.position)
            pax, long = {}, {}
    if any(source.take(BLOCK)):
        raise LayerInvalid("something follows the end of its archive")


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def _check(block: bytes) -> None:
    if len(block) < BLOCK:
        raise LayerInvalid("it ends in the middle of a header")
    rest = block[:148] + b" " * 8 + block[156:]
    # Old tars on machines with signed characters added those.
    signed = sum(rest) - 256 * sum(each > 127 for each in rest)
    if _number(block[148:156], "checksum") not in (sum(rest), signed):
        raise LayerInvalid("expected a header of a tar, its checksum is wrong")


def _extended(source: Source, size: int) -> bytes:
    if size > MAX_EXTENDED:
        raise LayerInvalid(f"expected an extended header of at most {MAX_EXTENDED} bytes, got {size}")
    body = source.take(_padded(size))
    if len(body) < _padded(size):
        raise LayerInvalid("it ends in the middle of an extended header")
    return body[:size]


def _records(body: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yields the records that say something."""
    try:
        yield from ((keyword, value) for keyword, value in records(body) if value)
    except GrammarError as error:
        raise LayerInvalid(error.message) from error


def _entry(block: bytes, pax: dict[bytes, bytes], long: dict[bytes, bytes]) -> Entry:
    name = long.get(_LONG_NAME) or pax.get(b"path") or _name(block)
    if any(each.startswith(b"GNU.sparse.") for each in pax) or block[156:157] == b"S":
        raise LayerInvalid(f"{shown(name)}: sparse files are not supported")
    kind = _KINDS.get(block[156:157])
    if kind is None:
        raise LayerInvalid(f"{shown(name)}: expected a type of entry that layers have, got {block[156:157]!r}")
    if block[156:157] == b"\0" and name.endswith(b"/"):
        kind = Kind.FOLDER
    size = _decimal(pax, b"size", name) if b"size" in pax else _size(block)
    return Entry(
        name,
        kind,
        # Whatever their size says, no content follows the others.
        size if kind is Kind.FILE else 0,
        _attributes(block, pax, name),
        long.get(_LONG_TARGET) or pax.get(b"linkpath") or _text(block[157:257]),
        (_number(block[329:337], "device"), _number(block[337:345], "device")),
    )


def _attributes(block: bytes, pax: dict[bytes, bytes], name: bytes) -> Attributes:
    return Attributes(
        _number(block[100:108], "mode") & 0o7777,
        _id(_decimal(pax, b"uid", name) if b"uid" in pax else _number(block[108:116], "uid"), name),
        _id(_decimal(pax, b"gid", name) if b"gid" in pax else _number(block[116:124], "gid"), name),
        _time(pax[b"mtime"], name) if b"mtime" in pax else _bounded(_number(block[136:148], "mtime"), 0),
        tuple((key[len(_XATTR) :], value) for key, value in pax.items() if key.startswith(_XATTR)),
    )


def _name(block: bytes) -> bytes:
    name, prefix = _text(block[:100]), b""
    # GNU's format keeps times where ustar keeps the first part of a long name; star's is shorter.
    if block[257:263] == b"ustar\0":
        prefix = _text(block[345:476] if block[508:512] == b"tar\0" else block[345:500])
    return prefix + b"/" + name if prefix else name


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _number(field: bytes, what: str) -> int:
    """Reads octal digits, or GNU's binary numbers, whose first bit is set and whose rest is a two's complement."""
    if field[0] & 0x80:
        bits = 8 * len(field) - 1
        value = int.from_bytes(field, "big") & (1 << bits) - 1
        return value - (1 << bits) if value >> bits - 1 else value
    digits = field.strip(b" \0").partition(b"\0")[0]
    if not _OCTAL.fullmatch(digits):
        _refuse(what, digits)
    return int(digits or b"0", 8)


def _size(block: bytes) -> int:
    size = _number(block[124:136], "size")
    if size < 0:
        raise LayerInvalid(f"{shown(_name(block))}: expected a size, got {size}")
    return size


def _decimal(pax: dict[bytes, bytes], key: bytes, name: bytes) -> int:
    if not _DECIMAL.fullmatch(pax[key]):
        _refuse(f"{shown(name)}: {key.decode()}", pax[key])
    return int(pax[key])


def _id(value: int, name: bytes) -> int:
    if not 0 <= value <= MAX_ID:
        raise LayerInvalid(f"{shown(name)}: expected an owner from 0 to {MAX_ID}, got {value}")
    return value


def _time(text: bytes, name: bytes) -> int:
    match = _TIME.fullmatch(text)
    if not match:
        _refuse(f"{shown(name)}: mtime", text)
    sign = -1 if match[1] else 1
    return sign * _bounded(int(match[2]), int((match[3] or b"").ljust(9, b"0")[:9]))


def _bounded(seconds: int, nanoseconds: int) -> int:
    return max(-_MAX_TIME, min(_MAX_TIME, seconds)) * _SECOND + nanoseconds


def _refuse(what: str, text: bytes) -> NoReturn:
    raise LayerInvalid(f"{what}: expected a number, got {shown(text[:40])}")
