"""Headers of a tar archive, read by whoever brings the bytes (POSIX.1-2001 ustar and pax; GNU's long names).

Sparse files and archives of several volumes are refused: no image archive has them.
"""

from __future__ import annotations

import tarfile
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from enum import Enum

from client.pax import records
from ocispec.errors import ArchiveInvalid, GrammarError

BLOCK = tarfile.BLOCKSIZE
# A name and a link's target have to fit, no more is of use here.
MAX_EXTENDED = 1024 * 1024
_END = bytes(BLOCK)
_PAX = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE)
_LONG = {tarfile.GNUTYPE_LONGNAME: "path", tarfile.GNUTYPE_LONGLINK: "linkpath"}
_REFUSED = {tarfile.GNUTYPE_SPARSE: "sparse files", b"M": "archives of several volumes"}
# Go's decoder and Python's agree that nothing follows these, whatever their size says.
_BARE = (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE)


class Kind(Enum):
    FILE = "file"
    HARD_LINK = "hard link"
    SYMLINK = "symlink"
    OTHER = "other"


_KINDS = {tarfile.LNKTYPE: Kind.HARD_LINK, tarfile.SYMTYPE: Kind.SYMLINK, **dict.fromkeys(_BARE[2:], Kind.OTHER)}


@dataclass(frozen=True, slots=True)
class Entry:
    """One member of an archive.

    Attributes:
        name: as it stands, not checked; what is not UTF-8 stands escaped.
        kind: what it is.
        size: length of the body that follows in the archive, in bytes, without padding.
        target: of a link, not checked.
    """

    name: str
    kind: Kind
    size: int
    target: str = ""


def padded(size: int) -> int:
    """How many bytes a body of `size` bytes takes in an archive."""
    return -(-size // BLOCK) * BLOCK


def entries() -> Generator[int | Entry, bytes, None]:
    """Reads an archive's headers.

    Yields:
        A number: send as many bytes, fewer only where the archive ends. An `Entry`: its padded body comes next in the
        archive and is the caller's; send b"". The generator ends where the archive does.

    Raises:
        ArchiveInvalid: no tar, or one that ends in the middle of a header.
    """
    names: dict[str, str] = {}
    block = yield BLOCK
    if not block:
        raise ArchiveInvalid("expected an archive, it is empty")
    start = "expected a tar (plain, gzip or zstd), found no header of one"
    while block not in (b"", _END):
        info = _header(block, start)
        start = "expected a member or the end, found no header of one"
        if info.type in _PAX or info.type in _LONG or info.type == tarfile.XGLTYPE:
            body = yield padded(_extended(info))
            if len(body) < padded(info.size):
                raise ArchiveInvalid("it ends in the middle of an extended header")
            names |= _names(info.type, body[: info.size])
        else:
            yield _entry(info, names)
            names = {}
        block = yield BLOCK


def _header(block: bytes, otherwise: str) -> tarfile.TarInfo:
    try:
        info = tarfile.TarInfo.frombuf(block, "utf-8", "backslashreplace")
    except tarfile.HeaderError as error:
        raise ArchiveInvalid(f"{otherwise}: {error}") from error
    if info.type in _REFUSED:
        raise ArchiveInvalid(f"{info.name[:200]!r}: {_REFUSED[info.type]} are not supported")
    if info.size < 0:
        raise ArchiveInvalid(f"{info.name[:200]!r}: expected a size, got {info.size}")
    return info


def _extended(info: tarfile.TarInfo) -> int:
    if info.size > MAX_EXTENDED:
        raise ArchiveInvalid(f"expected an extended header of at most {MAX_EXTENDED} bytes, got {info.size}")
    return info.size


def _names(kind: bytes, body: bytes) -> dict[str, str]:
    if kind in _LONG:
        return {_LONG[kind]: _text(body.partition(b"\0")[0])}
    # A global header tells nothing of a single member's name.
    return dict(_records(body)) if kind in _PAX else {}


def _records(body: bytes) -> Iterator[tuple[str, str]]:
    """Yields the records that concern us."""
    try:
        for keyword, value in records(body):
            if keyword in (b"path", b"linkpath", b"size"):
                yield keyword.decode(), _text(value)
    except GrammarError as error:
        raise ArchiveInvalid(error.message) from error


def _entry(info: tarfile.TarInfo, names: dict[str, str]) -> Entry:
    size, name = names.get("size", str(info.size)), names.get("path", info.name)
    if not (size.isascii() and size.isdigit() and len(size) < 20):
        raise ArchiveInvalid(f"{name[:200]!r}: expected a size, got {size[:40]!r}")
    length = 0 if info.type in _BARE else int(size)
    return Entry(name, _KINDS.get(info.type, Kind.FILE), length, names.get("linkpath", info.linkname))


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "backslashreplace")
