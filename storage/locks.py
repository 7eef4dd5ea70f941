"""Locks between processes: `flock` on a file, which the system drops when its holder dies."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from ocispec.errors import StorageError
from storage.durable import DurableFolders
from storage.ingest import storage_errors
from storage.threads import acquire

_POLL = 0.005
_READ_ONLY = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})


def quietly() -> None:
    """Tells nobody that a lock is waited for."""


@asynccontextmanager
async def exclusive(
    path: Path, folders: DurableFolders, patience: float, waiting: Callable[[], None] = quietly
) -> AsyncIterator[None]:
    """Holds the lock alone. Cancelled while it waits, it lets go of it.

    Args:
        path: the lock's file; made, with its folder, where it is not there.
        folders: makes the folder.
        patience: how long others may hold the lock, in seconds.
        waiting: is told, once, that somebody holds it.

    Raises:
        StorageError: others held it for longer, or the file cannot be made.
    """
    lock = await acquire(os.close, _open, path, folders)
    try:
        await _take(lock, fcntl.LOCK_EX, path, patience, waiting)
        yield
    finally:
        os.close(lock)


@asynccontextmanager
async def shared(path: Path, folders: DurableFolders, patience: float) -> AsyncIterator[None]:
    """Holds the lock beside others who share it; see `exclusive`. Where nothing may be written there is no lock."""
    lock = await acquire(_close, _open_to_share, path, folders)
    try:
        if lock is not None:
            await _take(lock, fcntl.LOCK_SH, path, patience, quietly)
        yield
    finally:
        _close(lock)


async def _take(lock: int, kind: int, path: Path, patience: float, waiting: Callable[[], None]) -> None:
    deadline, told = time.monotonic() + patience, False
    while not _try(lock, kind):
        if time.monotonic() > deadline:
            raise StorageError(f"another process has held {path} for {patience:.0f} s")
        if not told:
            waiting()
            told = True
        await asyncio.sleep(_POLL)


def _try(lock: int, kind: int) -> bool:
    with suppress(BlockingIOError):
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
        return True
    return False


def _open(path: Path, folders: DurableFolders) -> int:
    with storage_errors(path.parent):
        folders.ensure(path.parent)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)


def _open_to_share(path: Path, folders: DurableFolders) -> int | None:
    try:
        return _open(path, folders)
    except StorageError as error:
        if isinstance(error.__cause__, OSError) and error.__cause__.errno in _READ_ONLY:
            return _open_to_read(path)
        raise


def _open_to_read(path: Path) -> int | None:
    # Whoever owns the folder may still prune it, and made the file when he did.
    with suppress(OSError):
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    return None


def _close(lock: int | None) -> None:
    if lock is not None:
        os.close(lock)
