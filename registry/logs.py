"""Logging through the standard library, with a formatter whose cost is small beside that of a request."""

from __future__ import annotations

import logging
import time

_LEVELS = {"error": logging.ERROR, "warn": logging.WARNING, "info": logging.INFO, "debug": logging.DEBUG}


class Formatter(logging.Formatter):
    """`2026-01-31T12:00:00.123Z info message`, the second rendered once for all of its records."""

    def __init__(self) -> None:
        super().__init__()
        self._second = 0
        self._text = ""

    def format(self, record: logging.LogRecord) -> str:
        second = int(record.created)
        if second != self._second:
            self._text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
            self._second = second
        line = f"{self._text}.{int(record.msecs):03}Z {record.levelname.lower()} {record.getMessage()}"
        return line if record.exc_info is None else f"{line}\n{self.formatException(record.exc_info)}"


def configure(level: str) -> None:
    """Sends the records of this process to stderr, at `level` (error, warn, info, debug) and above."""
    # None of these appear in a line, and each costs on every record (logging, "Optimization").
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    handler = logging.StreamHandler()
    handler.setFormatter(Formatter())
    logger = logging.getLogger("registry")
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(_LEVELS[level])
