"""One lock between servers that may write and the collector of garbage: many hold it together, or the collector alone.

The system drops it when its holder dies. A server that only reads needs none. Distribution's own servers know nothing
of it.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ocispec.errors import StorageError
from registry.config import Settings

LOCK = ".layerhouse/serving.lock"


def share(settings: Settings) -> None:
    """Holds the lock beside other servers, until this process ends, where the configuration lets it write.

    Raises:
        StorageError: garbage is being collected, or the lock's file cannot be made.
    """
    if settings.storage.maintenance.readonly.enabled or settings.storage.inmemory:
        return
    root = settings.storage.filesystem.rootdirectory
    _take(settings, fcntl.LOCK_SH, f"{root}: garbage is being collected: serve read-only, or wait for the end of it")


@contextmanager
def alone(settings: Settings) -> Iterator[None]:
    """Holds the lock alone; raises StorageError where a server holds it, or its file cannot be made."""
    root = settings.storage.filesystem.rootdirectory
    held = _take(
        settings,
        fcntl.LOCK_EX,
        f"{root}: a server that may write, or another collection, is running: stop it, or serve with"
        " storage.maintenance.readonly.enabled: true",
    )
    try:
        yield
    finally:
        os.close(held)


def _take(settings: Settings, kind: int, refusal: str) -> int:
    # In the root itself, wherever the state is kept: who names the root alone finds it too.
    held = _open(settings.storage.filesystem.rootdirectory / LOCK)
    try:
        fcntl.flock(held, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(held)
        raise StorageError(refusal) from None
    return held


def _open(lock: Path) -> int:
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        return os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StorageError(f"{lock}: {error.strerror or error}") from error
