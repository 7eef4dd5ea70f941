"""Files that survive `kill -9` and power loss: temporary file, fsync, rename, fsync of the folder.

Everything here blocks: call it from a worker thread.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

ATTEMPTS = 16
# Linux makes the page cache's folios as large as one write is, and large ones cost several times as much where free
# memory is short of large blocks (docs/performance.md).
WRITE = 256 * 1024
_REMEMBERED = 16_384


def sync_folder(folder: Path) -> None:
    """Makes the names in `folder` durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class DurableFolders:
    """Makes folders whose own names are durable, and remembers which are, within a bound.

    A folder that another process made counts as durable only after its parent was synced here as well.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._known: OrderedDict[Path, None] = OrderedDict()

    def ensure(self, folder: Path) -> None:
        """Makes `folder` and what lies above it, down from the root."""
        if folder in self._known and folder.is_dir():
            return
        if folder not in (self._root, folder.parent):
            self.ensure(folder.parent)
            folder.mkdir(exist_ok=True)
            sync_folder(folder.parent)
        else:
            folder.mkdir(parents=True, exist_ok=True)
        self._known[folder] = None
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)


def move(source: Path, target: Path, folders: DurableFolders) -> None:
    """Renames a synced file over `target`, durably.

    A concurrent delete may take the target's folder away between making and using it, so this is tried
    `ATTEMPTS` times.

    Raises:
        FileNotFoundError: `source` does not exist.
        OSError: as the system gives it; `target` is then as it was.
    """
    for _ in range(ATTEMPTS):
        try:
            folders.ensure(target.parent)
            source.replace(target)
        except (FileNotFoundError, FileExistsError):
            # mkdir tells of a folder that exists and is gone when it looks at it.
            if not source.exists():
                raise
        else:
            # A folder that is gone again was deleted after the rename: the delete came last.
            with contextlib.suppress(FileNotFoundError):
                sync_folder(target.parent)
            return
    raise FileNotFoundError(f"{target.parent} keeps vanishing")


def write(target: Path, data: bytes, scratch: Path, folders: DurableFolders) -> None:
    """Writes a whole file, durably: afterwards `target` holds either its former bytes or all of `data`.

    Args:
        target: the file.
        data: its new content.
        scratch: folder for the temporary file, on the same file system.
        folders: makes the target's folder.
    """
    folders.ensure(scratch)
    temporary = scratch / uuid4().hex
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        move(temporary, target, folders)
    finally:
        temporary.unlink(missing_ok=True)


def write_quickly(target: Path, data: bytes) -> None:
    """Writes a file that need not last; tried as often as `move`, for the same reason."""
    for _ in range(ATTEMPTS):
        with contextlib.suppress(FileNotFoundError, FileExistsError):
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
            return
    raise FileNotFoundError(f"{target.parent} keeps vanishing")


def write_all(write: Callable[[memoryview], int], data: bytes | bytearray | memoryview) -> None:
    """Gives all of `data` to `write`, which tells how much it took, at most `WRITE` bytes at a time."""
    rest = memoryview(data)
    while rest:
        rest = rest[write(rest[:WRITE]) :]


def purge(scratch: Path, age: float) -> None:
    """Removes what is older than `age` seconds, which only a crash leaves."""
    oldest = time.time() - age
    for each in scratch.iterdir():
        with contextlib.suppress(FileNotFoundError):
            if each.lstat().st_mtime < oldest:
                remove(each)


def remove(path: Path) -> None:
    """Removes a file, or a folder with all below it; nothing there is no error."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
