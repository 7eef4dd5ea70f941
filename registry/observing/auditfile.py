"""The file of the audit log: lines are added to it by several processes at once, and it may be moved away meanwhile."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

_MODE = 0o640
_STDERR = 2


class AuditFile:
    """Adds lines to a file, one process at a time, each line at its end and with one write(2).

    A file that was moved away or removed, as log rotation does, is made anew for the next line. What a full disk left
    of a line is ended before the next one. Nothing is synced: a line survives the end of the process, by `kill -9` too;
    loss of power may take those of the last seconds.

    Everything blocks, and raises OSError. Threads may share it.

    Args:
        path: None for standard error.
        gap: the line that says that so many are lost.
    """

    def __init__(self, path: Path | None, gap: Callable[[int], bytes]) -> None:
        self._path = path
        self._gap = gap
        self._lost = 0
        self._file: int | None = None
        self._lock = threading.Lock()

    def __del__(self) -> None:
        self.close()

    def open(self) -> None:
        """Opens the file, and makes it where there is none."""
        with self._lock:
            self._opened()

    def add(self, line: bytes) -> None:
        """Adds a line; where lines before it could not be written, behind one that says how many."""
        with self._lock:
            try:
                self._write(line if not self._lost else self._gap(self._lost) + line)
            except OSError:
                self._lost += 1
                raise
            self._lost = 0

    def _write(self, lines: bytes) -> None:
        file = self._opened()
        if self._path is None:
            _put(file, lines)
            return
        # Else a line that another process is writing would look like one that was cut short.
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            _put(file, b"\n" + lines if _is_torn(file) else lines)
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _opened(self) -> int:
        if self._path is None:
            return _STDERR
        if self._file is not None and not self._is_current(self._file):
            self.close()
        if self._file is None:
            self._file = _open(self._path)
        return self._file

    def _is_current(self, file: int) -> bool:
        try:
            return self._path is not None and os.path.samestat(self._path.stat(), os.fstat(file))
        except FileNotFoundError:
            return False


def _open(path: Path) -> int:
    flags = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC
    try:
        return os.open(path, flags)
    except FileNotFoundError:
        file = os.open(path, flags | os.O_CREAT, _MODE)
        # An operator is root, the registry may be another user: whose folder it is may write there.
        folder = path.parent.stat()
        with suppress(PermissionError):
            os.fchown(file, folder.st_uid, folder.st_gid)
        return file


def _put(file: int, data: bytes) -> None:
    if os.write(file, data) != len(data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _is_torn(file: int) -> bool:
    """Whether the last line has no end."""
    found = os.fstat(file)
    return stat.S_ISREG(found.st_mode) and found.st_size > 0 and os.pread(file, 1, found.st_size - 1) != b"\n"
