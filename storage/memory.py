"""The engine in memory: for tests, and for registries that may forget."""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_right
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

from ocispec.digest import Hash
from ocispec.errors import ObjectTooLong, PathUnknown, StorageFull, UploadBusy
from storage.engine import INLINE, PIECE, Stat
from storage.threads import finish

_LOCK_SECONDS = 5.0
# About what an object costs beside its bytes: itself, its lock, its name, the folders that only it needs.
_OBJECT_BYTES = 1024

_Entry = TypeVar("_Entry", bound="_Folder | _Object")


class MemoryEngine:
    """Implements `storage.engine.Engine` in one process; nothing survives it.

    Args:
        limit: bytes that all objects together may take; `StorageFull` beyond. None sets no limit.
    """

    def __init__(self, limit: int | None = None) -> None:
        self._root = _Folder()
        self._space = _Space(limit)

    async def start(self) -> None:
        """Nothing to make ready."""

    async def read(self, path: str, limit: int) -> bytes:
        data = self._object(path).data
        if len(data) > limit:
            raise ObjectTooLong(f"{path}: longer than {limit} bytes")
        return bytes(data)

    async def stat(self, path: str) -> Stat:
        found = self._object(path)
        return Stat(len(found.data), found.modified)

    async def open(self, path: str) -> MemoryContent:
        return MemoryContent(self._object(path).data)

    async def write(self, path: str, data: bytes, *, durable: bool = True) -> None:  # noqa: ARG002 - the protocol's
        self._space.take(len(data) + _OBJECT_BYTES, path)
        self._put(path, _Object(bytearray(data)))

    @asynccontextmanager
    async def append(self, path: str) -> AsyncIterator[MemoryAppender]:
        found = self._object(path)
        try:
            await asyncio.wait_for(found.lock.acquire(), _LOCK_SECONDS)
        except TimeoutError:
            raise UploadBusy from None
        try:
            if self._find(path) is not found:
                raise PathUnknown(f"{path}: nothing here")
            yield MemoryAppender(found, self._space, path)
        finally:
            found.lock.release()

    async def move(self, source: str, target: str) -> None:
        moved = self._object(source)
        self._take_out(source)
        self._put(target, moved)

    async def delete(self, path: str, *, durable: bool = True) -> None:  # noqa: ARG002 - as above
        removed = self._take_out(path)
        if removed is not None:
            self._space.free(removed)

    async def discard(self, paths: Sequence[str]) -> None:
        for each in paths:
            await self.delete(each)

    async def prune(self, path: str) -> None:
        """Folders are only what lies below them."""

    async def children(self, path: str, after: str = "", limit: int | None = None) -> list[str]:
        found = self._find(path)
        if not isinstance(found, _Folder):
            return []
        names = found.in_order()
        start = bisect_right(names, after)
        return names[start : None if limit is None else start + limit]

    def _find(self, path: str) -> _Folder | _Object | None:
        found: _Folder | _Object | None = self._root
        for name in path.split("/") if path else ():
            found = found.entries.get(name) if isinstance(found, _Folder) else None
        return found

    def _object(self, path: str) -> _Object:
        found = self._find(path)
        if not isinstance(found, _Object):
            raise PathUnknown(f"{path}: nothing here")
        return found

    def _put(self, path: str, entry: _Object) -> None:
        *above, name = path.split("/")
        folder = self._root
        for each in above:
            below = folder.entries.get(each)
            if not isinstance(below, _Folder):
                below = self._enter(folder, each, _Folder())
            folder = below
        self._enter(folder, name, entry)

    def _enter(self, folder: _Folder, name: str, entry: _Entry) -> _Entry:
        former = folder.enter(name, entry)
        if former is not None:
            self._space.free(former)
        return entry

    def _take_out(self, path: str) -> _Folder | _Object | None:
        """Removes an entry, and the folders that only it held."""
        folders = [self._root]
        *above, name = path.split("/")
        for each in above:
            below = folders[-1].entries.get(each)
            if not isinstance(below, _Folder):
                return None
            folders.append(below)
        removed = folders[-1].leave(name)
        for each, folder in zip(reversed(above), reversed(folders[:-1]), strict=True):
            if folder.entries[each].entries:  # type: ignore[union-attr]  # all above are folders
                break
            folder.leave(each)
        return removed


class _Folder:
    def __init__(self) -> None:
        self.entries: dict[str, _Folder | _Object] = {}
        self._in_order: list[str] | None = None

    def in_order(self) -> list[str]:
        if self._in_order is None:
            self._in_order = sorted(self.entries)
        return self._in_order

    def enter(self, name: str, entry: _Folder | _Object) -> _Folder | _Object | None:
        """Returns what was there."""
        former = self.entries.get(name)
        if former is None:
            self._in_order = None
        self.entries[name] = entry
        return former

    def leave(self, name: str) -> _Folder | _Object | None:
        self._in_order = None
        return self.entries.pop(name, None)


class _Object:
    def __init__(self, data: bytearray) -> None:
        self.data = data
        self.modified = time.time()
        self.lock = asyncio.Lock()


class _Space:
    """How many bytes are left."""

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self._left = limit or 0

    def take(self, count: int, path: str) -> None:
        if self._limit is not None and count > self._left:
            raise StorageFull(f"{path}: no space left of {self._limit} bytes of memory")
        self._left -= count

    def give(self, count: int) -> None:
        self._left += count

    def free(self, removed: _Folder | _Object) -> None:
        if isinstance(removed, _Object):
            self.give(len(removed.data) + _OBJECT_BYTES)
            return
        for each in removed.entries.values():
            self.free(each)


class MemoryContent:
    """Implements `storage.engine.Content`: an object that is opened grows no more, so its bytes need not be copied."""

    def __init__(self, held: bytearray) -> None:
        self._held = held
        self.size = len(held)
        self.data = bytes(held) if self.size <= INLINE else None

    def detach(self) -> int | None:
        return None

    async def stream(self, offset: int, count: int) -> AsyncGenerator[bytes, None]:
        for start in range(offset, offset + count, PIECE):
            yield bytes(self._held[start : min(start + PIECE, offset + count)])

    async def close(self) -> None:
        """Nothing is held."""


class MemoryAppender:
    """Implements `storage.engine.Appender`."""

    def __init__(self, target: _Object, space: _Space, path: str) -> None:
        self._target = target
        self._space = space
        self._path = path

    @property
    def size(self) -> int:
        return len(self._target.data)

    async def write(self, data: bytes | bytearray | memoryview, running: Hash | None = None) -> None:
        self._space.take(len(data), self._path)
        self._target.data += data
        if running:
            await finish(running.update, data)

    async def truncate(self, size: int) -> None:
        self._space.give(self.size - size)
        del self._target.data[size:]

    async def read(self, offset: int) -> AsyncIterator[bytes]:
        for start in range(offset, self.size, PIECE):
            yield bytes(self._target.data[start : start + PIECE])
