"""Where the images lie, as `storage` of the configuration has it."""

from __future__ import annotations

import asyncio
import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from registry import exclusion
from registry.config import Settings
from registry.config.values import ConfigError
from storage.engine import Engine
from storage.files import FilesEngine
from storage.memory import MemoryEngine

_log = logging.getLogger("registry")
_MIB = 1 << 20
_CGROUP = Path("/sys/fs/cgroup/memory.max")


def engine(settings: Settings) -> Engine:
    """Returns the engine of a process that serves."""
    if settings.storage.inmemory is not None:
        return MemoryEngine(half_of_memory())
    return FilesEngine(settings.storage.filesystem.rootdirectory)


@contextmanager
def prepared(settings: Settings) -> Iterator[Settings]:
    """Makes the storage ready before anything listens, says in a line where the images are, and clears up at the end.

    Yields:
        The settings to serve by: images in memory have a state directory for the time, unless they were given one.

    Raises:
        ConfigError: several processes are to share what lies in the memory of one.
        StorageError: the storage cannot be written to, or its garbage is being collected.
    """
    if settings.storage.inmemory is None:
        root = settings.storage.filesystem.rootdirectory.absolute()
        asyncio.run(FilesEngine(root).start())
        exclusion.share(settings)
        _log.info("images are kept in %s", root)
        yield settings
        return
    if settings.layerhouse.workers > 1:
        raise ConfigError(
            f"storage.inmemory: images in memory are those of one process, layerhouse.workers is"
            f" {settings.layerhouse.workers}: expected 1"
        )
    _log.warning("images are kept in memory, up to %d MiB, and are gone at the end", half_of_memory() // _MIB)
    if settings.layerhouse.statedirectory:
        yield settings
        return
    with tempfile.TemporaryDirectory(prefix="layerhouse-") as folder:
        layerhouse = settings.layerhouse.model_copy(update={"statedirectory": Path(folder)})
        yield settings.model_copy(update={"layerhouse": layerhouse})


def half_of_memory() -> int:
    """Bytes that images in memory may take: half of what the machine has, or of what the container may have."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with suppress(OSError, ValueError):  # no cgroup, or one without a limit ("max")
        total = min(total, int(_CGROUP.read_text()))
    return total // 2
