"""The folder of an image layout's blobs: walking it, checking it, taking things out of it.

Everything but `walk` and `check` blocks: call it from a worker thread.
"""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncIterator, Callable, Generator, Iterable
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from ocispec.digest import HEX_LENGTHS, Digest, Verifier
from ocispec.errors import DigestInvalid, PathUnknown
from storage import durable
from storage.ingest import PIECE, storage_errors
from storage.partials import quarantine_of
from storage.threads import acquire, finish

_WALKED_AT_ONCE = 512
# How much is hashed in one visit to a thread: a cancelled call ends after so much at the latest.
_HASHED_AT_ONCE = 32 * PIECE


@dataclass(frozen=True, slots=True)
class Stored:
    """A blob as it lies there: its bytes on disk, and when they came, in seconds since the epoch."""

    digest: Digest
    size: int
    modified: float


def path_of(root: Path, digest: Digest) -> Path:
    return root / "blobs" / digest.algorithm / digest.hex


async def walk(root: Path) -> AsyncIterator[Stored]:
    """Yields every blob, a few hundred per visit to a thread; what is no blob is passed over.

    Raises:
        StorageError: a folder cannot be read.
    """
    found = _walk(root)
    try:
        while some := await finish(lambda: list(islice(found, _WALKED_AT_ONCE))):
            for each in some:
                yield each
    finally:
        found.close()


async def check(root: Path, digest: Digest, folders: durable.DurableFolders, told: Callable[[int], None]) -> bool:
    """Hashes a blob, and moves one that is bad to quarantine; see `ImageLayout.check`."""
    path = path_of(root, digest)
    with storage_errors(path):
        fd = await acquire(os.close, os.open, path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            verifier, buffer = Verifier(digest), memoryview(bytearray(PIECE))
            while count := await finish(_hash, fd, verifier, buffer):
                told(count)
            if verifier.verified():
                return True
        except OSError as error:
            # The disk has lost it. Every other refusal says nothing about the bytes.
            if error.errno != errno.EIO:
                raise
        finally:
            held = os.fstat(fd)
            os.close(fd)
        await finish(_quarantine, root, digest, held, folders)
        return False


def delete(root: Path, digests: Iterable[Digest]) -> int:
    """Removes blobs, durably, and returns how many bytes that freed; one that is not there is no error."""
    freed, touched = 0, set()
    for digest in digests:
        path = path_of(root, digest)
        with storage_errors(path), suppress(FileNotFoundError):
            size = path.stat().st_size
            path.unlink()
            freed += size
            touched.add(path.parent)
    for folder in touched:
        with storage_errors(folder):
            durable.sync_folder(folder)
    return freed


def _walk(root: Path) -> Generator[Stored, None, None]:
    for algorithm in HEX_LENGTHS:
        folder = root / "blobs" / algorithm
        with storage_errors(folder), suppress(FileNotFoundError), os.scandir(folder) as entries:
            for entry in entries:
                with suppress(DigestInvalid, FileNotFoundError):
                    digest = Digest.parse(f"{algorithm}:{entry.name}")
                    if entry.is_file():
                        found = entry.stat()
                        yield Stored(digest, found.st_size, found.st_mtime)


def _hash(fd: int, verifier: Verifier, buffer: memoryview) -> int:
    hashed = 0
    while hashed < _HASHED_AT_ONCE and (count := os.readv(fd, [buffer])):
        verifier.update(buffer[:count])
        hashed += count
    return hashed


def _quarantine(root: Path, digest: Digest, held: os.stat_result, folders: durable.DurableFolders) -> None:
    path, away = path_of(root, digest), quarantine_of(root, digest)
    with suppress(PathUnknown), storage_errors(path):
        durable.move(path, away, folders)
        durable.sync_folder(path.parent)
        # Somebody may have put the right bytes there since they were read.
        if not os.path.samestat(held, away.stat()):
            durable.move(away, path, folders)
