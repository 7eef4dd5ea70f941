"""A blob on its way into an image layout."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Self
from uuid import uuid4

from ocispec.digest import Digest, Verifier
from ocispec.errors import ContentTruncated, DigestMismatch, PathUnknown, StorageError, StorageFull
from storage import durable
from storage.threads import acquire, finish

PIECE = 1024 * 1024


class Ingest:
    """One blob on its way in: written to a file of its own, hashed while it arrives, there only once it is verified.

    Hashing and writing take one visit to a worker thread per `PIECE`, while the next piece arrives. Leaving the
    context without `commit`, by an error or a cancellation too, leaves nothing behind.

    Attributes:
        received: how many bytes came so far.
    """

    _file: BinaryIO

    def __init__(self, digest: Digest, size: int, scratch: Path, target: Path, folders: durable.DurableFolders) -> None:
        self.received = 0
        self._size = size
        self._verifier = Verifier(digest)
        self._target = target
        self._temporary = scratch / uuid4().hex
        self._folders = folders
        self._pending: list[bytes] = []
        self._pending_size = 0
        self._absorbing: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._file = await acquire(self._discard, self._open)
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            if self._absorbing:
                await asyncio.gather(self._absorbing, return_exceptions=True)
        finally:
            await finish(self._discard, self._file)

    async def write(self, data: bytes) -> None:
        """Takes the next bytes; returns before they are on disk.

        Raises:
            DigestMismatch: more bytes came than the blob has.
            StorageError: an earlier piece could not be written.
        """
        self.received += len(data)
        if self.received > self._size:
            raise DigestMismatch(f"more than the expected {self._size} bytes came")
        self._pending.append(data)
        self._pending_size += len(data)
        if self._pending_size >= PIECE:
            await self._settle()
            self._absorbing = asyncio.create_task(finish(self._absorb, self._take()))

    async def commit(self) -> None:
        """Verifies the content and puts it in its place, durably.

        Raises:
            ContentTruncated: fewer bytes came than the blob has.
            DigestMismatch: they have another digest.
            StorageError: they could not be written.
        """
        await self._settle()
        await finish(self._commit, self._take())

    async def _settle(self) -> None:
        if self._absorbing:
            await self._absorbing
            self._absorbing = None

    def _take(self) -> list[bytes]:
        taken, self._pending, self._pending_size = self._pending, [], 0
        return taken

    def _open(self) -> BinaryIO:
        with storage_errors(self._temporary):
            self._folders.ensure(self._temporary.parent)
            return self._temporary.open("xb", buffering=0)

    def _absorb(self, pieces: list[bytes]) -> None:
        with storage_errors(self._target):
            for piece in pieces:
                self._verifier.update(piece)
                durable.write_all(self._file.write, piece)

    def _commit(self, pieces: list[bytes]) -> None:
        self._absorb(pieces)
        if self.received < self._size:
            raise ContentTruncated(f"ended after {self.received} of {self._size} bytes")
        if not self._verifier.verified():
            raise DigestMismatch(f"expected {self._verifier.digest}, its content hashes to {self._verifier.actual}")
        with storage_errors(self._target):
            os.fsync(self._file.fileno())
            durable.move(self._temporary, self._target, self._folders)

    def _discard(self, file: BinaryIO) -> None:
        file.close()
        with storage_errors(self._temporary):
            self._temporary.unlink(missing_ok=True)


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Says what the system refused: PathUnknown where nothing is, StorageFull without space, else StorageError."""
    try:
        yield
    except FileNotFoundError as error:
        raise PathUnknown(f"{path} does not exist") from error
    except OSError as error:
        kind = StorageFull if error.errno in (errno.ENOSPC, errno.EDQUOT) else StorageError
        raise kind(f"{path}: {error.strerror or error}") from error
