"""The engine on a file system: one file an object, and nothing kept in memory that the files do not say."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import stat
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

import aiofiles

from ocispec.digest import Hash
from ocispec.errors import ObjectTooLong, PathUnknown, StorageError, StorageFull, UploadBusy
from storage import durable
from storage.engine import INLINE, PIECE, Stat
from storage.listings import Listings
from storage.smallfiles import SmallFiles
from storage.threads import acquire, finish

SCRATCH = ".layerhouse/tmp"
SCRATCH_AGE = 24 * 3600.0

# Looking up a name and reading up to 64 KiB takes some 10 µs where the disk answers; a visit to a worker thread costs
# ten times as much. So both happen in place, until the disk once lets us wait: then in threads, for a while.
_SLOW = 0.02
_SLOW_FOR = 10.0

_LOCK_ATTEMPTS = 50
_LOCK_PAUSE = 0.1

T = TypeVar("T")


class FilesEngine:
    """Implements `storage.engine.Engine` below one folder.

    Temporary files lie in `<root>/.layerhouse/tmp`, outside of the tree that Distribution knows.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._scratch = root / SCRATCH
        self._folders = durable.DurableFolders(root)
        self._prefix = f"{root}/"
        self._slow_until = 0.0
        self._small = SmallFiles()
        self._listings = Listings()

    async def start(self) -> None:
        """Makes the root and removes what crashes left a day ago; raises StorageError where that is not allowed."""
        await finish(self._start)

    async def read(self, path: str, limit: int) -> bytes:
        return await self._quickly(_nothing, self._read, path, limit)

    async def stat(self, path: str) -> Stat:
        return await self._quickly(_nothing, self._stat, path)

    async def open(self, path: str) -> FileContent:
        return await self._quickly(FileContent.discard, self._open, path)

    async def write(self, path: str, data: bytes, *, durable: bool = True) -> None:
        await finish(self._write, path, data, durable)

    @asynccontextmanager
    async def append(self, path: str) -> AsyncIterator[FileAppender]:
        with self._naming(path):
            fd = await acquire(os.close, os.open, self._root / path, os.O_RDWR | os.O_APPEND)
        try:
            await _lock(fd)
            with self._naming(path):
                await asyncio.to_thread(self._same_file, fd, path)
            yield FileAppender(fd, path)
        finally:
            os.close(fd)

    async def move(self, source: str, target: str) -> None:
        await finish(self._move, source, target)

    async def delete(self, path: str, *, durable: bool = True) -> None:
        await finish(self._delete, path, durable)

    async def discard(self, paths: Sequence[str]) -> None:
        await finish(self._discard, paths)

    async def prune(self, path: str) -> None:
        # One that somebody fills at this moment stays, and an empty one harms nobody.
        with suppress(OSError):
            await finish(os.rmdir, self._root / path)

    async def children(self, path: str, after: str = "", limit: int | None = None) -> list[str]:
        folder = self._prefix + path
        try:
            if await self._quickly(_nothing, self._listings.is_quick, folder):
                return await self._quickly(_nothing, self._listings.page, folder, after, limit)
            return await asyncio.to_thread(self._listings.page, folder, after, limit)
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise _storage_error(path, error) from error

    def suspect(self) -> None:
        """Goes to worker threads for everything, for the next seconds: the disk lets us wait."""
        self._slow_until = time.monotonic() + _SLOW_FOR

    def _start(self) -> None:
        with self._failing(str(self._root)):
            self._folders.ensure(self._scratch)
            durable.purge(self._scratch, SCRATCH_AGE)

    async def _quickly(self, release: Callable[[T], None], work: Callable[..., T], *args: object) -> T:
        began = time.monotonic()
        if began < self._slow_until:
            return await acquire(release, work, *args)
        try:
            return work(*args)
        finally:
            if time.monotonic() - began > _SLOW:
                self.suspect()

    def _read(self, path: str, limit: int) -> bytes:
        try:
            data = self._small.read(self._prefix + path, limit)
        except OSError as error:
            raise _storage_error(path, error) from error
        if len(data) > limit:
            raise ObjectTooLong(f"{path}: longer than {limit} bytes")
        return data

    def _stat(self, path: str) -> Stat:
        try:
            found = os.stat(self._prefix + path)  # noqa: PTH116 - pathlib costs four times as much
        except OSError as error:
            raise _storage_error(path, error) from error
        if not stat.S_ISREG(found.st_mode):
            raise PathUnknown(f"{path}: nothing here")
        return Stat(found.st_size, found.st_mtime)

    def _open(self, path: str) -> FileContent:
        try:
            fd = os.open(self._prefix + path, os.O_RDONLY | os.O_CLOEXEC)
            size = os.fstat(fd).st_size
            if size > INLINE:
                return FileContent(path, size, fd=fd)
            try:
                return FileContent(path, size, data=os.pread(fd, size, 0))
            finally:
                os.close(fd)
        except OSError as error:
            raise _storage_error(path, error) from error

    def _write(self, path: str, data: bytes, lasting: bool) -> None:
        target = self._root / path
        with self._failing(path):
            if lasting:
                durable.write(target, data, self._scratch, self._folders)
            else:
                durable.write_quickly(target, data)

    def _move(self, source: str, target: str) -> None:
        with self._naming(source), (self._root / source).open("rb", buffering=0) as file:
            os.fsync(file.fileno())
        with self._failing(target):
            try:
                durable.move(self._root / source, self._root / target, self._folders)
            except FileNotFoundError:
                # Deleted since it was synced: an upload of a repository that is being removed.
                if not (self._root / source).exists():
                    raise PathUnknown(f"{source}: nothing here") from None
                raise

    def _delete(self, path: str, lasting: bool) -> None:
        target, grave = self._root / path, self._scratch / uuid4().hex
        with self._failing(path), suppress(FileNotFoundError):
            self._folders.ensure(self._scratch)
            target.rename(grave)
            if lasting:
                durable.sync_folder(target.parent)
        with self._failing(path):
            durable.remove(grave)

    def _discard(self, paths: Sequence[str]) -> None:
        for path in paths:
            with self._failing(path), suppress(FileNotFoundError, NotADirectoryError):
                os.unlink(self._prefix + path)  # noqa: PTH108 - pathlib costs as much as the call itself
            with suppress(OSError):
                os.rmdir(self._prefix + path.rpartition("/")[0])  # noqa: PTH106 - as above

    def _same_file(self, fd: int, path: str) -> None:
        held, named = os.fstat(fd), os.stat(self._root / path)  # noqa: PTH116 - beside fstat
        if (held.st_dev, held.st_ino) != (named.st_dev, named.st_ino):
            raise FileNotFoundError(errno.ENOENT, "moved away", path)

    @contextmanager
    def _naming(self, path: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise _storage_error(path, error) from error

    @contextmanager
    def _failing(self, path: str) -> Iterator[None]:
        """Around what makes its own path: nothing there is then no answer but a fault."""
        try:
            yield
        except OSError as error:
            raise _refused(path, error) from error


class FileContent:
    """Implements `storage.engine.Content`."""

    def __init__(self, path: str, size: int, *, data: bytes | None = None, fd: int | None = None) -> None:
        self.size = size
        self.data = data
        self._path = path
        self._fd = fd

    def detach(self) -> int | None:
        fd, self._fd = self._fd, None
        return fd

    async def stream(self, offset: int, count: int) -> AsyncGenerator[bytes, None]:
        if self.data is not None:
            yield self.data[offset : offset + count]
            return
        if self._fd is None:
            raise StorageError(f"{self._path}: read after it was closed")
        # With a handle of its own: the reader's lock keeps it open until a cancelled read has ended in its thread.
        async with aiofiles.open(os.dup(self._fd), "rb") as file:
            await file.seek(offset)
            while count:
                piece = await file.read(min(count, PIECE))
                if not piece:
                    raise StorageError(f"{self._path}: ended {count} bytes early")
                count -= len(piece)
                yield piece

    def discard(self) -> None:
        fd = self.detach()
        if fd is not None:
            os.close(fd)

    async def close(self) -> None:
        self.discard()


class FileAppender:
    """Implements `storage.engine.Appender` on a file that is locked for us."""

    def __init__(self, fd: int, path: str) -> None:
        self._fd = fd
        self._path = path
        self.size = os.fstat(fd).st_size

    async def write(self, data: bytes | bytearray | memoryview, running: Hash | None = None) -> None:
        await finish(self._write, memoryview(data), running)

    async def truncate(self, size: int) -> None:
        await finish(self._truncate, size)

    async def read(self, offset: int) -> AsyncIterator[bytes]:
        while piece := await finish(os.pread, self._fd, PIECE, offset):
            offset += len(piece)
            yield piece

    def _write(self, data: memoryview, running: Hash | None) -> None:
        try:
            durable.write_all(partial(os.write, self._fd), data)
        except OSError as error:
            self._truncate(self.size)
            raise _storage_error(self._path, error) from error
        if running:
            running.update(data)
        self.size += len(data)

    def _truncate(self, size: int) -> None:
        os.ftruncate(self._fd, size)
        self.size = size


async def _lock(fd: int) -> None:
    """Waits for the lock that the system drops when its holder dies."""
    for _ in range(_LOCK_ATTEMPTS):
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            await asyncio.sleep(_LOCK_PAUSE)
        else:
            return
    raise UploadBusy


def _nothing(_result: object) -> None:
    """Nothing to release."""


def _storage_error(path: str, error: OSError) -> StorageError:
    if isinstance(error, FileNotFoundError | NotADirectoryError | IsADirectoryError):
        return PathUnknown(f"{path}: nothing here")
    return _refused(path, error)


def _refused(path: str, error: OSError) -> StorageError:
    kind = StorageFull if error.errno in (errno.ENOSPC, errno.EDQUOT) else StorageError
    return kind(f"{path}: {error.strerror or error}")
