"""The endpoints over every engine, and the protocol on every event loop."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import uvloop

from storage.engine import Engine
from storage.files import FilesEngine
from storage.memory import MemoryEngine
from tests.support.api import Api, serving
from tests.support.host import BIG, Host


@pytest.fixture(params=["memory", "files"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Engine:
    return MemoryEngine() if request.param == "memory" else FilesEngine(tmp_path / "root")


@pytest.fixture
async def api(engine: Engine) -> AsyncIterator[Api]:
    async with serving(engine) as found:
        yield found


@pytest.fixture(params=[uvloop.new_event_loop, asyncio.SelectorEventLoop], ids=["uvloop", "asyncio"])
def serve(request: pytest.FixtureRequest) -> Iterator[Callable[..., Host]]:
    """Serve an application on real sockets; arguments as Host."""
    with ExitStack() as ending:
        yield lambda app, **options: ending.enter_context(Host(app, request.param, **options))


@pytest.fixture
def big(tmp_path: Path) -> Path:
    path = tmp_path / "big"
    path.write_bytes(os.urandom(BIG))
    return path
