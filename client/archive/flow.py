"""Bytes of files and pipes. Waiting for a pipe ends at once when cancelled: a thread that reads it could not."""

from __future__ import annotations

import asyncio
import fcntl
import os
import stat
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from client.archive.headers import padded
from ocispec.errors import ArchiveInvalid
from storage.ingest import storage_errors
from storage.threads import finish

PIECE = 1024 * 1024
# What may follow the end of an archive is read away, so that its writer's pipe does not break: tar pads to records.
_TRAILER = 16 * PIECE


async def pieces_of(fd: int, name: Path) -> AsyncGenerator[bytes, None]:
    """Yields what is read from a file, a pipe, a socket or a terminal until it ends.

    Raises:
        StorageError: it cannot be read; the message begins with `name`.
    """
    regular = stat.S_ISREG(os.fstat(fd).st_mode)
    _widen(fd)
    with storage_errors(name):
        while True:
            if not regular:
                regular = not await ready(fd, writing=False)
            piece = await finish(os.read, fd, PIECE) if regular else os.read(fd, PIECE)
            if not piece:
                return
            yield piece


def _widen(fd: int) -> None:
    # A pipe holds 64 KiB: each turn of the loop would bring no more. Not every system can, nor may every user.
    with suppress(AttributeError, OSError):
        fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, PIECE)


async def ready(fd: int, *, writing: bool) -> bool:
    """Waits until something can be read or written; returns false where that cannot be waited for, as with files."""
    loop, woken = asyncio.get_running_loop(), asyncio.Event()
    add: Callable[..., Any] = loop.add_writer if writing else loop.add_reader
    try:
        add(fd, woken.set)
    except PermissionError:  # so does Linux's epoll say it
        return False
    try:
        await woken.wait()
    finally:
        (loop.remove_writer if writing else loop.remove_reader)(fd)
    return True


class Flow:
    """Pieces, taken in other portions."""

    def __init__(self, pieces: AsyncIterator[bytes]) -> None:
        self._pieces = pieces
        self._piece = b""
        self._at = 0

    async def peek(self, count: int) -> bytes:
        """Returns the next bytes without taking them; fewer than `count` only at the end."""
        head = await self.take(count)
        self._piece, self._at = head + self._piece[self._at :], 0
        return head

    async def take(self, count: int) -> bytes:
        """Returns the next bytes; fewer than `count` only at the end."""
        taken = bytearray()
        while len(taken) < count and (piece := await self._next(count - len(taken))):
            taken += piece
        return bytes(taken)

    async def rest(self) -> AsyncGenerator[bytes, None]:
        """Yields all that is left."""
        while piece := await self._next(PIECE):
            yield piece

    async def body(self, size: int) -> AsyncGenerator[bytes, None]:
        """Yields a member's body, and takes its padding.

        Raises:
            ArchiveInvalid: the archive ends before.
        """
        left = size
        while left:
            piece = await self._next(left)
            if not piece:
                raise ArchiveInvalid(f"expected {size} bytes, the archive ends after {size - left}")
            left -= len(piece)
            yield piece
        await self.take(padded(size) - size)

    async def drain(self) -> None:
        """Reads away what follows the archive, within a bound."""
        left = _TRAILER
        while left > 0 and (piece := await self._next(PIECE)):
            left -= len(piece)

    async def _next(self, limit: int) -> bytes:
        if self._at >= len(self._piece):
            self._piece, self._at = await anext(self._pieces, b""), 0
        piece = self._piece[self._at : self._at + limit]
        self._at += len(piece)
        return piece
