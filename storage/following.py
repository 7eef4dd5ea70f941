"""What somebody else fetches of a blob, read along while it comes.

Whoever holds a partial blob (`storage.partials`) tells by its record what came. The record only grows while a blob
comes: it is made anew, as another file, where what it said was not so. So a record and how often it was cleared tell
one version of the bytes from all others, in every process.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

from storage.extents import Extents
from storage.ingest import storage_errors
from storage.threads import acquire

CLEAR = b"clear\n"
_PIECE = 64 * 1024

# Which bytes these are: a record's inode, and how often all of it was taken back.
Version: TypeAlias = tuple[int, int]


class Followed:
    """A partial blob that another process, or another task, holds.

    Use it in one thread at a time; after `opened` each look takes microseconds.
    """

    def __init__(self, folder: Path, data: int, record: int) -> None:
        self._folder = folder
        self._data = data
        self._record = record
        self._inode = os.fstat(record).st_ino
        self._read = 0
        self._rest = b""
        self._clears = 0
        self._extents = Extents()

    @classmethod
    def opened(cls, folder: Path) -> Followed | None:
        """Opens what lies in a folder, in a worker thread; None where nothing does, or it is just being moved away.

        Raises:
            StorageError: it cannot be read.
        """
        with storage_errors(folder), contextlib.ExitStack() as closing, contextlib.suppress(FileNotFoundError):
            record = os.open(folder / "parts", os.O_RDONLY | os.O_CLOEXEC)
            closing.callback(os.close, record)
            data = os.open(folder / "data", os.O_RDONLY | os.O_CLOEXEC)
            closing.callback(os.close, data)
            found = cls(folder, data, record)
            # The record goes first: while it is there by its name, so were the bytes beside it.
            if not found.ended:
                found.look()
                closing.pop_all()
                return found
        return None

    @property
    def ended(self) -> bool:
        """Whether the record is no longer the one in the folder."""
        try:
            return os.stat(self._folder / "parts").st_ino != self._inode  # noqa: PTH116 - beside fstat
        except FileNotFoundError:
            return True

    @property
    def version(self) -> Version:
        """Which bytes these are, now: those that were read before are good if it is still the same."""
        self.look()
        return self._inode, self._clears

    def look(self) -> None:
        """Reads what was recorded since the last look."""
        while piece := os.pread(self._record, _PIECE, self._read):
            self._read += len(piece)
            whole, ended, self._rest = (self._rest + piece).rpartition(b"\n")
            for each in (whole + ended).splitlines(keepends=True):
                self._enter(each)

    def reach(self, offset: int) -> int:
        """Returns the offset behind the bytes that are here from `offset` on; `offset` where none are."""
        return self._extents.end_of(offset)

    def reader(self) -> int:
        """Returns a descriptor to read from, which stays good; its owner closes it."""
        return os.dup(self._data)

    def is_in(self, path: Path) -> bool:
        """Whether a file is the one that was followed: it was whole, and moved there."""
        try:
            return os.path.samestat(os.fstat(self._data), os.stat(path))  # noqa: PTH116 - beside fstat
        except FileNotFoundError:
            return False

    def close(self) -> None:
        os.close(self._record)
        os.close(self._data)

    def _enter(self, told: bytes) -> None:
        if told == CLEAR:
            self._clears += 1
            self._extents = Extents()
        for offset, length in lines(told):
            self._extents.add(offset, offset + length)


class Following:
    """Follows whoever holds a partial blob, one after the other.

    Args:
        folder: the partial's.
        along: is given what one brings, each time that somebody looked.
        closing: closes what was opened.
    """

    def __init__(self, folder: Path, along: Callable[[Followed], None], closing: contextlib.ExitStack) -> None:
        self._folder = folder
        self._along = along
        self._closing = closing
        self._followed: Followed | None = None

    async def look(self) -> None:
        """Looks what came; raises StorageError."""
        if self._followed is None or self._followed.ended:
            found = await acquire(_close, Followed.opened, self._folder)
            if found is None:
                return
            self._closing.callback(found.close)
            self._followed = found
        self._followed.look()
        self._along(self._followed)


def line(offset: int, length: int) -> bytes:
    """Returns how a record names a part."""
    return b"%d %d\n" % (offset, length)


def lines(record: bytes) -> Iterator[tuple[int, int]]:
    """Yields offset and length of each part that a record names; a line that names none is passed over."""
    for each in record.splitlines():
        with contextlib.suppress(ValueError):
            offset, length = map(int, each.split())
            if offset >= 0 and length > 0:
                yield offset, length


def _close(followed: Followed | None) -> None:
    if followed is not None:
        followed.close()
