"""Files of the state directory that hold secrets: readable by the registry alone, whole or not at all, durable.

Everything here blocks, and raises ConfigError where the system refuses.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from registry.config import ConfigError
from storage.durable import sync_folder, write_all

_MODE = 0o600


@contextmanager
def changing(path: Path) -> Iterator[None]:
    """Makes the file's folder, and lets one process at a time change the file."""
    try:
        _make(path.parent)
        lock = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _MODE)
        try:
            _belong(lock, path.parent)
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be changed: {error.strerror or error}") from error


def replace(path: Path, data: bytes) -> None:
    """Writes a whole file; called while it is being changed, see `changing`."""
    temporary = path.with_name(f".{path.name}.{uuid4().hex}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _MODE)
    try:
        _belong(fd, path.parent)
        write_all(lambda piece: os.write(fd, piece), data)
        os.fsync(fd)
        temporary.replace(path)
    finally:
        os.close(fd)
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def _make(folder: Path) -> None:
    if not folder.is_dir():
        _make(folder.parent)
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
            fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                _belong(fd, folder.parent)
            finally:
                os.close(fd)
            sync_folder(folder.parent)


def _belong(fd: int, folder: Path) -> None:
    """Gives a file to the folder's owner: an operator is root, the registry may be another user."""
    found = folder.stat()
    with suppress(PermissionError):
        os.fchown(fd, found.st_uid, found.st_gid)
