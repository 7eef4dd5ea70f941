"""Logging through the standard library, at a cost that is small beside that of a request."""

from __future__ import annotations

import asyncio
import logging
import time

_LEVELS = {"error": logging.ERROR, "warn": logging.WARNING, "info": logging.INFO, "debug": logging.DEBUG}
_GATHER_SECONDS = 0.05
_GATHER_LINES = 512


class Clock:
    """Renders times as `2026-01-31T12:00:00.123Z`, each second once."""

    def __init__(self) -> None:
        self._second = -1
        self._text = ""

    def render(self, now: float) -> str:
        second = int(now)
        if second != self._second:
            self._text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
            self._second = second
        return f"{self._text}.{int((now - second) * 1000):03}Z"


class Formatter(logging.Formatter):
    """`2026-01-31T12:00:00.123Z info message`."""

    def __init__(self) -> None:
        super().__init__()
        self._clock = Clock()

    def format(self, record: logging.LogRecord) -> str:
        line = f"{self._clock.render(record.created)} {record.levelname.lower()} {record.getMessage()}"
        return line if record.exc_info is None else f"{line}\n{self.formatException(record.exc_info)}"


class AccessLog:
    """One line a request, handed on together with those of the next 50 ms.

    A record of the standard library's costs as much as answering a manifest: here many lines share one. `kill -9` may
    take the last 50 ms of lines away; `flush` hands on what is left.
    """

    def __init__(self) -> None:
        self._logger = logging.getLogger("registry.access")
        self._clock = Clock()
        self._lines: list[str] = []

    @property
    def enabled(self) -> bool:
        return self._logger.isEnabledFor(logging.INFO)

    def add(self, line: str) -> None:
        """Adds a request's line, on the event loop's thread."""
        if not self._lines:
            asyncio.get_running_loop().call_later(_GATHER_SECONDS, self.flush)
        self._lines.append(f"{self._clock.render(time.time())} info {line}")
        if len(self._lines) >= _GATHER_LINES:
            self.flush()

    def flush(self) -> None:
        lines, self._lines = self._lines, []
        if lines:
            self._logger.info("%s", "\n".join(lines))


def configure(level: str) -> None:
    """Sends the records of this process to stderr, at `level` (error, warn, info, debug) and above."""
    for name, lowest in (("registry", logging.DEBUG), ("uvicorn", logging.WARNING)):
        _send(name, Formatter(), max(lowest, _LEVELS[level]))
    _send("registry.access", logging.Formatter("%(message)s"), _LEVELS[level])


def _send(name: str, formatter: logging.Formatter, level: int) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(formatter)
    logger = logging.getLogger(name)
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(level)
