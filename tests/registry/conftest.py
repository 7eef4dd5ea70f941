"""The endpoints over every engine."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from storage.engine import Engine
from storage.files import FilesEngine
from storage.memory import MemoryEngine
from tests.support.api import Api, serving


@pytest.fixture(params=["memory", "files"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Engine:
    return MemoryEngine() if request.param == "memory" else FilesEngine(tmp_path / "root")


@pytest.fixture
async def api(engine: Engine) -> AsyncIterator[Api]:
    async with serving(engine) as found:
        yield found
