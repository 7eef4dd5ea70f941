from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from client.caching.cache import Cache
from tests.client.scripted import ScriptedRegistry, scripted


@pytest.fixture
async def registry() -> AsyncIterator[ScriptedRegistry]:
    async with scripted() as server:
        yield server


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")
