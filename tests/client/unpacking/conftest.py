from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from client.unpacking.headers import entries
from client.unpacking.source import Source
from client.unpacking.tree import Tree


def go_on() -> None:
    """Never stops."""


class Growing:
    """A tree on disk that layers, given as plain tars, are put on."""

    def __init__(self, root: Path, stop: Callable[[], None] = go_on) -> None:
        root.mkdir()
        self.root = root
        self.tree = Tree(os.open(root, os.O_RDONLY), stop)

    def put(self, *layers: bytes) -> None:
        for each in layers:
            self.tree.begin()
            source = Source(iter([each]))
            for entry in entries(source):
                self.tree.apply(entry, source.body(entry.size))

    def end(self) -> Path:
        self.tree.settle()
        return self.root


@pytest.fixture
def grow(tmp_path: Path) -> Iterator[Callable[..., Growing]]:
    """Makes trees in the test's folder; all are closed with it."""
    made: list[Growing] = []

    def one(stop: Callable[[], None] = go_on) -> Growing:
        made.append(Growing(tmp_path / f"out{len(made) or ''}", stop))
        return made[-1]

    yield one
    for each in made:
        each.tree.close()


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that everybody can reach and write."""
    place = Path(tempfile.mkdtemp())
    place.chmod(0o777)
    yield place
    shutil.rmtree(place)
