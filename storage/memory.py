"""The engine in memory: for tests, and for registries that may forget."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

from ocispec.digest import Hash
from ocispec.errors import ObjectTooLong, PathUnknown, UploadBusy
from storage.engine import PIECE, Stat

_LOCK_SECONDS = 5.0


class MemoryEngine:
    """Implements `storage.engine.Engine` in one process; nothing survives it."""

    def __init__(self) -> None:
        self._objects: dict[str, _Object] = {}

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
        return MemoryContent(bytes(self._object(path).data))

    async def write(self, path: str, data: bytes, *, durable: bool = True) -> None:  # noqa: ARG002 - the protocol's
        self._objects[path] = _Object(bytearray(data))

    @asynccontextmanager
    async def append(self, path: str) -> AsyncIterator[MemoryAppender]:
        found = self._object(path)
        try:
            await asyncio.wait_for(found.lock.acquire(), _LOCK_SECONDS)
        except TimeoutError:
            raise UploadBusy from None
        try:
            if self._objects.get(path) is not found:
                raise PathUnknown(f"{path}: nothing here")
            yield MemoryAppender(found)
        finally:
            found.lock.release()

    async def move(self, source: str, target: str) -> None:
        moved = self._object(source)
        self._objects[target] = moved
        del self._objects[source]

    async def delete(self, path: str, *, durable: bool = True) -> None:  # noqa: ARG002 - as above
        for each in [name for name in self._objects if name == path or name.startswith(f"{path}/")]:
            del self._objects[each]

    async def children(self, path: str) -> list[str]:
        start = len(path) + 1
        return sorted({name[start:].partition("/")[0] for name in self._objects if name.startswith(f"{path}/")})

    def _object(self, path: str) -> _Object:
        try:
            return self._objects[path]
        except KeyError:
            raise PathUnknown(f"{path}: nothing here") from None


class _Object:
    def __init__(self, data: bytearray) -> None:
        self.data = data
        self.modified = time.time()
        self.lock = asyncio.Lock()


class MemoryContent:
    """Implements `storage.engine.Content`; every content comes read."""

    def __init__(self, data: bytes) -> None:
        self.data: bytes | None = data
        self.size = len(data)

    def detach(self) -> int | None:
        return None

    async def stream(self, offset: int, count: int) -> AsyncGenerator[bytes, None]:
        for start in range(offset, offset + count, PIECE):
            yield (self.data or b"")[start : min(start + PIECE, offset + count)]

    async def close(self) -> None:
        """Nothing is held."""


class MemoryAppender:
    """Implements `storage.engine.Appender`."""

    def __init__(self, target: _Object) -> None:
        self._target = target

    @property
    def size(self) -> int:
        return len(self._target.data)

    async def write(self, data: bytes | bytearray | memoryview, running: Hash | None = None) -> None:
        self._target.data += data
        if running:
            running.update(data)

    async def truncate(self, size: int) -> None:
        del self._target.data[size:]

    async def read(self, offset: int) -> AsyncIterator[bytes]:
        for start in range(offset, self.size, PIECE):
            yield bytes(self._target.data[start : start + PIECE])
