"""Work that one process does for all that serve the same storage: one leader, by a lock that dies with its holder."""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from ocispec.errors import StorageError
from storage.threads import acquire

_POLL = 1.0


async def lead(lock: Path, work: Callable[[], Awaitable[None]]) -> None:
    """Runs `work` as long as this process holds `lock`; until then, tries for it once a second.

    Cancelled, it cancels `work`, waits for its end, and lets go of the lock.

    Raises:
        StorageError: the lock's file cannot be made.
    """
    async with _held(lock):
        await work()


@asynccontextmanager
async def _held(lock: Path) -> AsyncIterator[None]:
    file = await acquire(os.close, _open, lock)
    try:
        while not _take(file):  # noqa: ASYNC110 - the other holder is another process
            await asyncio.sleep(_POLL)
        yield
    finally:
        os.close(file)


def _open(lock: Path) -> int:
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        return os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StorageError(f"{lock}: {error.strerror or error}") from error


def _take(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
