"""Where the members of an archive lie on disk, by names that cannot lead anywhere else.

Nothing is ever written to, or opened at, a path that an archive gives: names are keys.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from client.archive import headers
from client.archive.headers import Entry, Kind
from ocispec.digest import Digest
from ocispec.errors import ArchiveInvalid, DigestInvalid
from storage.ingest import storage_errors
from storage.threads import acquire, finish

MAX_MEMBERS = 200_000
PIECE = 1024 * 1024
_MAX_LINKS = 16


@dataclass(frozen=True, slots=True)
class Extent:
    """`size` bytes of the file `path`, from `offset` on."""

    path: Path
    offset: int
    size: int

    async def read(self) -> bytes:
        """Returns all of it."""
        return await finish(self._read)

    async def pieces(self, piece: int = PIECE) -> AsyncGenerator[bytes, None]:
        """Yields it in pieces of at most `piece` bytes.

        Raises:
            ArchiveInvalid: the file became shorter.
            StorageError: it cannot be read.
        """
        file = await acquire(_close, self._open)
        try:
            for start in range(self.offset, self.offset + self.size, piece):
                yield await finish(self._pread, file, start, min(piece, self.offset + self.size - start))
        finally:
            file.close()

    def _open(self) -> BinaryIO:
        with storage_errors(self.path):
            return self.path.open("rb", buffering=0)

    def _read(self) -> bytes:
        with self._open() as file:
            return self._pread(file, self.offset, self.size)

    def _pread(self, file: BinaryIO, start: int, count: int) -> bytes:
        with storage_errors(self.path):
            data = os.pread(file.fileno(), count, start)
        if len(data) < count:
            raise ArchiveInvalid(f"{self.path}: expected {count} bytes at {start}, got {len(data)}: it became shorter")
        return data


class Members:
    """What an archive holds, by name; links lead to other members only."""

    def __init__(self) -> None:
        self._found: dict[str, Extent | str] = {}

    def add_file(self, name: str, place: Extent) -> None:
        self._add(name, place)

    def add_link(self, entry: Entry) -> None:
        """Takes a link in.

        Raises:
            ArchiveInvalid: name or target leads out of the archive.
        """
        name = normal(entry.name)
        base = posixpath.dirname(name) if entry.kind is Kind.SYMLINK else ""
        self._add(name, _inside(base, entry.target, entry.name))

    def find(self, name: str) -> Extent | None:
        """Returns where a member lies, through links; None where there is none."""
        for _ in range(_MAX_LINKS):
            found = self._found.get(name)
            if not isinstance(found, str):
                return found
            name = found
        raise ArchiveInvalid(f"{name[:200]!r}: more than {_MAX_LINKS} links lead on from each other")

    def _add(self, name: str, found: Extent | str) -> None:
        if name in self._found:
            raise ArchiveInvalid(f"{name[:200]!r} stands in it twice")
        if len(self._found) >= MAX_MEMBERS:
            raise ArchiveInvalid(f"expected at most {MAX_MEMBERS} members")
        self._found[name] = found


def normal(name: str) -> str:
    """Returns a member's name without `./` and doubled slashes.

    Raises:
        ArchiveInvalid: it is absolute, empty, or leads upward.
    """
    return _inside("", name, name, upward=False)


def digest_in(name: str) -> Digest | None:
    """Returns the digest that a blob's place in an image layout tells, None for any other member."""
    folder, algorithm, encoded = (*name.split("/"), "", "")[:3]
    try:
        return Digest.parse(f"{algorithm}:{encoded}") if folder == "blobs" and name.count("/") == 2 else None
    except DigestInvalid:
        return None


def scan(path: Path) -> Members:
    """Finds the members of a tar on disk; reads headers only, and blocks.

    Raises:
        ArchiveInvalid: no tar, one that ends early, or one with names that lead out of it or stand twice.
        StorageError: it cannot be read.
    """
    members = Members()
    with storage_errors(path), path.open("rb", buffering=0) as file:
        end, offset, answer = os.fstat(file.fileno()).st_size, 0, b""
        reader = headers.entries()
        wanted = next(reader)
        while True:
            if isinstance(wanted, Entry):
                _keep(members, wanted, Extent(path, offset, wanted.size), end)
                offset += headers.padded(wanted.size)
                answer = b""
            else:
                answer = os.pread(file.fileno(), wanted, offset)
                offset += len(answer)
            try:
                wanted = reader.send(answer)
            except StopIteration:
                return members


def _keep(members: Members, entry: Entry, place: Extent, end: int) -> None:
    if place.offset + place.size > end:
        raise ArchiveInvalid(f"{entry.name[:200]!r}: expected {entry.size} bytes, the archive ends before")
    if entry.kind is Kind.FILE:
        members.add_file(normal(entry.name), place)
    elif entry.kind is not Kind.OTHER:
        members.add_link(entry)


def _inside(base: str, path: str, shown: str, *, upward: bool = True) -> str:
    parts = base.split("/") if base else []
    for part in path.split("/"):
        if part == ".." and parts and upward:
            parts.pop()
        elif part == "..":
            raise ArchiveInvalid(f"{shown[:200]!r} leads out of the archive")
        elif part not in ("", "."):
            parts.append(part)
    if path.startswith("/") or not parts:
        raise ArchiveInvalid(f"{shown[:200]!r} leads out of the archive")
    return "/".join(parts)


def _close(file: BinaryIO) -> None:
    file.close()
