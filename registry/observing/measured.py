"""An engine whose calls are timed, under Distribution's names for them."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

from registry.observing.metrics import Actions
from storage.engine import Appender, Content, Engine, Stat

T = TypeVar("T")


class MeasuredEngine:
    """Implements `storage.engine.Engine` by another."""

    def __init__(self, engine: Engine, actions: Actions) -> None:
        self._engine = engine
        self._actions = actions

    async def start(self) -> None:
        await self._engine.start()

    async def read(self, path: str, limit: int) -> bytes:
        return await self._timed("GetContent", self._engine.read(path, limit))

    async def stat(self, path: str) -> Stat:
        return await self._timed("Stat", self._engine.stat(path))

    async def open(self, path: str) -> Content:
        return await self._timed("Reader", self._engine.open(path))

    async def write(self, path: str, data: bytes, *, durable: bool = True) -> None:
        await self._timed("PutContent", self._engine.write(path, data, durable=durable))

    @asynccontextmanager
    async def append(self, path: str) -> AsyncIterator[Appender]:
        began = time.perf_counter()
        async with self._engine.append(path) as appender:
            self._actions.took("Writer", began)
            yield appender

    async def move(self, source: str, target: str) -> None:
        await self._timed("Move", self._engine.move(source, target))

    async def delete(self, path: str, *, durable: bool = True) -> None:
        await self._timed("Delete", self._engine.delete(path, durable=durable))

    async def discard(self, paths: Sequence[str]) -> None:
        await self._timed("Delete", self._engine.discard(paths))

    async def prune(self, path: str) -> None:
        await self._engine.prune(path)

    async def children(self, path: str, after: str = "", limit: int | None = None) -> list[str]:
        return await self._timed("List", self._engine.children(path, after, limit))

    async def _timed(self, action: str, call: Awaitable[T]) -> T:
        began = time.perf_counter()
        try:
            return await call
        finally:
            self._actions.took(action, began)
