"""A file system that is soon full."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.peers import find


@contextmanager
def tmpfs(folder: Path, size: int) -> Iterator[Path]:
    """Mounts a tmpfs of `size` bytes on a new folder; use it under `@pytest.mark.peer("tmpfs")`."""
    folder.mkdir()
    subprocess.run([find("mount"), "-t", "tmpfs", "-o", f"size={size}", "layerhouse-test", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run([find("umount"), folder], check=True)
