"""The name by which an instance knows requests of its own again, on whatever way they come back.

It lies with the images, so that all processes that serve them, now and after a restart, have the same.
"""

from __future__ import annotations

import logging
import os
import re
from contextlib import suppress
from pathlib import Path
from secrets import token_hex

_log = logging.getLogger("registry")
_FILE = "mirror-instance"
_NAME = re.compile(r"layerhouse-[0-9a-f]{16}")


def instance(folder: Path) -> str:
    """Returns the name, which the first process to ask gives; where it cannot be kept, this process has its own."""
    name = f"layerhouse-{token_hex(8)}"
    file = folder / _FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        own = folder / f"{_FILE}-{name}"
        own.write_text(name)
        # Whoever is second gets the first one's, whole.
        with suppress(FileExistsError):
            os.link(own, file)
        own.unlink()
        name = file.read_text()
    except OSError as error:
        _log.warning("%s: %s: loops of mirrors are noticed by one process at a time", file, error.strerror)
        return name
    if not _NAME.fullmatch(name):
        _log.warning("%s holds no name of an instance: remove it", file)
        return f"layerhouse-{token_hex(8)}"
    return name
