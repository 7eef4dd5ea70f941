"""What lies in an image layout and is no blob of it: partial downloads, quarantine, and what crashes left.

Everything here blocks: call it from a worker thread. There are few such things, however large the layout is.
"""

from __future__ import annotations

import fcntl
import os
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from storage import durable, partials
from storage.ingest import storage_errors

SCRATCH = ".ingest"


class Kind(Enum):
    """A download that can go on, a blob whose bytes were wrong, a file that nobody will finish."""

    PARTIAL = "partial"
    QUARANTINED = "quarantined"
    SCRATCH = "scratch"


@dataclass(frozen=True, slots=True)
class Leftover:
    """Something that prune may remove.

    Attributes:
        kind: which.
        path: a file, or the folder of a partial download.
        size: in bytes on disk.
        modified: when bytes last came, in seconds since the epoch.
    """

    kind: Kind
    path: Path
    size: int
    modified: float


def leftovers(root: Path) -> list[Leftover]:
    """Returns all of them; raises StorageError where a folder cannot be read."""
    places = {
        Kind.PARTIAL: _below(root / partials.FOLDER, 2),
        Kind.QUARANTINED: _below(root / partials.QUARANTINE, 2),
        Kind.SCRATCH: _below(root / SCRATCH, 1),
    }
    return [each for kind, paths in places.items() for path in paths for each in _measured(kind, path)]


def remove(leftover: Leftover) -> bool:
    """Removes it; false where somebody fetches into it right now. Raises StorageError."""
    with storage_errors(leftover.path):
        if leftover.kind is Kind.PARTIAL:
            return _remove_partial(leftover.path)
        durable.remove(leftover.path)
        return True


def expire(root: Path, age: float) -> None:
    """Removes partial downloads that got nothing for `age` seconds and that nobody holds; raises StorageError."""
    oldest = time.time() - age
    for path in _below(root / partials.FOLDER, 2):
        for each in _measured(Kind.PARTIAL, path):
            if each.modified < oldest:
                remove(each)


def held(leftover: Leftover) -> bool:
    """Whether somebody fetches into it right now."""
    with suppress(FileNotFoundError, NotADirectoryError):
        fd = os.open(leftover.path / "data", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return not _lock(fd)
        finally:
            os.close(fd)
    return False


def _remove_partial(folder: Path) -> bool:
    with suppress(FileNotFoundError, NotADirectoryError):
        fd = os.open(folder / "data", os.O_RDWR | os.O_CLOEXEC)
        try:
            if not _lock(fd):
                return False
            (folder / "parts").unlink(missing_ok=True)
            (folder / "data").unlink()
            with suppress(OSError):  # somebody begins anew in it
                folder.rmdir()
            return True
        finally:
            os.close(fd)
    # Nothing that could be locked: a crash left it between making the folder and the file.
    durable.remove(folder)
    return True


def _lock(fd: int) -> bool:
    with suppress(BlockingIOError):
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


def _below(folder: Path, depth: int) -> Iterator[Path]:
    with storage_errors(folder), suppress(FileNotFoundError, NotADirectoryError):
        for each in sorted(folder.iterdir()):
            # Nobody here makes links: what one leads to is not ours to remove.
            if depth > 1 and each.is_dir() and not each.is_symlink():
                yield from _below(each, depth - 1)
            else:
                yield each


def _measured(kind: Kind, path: Path) -> Iterable[Leftover]:
    with storage_errors(path), suppress(FileNotFoundError):
        inside = path.iterdir() if path.is_dir() and not path.is_symlink() else ()
        files = [each.lstat() for each in (path, *inside)]
        # Parts lie at their places, with holes between them.
        size = sum(min(each.st_size, each.st_blocks * 512) for each in files if stat.S_ISREG(each.st_mode))
        return [Leftover(kind, path, size, max(each.st_mtime for each in files))]
    return []
