"""A tar, written as a stream: the same content gives the same bytes, and memory holds one piece of it."""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import BinaryIO, TypeAlias
from uuid import uuid4

from client.archive.flow import ready
from client.archive.headers import BLOCK, padded
from ocispec.errors import ContentTruncated, PathUnknown, StorageError
from storage import durable
from storage.ingest import storage_errors
from storage.threads import acquire, finish

Write: TypeAlias = Callable[[bytes], Awaitable[None]]


class TarWriter:
    """Members one after the other, owned by root, of the year 1970; `close` ends the archive.

    Args:
        write: takes the next bytes.
    """

    def __init__(self, write: Write) -> None:
        self._write = write

    async def folder(self, name: str) -> None:
        await self._write(_header(name, tarfile.DIRTYPE, 0o755, 0))

    async def file(self, name: str, data: bytes) -> None:
        await self._write(
            _header(name, tarfile.REGTYPE, 0o644, len(data)) + data + bytes(padded(len(data)) - len(data))
        )

    async def stream(self, name: str, size: int, pieces: AsyncIterator[bytes]) -> None:
        """Writes a file of `size` bytes.

        Raises:
            ContentTruncated: other than `size` bytes came.
        """
        await self._write(_header(name, tarfile.REGTYPE, 0o644, size))
        came = 0
        async for piece in pieces:
            came += len(piece)
            await self._write(piece)
        if came != size:
            raise ContentTruncated(f"{name}: expected {size} bytes, {came} came")
        await self._write(bytes(padded(size) - size))

    async def close(self) -> None:
        await self._write(bytes(2 * BLOCK))


def _header(name: str, kind: bytes, mode: int, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.size = kind, mode, size
    # pax, for sha512's names and sizes from 8 GiB on; a plain ustar header otherwise.
    return info.tobuf(tarfile.PAX_FORMAT)


@asynccontextmanager
async def written(target: Path) -> AsyncIterator[Write]:
    """Gives what writes a file, which appears under its name, durably, once the context ends well.

    Left by an error or a cancellation, the target is as it was. What is no file, a device or a named pipe, is written
    to as it is.

    Raises:
        StorageError: it cannot be written (`PathUnknown`: its folder is not there; `StorageFull`).
    """
    place = await finish(_place, target)
    if place is None:
        async with _special(target) as write:
            yield write
        return
    temporary = place.with_name(f".pullclient-{uuid4().hex}")
    file = await acquire(lambda file: _discard(file, temporary), _open, temporary, target)
    try:
        yield lambda data: finish(_put, file, data, target)
        await finish(_commit, file, temporary, place)
    finally:
        await finish(_discard, file, temporary)


@asynccontextmanager
async def flowing(fd: int, name: Path) -> AsyncIterator[Write]:
    """Gives what writes to an open file descriptor.

    A pipe is waited for without a thread, so that a cancellation ends it at once, whatever its reader does.

    Raises:
        StorageError: it cannot be written; the message begins with `name`.
    """
    pipe = await finish(_unblocked, fd)

    async def write(data: bytes) -> None:
        rest = memoryview(data)
        with storage_errors(name):
            while rest:
                rest = rest[await _some(fd, pipe, rest) :]

    try:
        yield write
    finally:
        if pipe is not None:
            os.close(pipe)


async def _some(fd: int, pipe: int | None, data: memoryview) -> int:
    if pipe is None:
        return await finish(os.write, fd, data)
    while True:
        try:
            return os.write(pipe, data)
        except BlockingIOError:
            await ready(pipe, writing=True)


def _unblocked(fd: int) -> int | None:
    # Opened anew: whether an open file blocks is shared with every process that has it, the user's shell among them.
    with suppress(OSError):
        if stat.S_ISFIFO(os.fstat(fd).st_mode):
            return os.open(f"/dev/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    return None


def _place(target: Path) -> Path | None:
    """Returns the file that a path leads to, through links; None where there is something that is none."""
    with storage_errors(target):
        place = Path(os.path.realpath(target))
        if not place.parent.is_dir():
            raise PathUnknown(f"{target}: its folder does not exist")
        if place.is_dir():
            raise StorageError(f"{target} is a folder, expected a file")
        return place if place.is_file() or not place.exists() else None


@asynccontextmanager
async def _special(target: Path) -> AsyncIterator[Write]:
    with storage_errors(target):
        fd = os.open(target, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        async with flowing(fd, target) as write:
            yield write
    finally:
        os.close(fd)


def _open(temporary: Path, target: Path) -> BinaryIO:
    with storage_errors(target):
        return temporary.open("xb", buffering=0)


def _put(file: BinaryIO, data: bytes, target: Path) -> None:
    rest = memoryview(data)
    with storage_errors(target):
        while rest:
            rest = rest[file.write(rest) :]


def _commit(file: BinaryIO, temporary: Path, place: Path) -> None:
    with storage_errors(place):
        os.fsync(file.fileno())
        temporary.replace(place)
        durable.sync_folder(place.parent)


def _discard(file: BinaryIO, temporary: Path) -> None:
    file.close()
    temporary.unlink(missing_ok=True)
