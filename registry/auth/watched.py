"""Small files that are read again when they change."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from registry.config import ConfigError
from storage.threads import finish

_LIMIT = 16 * 1024 * 1024
# A look at each request would be a third of what it costs to know who asks.
_LOOK_SECONDS = 0.1
T = TypeVar("T")
_log = logging.getLogger("registry")


def read_small(path: Path, place: str | None = None) -> bytes:
    """Returns a whole file; raises ConfigError where it cannot be read, or is longer than such a file can be.

    `place` is what messages call it: its path, where nothing is said.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_LIMIT + 1)
    except OSError as error:
        raise ConfigError(f"{place or path}: {error.strerror or error}") from error
    if len(data) > _LIMIT:
        raise ConfigError(f"{place or path}: longer than {_LIMIT >> 20} MiB")
    return data


class Watched(Generic[T]):
    """What a file says. While a new version cannot be used, what the last one said stays in force.

    Attributes:
        value: what it says.

    Args:
        path: of the file.
        parse: makes a value of its bytes; raises ConfigError.
        missing: what stands for a file that is not there; None where there has to be one.
        place: what messages call it: its path, where nothing is said.

    Raises:
        ConfigError: the file cannot be read, or not be used, to begin with.
    """

    def __init__(
        self, path: Path, parse: Callable[[bytes], T], *, missing: bytes | None = None, place: str | None = None
    ) -> None:
        self._path = path
        self._place = place
        self._missing = missing
        self._parse = parse
        self._seen = self._version()
        self._looked = time.monotonic()
        self.value = self._load()

    def is_current(self) -> bool:
        """Whether the file is as it was when it was read, or was so within the last tenth of a second."""
        now = time.monotonic()
        if now - self._looked < _LOOK_SECONDS:
            return True
        if self._version() != self._seen:
            return False
        self._looked = now
        return True

    async def refresh(self) -> None:
        """Reads the file, in a thread, where it has changed.

        Whoever asks meanwhile gets the value before. A cancelled call has read it all the same.
        """
        if not self.is_current():
            self._seen, self._looked = self._version(), time.monotonic()
            await finish(self._reload)

    def _reload(self) -> None:
        try:
            self.value = self._load()
        except ConfigError as error:
            _log.error("%s; what %s said before stays in force", error.message, self._path)
        else:
            _log.info("%s has changed, what it says now is in force", self._path)

    def _load(self) -> T:
        if self._missing is not None and not self._path.exists():
            return self._parse(self._missing)
        return self._parse(read_small(self._path, self._place))

    def _version(self) -> tuple[int, ...] | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return (found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_size)
