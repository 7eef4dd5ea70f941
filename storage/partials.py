"""Blobs that arrive in parts, in any order, and go on where they ended.

<root>/.partial/<algorithm>/<hex>/data    the bytes, each at its place; locked (flock) by the one who fetches them
<root>/.partial/<algorithm>/<hex>/parts   a line `offset length` for each part that came whole; `clear` takes all back

The record is written after the part, so that after `kill -9` it names nothing that is not there. After a power loss it
may: the digest of the whole decides, and a blob that fails it is fetched again from its first byte. Others may read
along meanwhile, by the record (`storage.following`).
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from ocispec.digest import Digest, Verifier
from ocispec.errors import ContentTruncated, DigestMismatch
from storage import durable
from storage.extents import Extents
from storage.following import CLEAR, Followed, Following, Version, line, lines
from storage.ingest import storage_errors
from storage.threads import acquire, finish

FOLDER = ".partial"
QUARANTINE = ".quarantine"
# What a part may lose at `kill -9`: so much is written between two lines of the record.
RECORD_EVERY = 8 * 1024 * 1024
LOCK_POLL = 0.05
_PIECE = 1024 * 1024
# How much one part may hash of what others brought before it takes its own next bytes.
_CATCH_UP = 4 * _PIECE


class Partial:
    """One blob on its way, held by this task alone.

    Bytes are given by worker threads (`Part.take`), several at once for different parts. They are hashed in their order
    while they come; what came too early is read back once its turn has come.

    Attributes:
        size: of the whole, in bytes.
        every: how many bytes of a part come between two lines of the record.
        came: how many bytes of it are here.
        noticed: is called, in a worker thread, each time that bytes came or went.
    """

    def __init__(self, folder: Path, digest: Digest, size: int, fd: int, recorded: int) -> None:
        self.size = size
        self.every = RECORD_EVERY
        self._folder = folder
        self._digest = digest
        self._fd = fd
        self._recorded = recorded
        self._clears = 0
        self._extents = Extents()
        self._changing = threading.Lock()
        self._hashing = threading.Lock()
        self._verifier = Verifier(digest)
        self.noticed: Callable[[], None] = lambda: None
        with storage_errors(folder):
            self._restore()
            self._inode = os.fstat(self._recorded).st_ino

    @property
    def version(self) -> Version:
        """Which bytes these are, now: those that were read before are good if it is still the same."""
        return self._inode, self._clears

    @property
    def came(self) -> int:
        with self._changing:
            return self._extents.total

    def reach(self, offset: int) -> int:
        """Returns the offset behind the bytes that are here from `offset` on; `offset` where none are."""
        with self._changing:
            return self._extents.end_of(offset)

    def reader(self) -> int:
        """Returns a descriptor to read from, which stays good when the partial is closed; its owner closes it."""
        return os.dup(self._fd)

    def missing(self, limit: int) -> list[tuple[int, int]]:
        """Returns offset and length of all that is not here, in pieces of at most `limit` bytes."""
        with self._changing:
            gaps = self._extents.gaps(self.size)
        return [(at, min(limit, end - at)) for start, end in gaps for at in range(start, end, limit)]

    def part(self, offset: int, end: int) -> Part:
        """Returns what takes the bytes from `offset` up to `end`; parts must not overlap."""
        return Part(self, offset, end)

    def write(self, data: memoryview, offset: int) -> None:
        """Writes bytes at their place, in a worker thread; raises StorageFull, StorageError."""
        at = offset

        def put(piece: memoryview) -> int:
            nonlocal at
            count = os.pwrite(self._fd, piece, at)
            at += count
            return count

        with storage_errors(self._folder):
            durable.write_all(put, data)
        with self._changing:
            self._extents.add(offset, offset + len(data))
        self.noticed()
        self._hash(data, offset)

    def record(self, offset: int, length: int) -> None:
        """Enters a part that came whole, in a worker thread."""
        if length:
            with storage_errors(self._folder):
                os.write(self._recorded, line(offset, length))

    def clear(self) -> None:
        """Forgets all that came, in a worker thread, while no part is on its way."""
        if not self.came:
            return
        with self._changing:
            self._clears += 1
            self._extents, self._verifier = Extents(), Verifier(self._digest)
        with storage_errors(self._folder):
            # Told before it happens: who reads along looks whether it was told after he has read.
            os.write(self._recorded, CLEAR)
            os.ftruncate(self._fd, 0)

    def verify(self) -> None:
        """Hashes what is not hashed yet, in a worker thread; raises ContentTruncated, DigestMismatch."""
        self._catch_up(self.size)
        if self._verifier.size < self.size:
            raise ContentTruncated(f"ended after {self._verifier.size} of {self.size} bytes")
        if not self._verifier.verified():
            raise DigestMismatch(f"expected {self._digest}, its content hashes to {self._verifier.actual}")

    def move(self, target: Path, folders: durable.DurableFolders) -> None:
        """Puts the bytes, durably, where `target` says, and leaves nothing here; in a worker thread."""
        with storage_errors(target):
            os.fsync(self._fd)
            folders.ensure(target.parent)
            # The record goes first: once `data` is gone by its name, both names belong to whoever waited.
            (self._folder / "parts").unlink(missing_ok=True)
            durable.move(self._folder / "data", target, folders)
            self._leave()

    def discard(self) -> None:
        """Removes what came; in a worker thread."""
        with storage_errors(self._folder):
            for name in ("parts.new", "parts", "data"):
                (self._folder / name).unlink(missing_ok=True)
            self._leave()

    def _leave(self) -> None:
        with contextlib.suppress(OSError):  # another one is in it already
            self._folder.rmdir()

    def close(self) -> None:
        for each in (self._recorded, self._fd):
            os.close(each)

    def _hash(self, data: memoryview, offset: int) -> None:
        # Whoever does not get the lock leaves his bytes to those who come later.
        if not self._hashing.acquire(blocking=False):
            return
        try:
            if offset == self._verifier.size:
                self._verifier.update(data)
            else:
                self._catch_up(_CATCH_UP)
        finally:
            self._hashing.release()

    def _catch_up(self, limit: int) -> None:
        with self._changing:
            end = min(self._extents.end_of(self._verifier.size), self._verifier.size + limit)
        with storage_errors(self._folder):
            while self._verifier.size < end:
                piece = os.pread(self._fd, min(_PIECE, end - self._verifier.size), self._verifier.size)
                if not piece:
                    raise DigestMismatch(f"expected {self.size} bytes, {self._folder / 'data'} ends before")
                self._verifier.update(piece)

    def _restore(self) -> None:
        written = min(os.fstat(self._fd).st_size, self.size)
        os.ftruncate(self._fd, written)
        text = os.pread(self._recorded, 16 * _PIECE, 0)
        taken_back, cleared, said = text.rpartition(CLEAR)
        self._clears = (taken_back + cleared).count(CLEAR)
        named = [(at, length) for at, length in lines(said) if length <= written - at]
        for offset, length in named:
            self._extents.add(offset, offset + length)
        true = b"".join(line(*each) for each in named)
        if said != true:
            # What is torn would spoil the next line, and what is not there now would seem to be once the file grows.
            self._rewrite(true)

    def _rewrite(self, record: bytes) -> None:
        """Makes another file of it: who reads along must not take these lines for more of those."""
        made = _record(self._folder / "parts.new", os.O_TRUNC)
        os.dup2(made, self._recorded, inheritable=False)
        os.close(made)
        os.write(self._recorded, record)
        (self._folder / "parts.new").replace(self._folder / "parts")
        self._clears = 0


class Part:
    """Takes consecutive bytes of a blob, the next one at offset `at`, and keeps the record of them.

    What lies at `end` and behind belongs to others, and may be hashed already.
    """

    def __init__(self, blob: Partial, offset: int, end: int) -> None:
        self.at = offset
        self.end = end
        self._blob = blob
        self._recorded = offset

    def take(self, data: memoryview) -> None:
        """Takes the next bytes, in a worker thread.

        Raises:
            DigestMismatch: more bytes came than the part has; none of these is written.
            StorageFull, StorageError: they cannot be written.
        """
        if self.at + len(data) > self.end:
            raise DigestMismatch(f"more than the expected {self.end} of {self._blob.size} bytes came")
        self._blob.write(data, self.at)
        self.at += len(data)
        if self.at - self._recorded >= self._blob.every:
            self.close()

    def restart(self) -> None:
        """Becomes the whole blob, of which nothing is here, in a worker thread: the host begins with its first byte."""
        # What came before must not stay beside it: it is hashed already, and what comes now may differ.
        self._blob.clear()
        self.at, self.end, self._recorded = 0, self._blob.size, 0

    def close(self) -> None:
        """Records what came, in a worker thread."""
        self._blob.record(self._recorded, self.at - self._recorded)
        self._recorded = self.at


class Partials:
    """The partial blobs of one image layout.

    Args:
        root: the layout's.
        every: how many bytes of a part come between two lines of the record; `RECORD_EVERY` unless told.
    """

    def __init__(self, root: Path, every: int | None = None) -> None:
        self._root = root
        self._every = every
        self._folders = durable.DurableFolders(root)

    @asynccontextmanager
    async def opened(
        self, digest: Digest, size: int, along: Callable[[Followed], None] | None = None
    ) -> AsyncIterator[Partial]:
        """Opens a blob's partial, waiting while another task or process holds it.

        Whoever waited has to look whether the blob is whole by now. Leaving, by cancellation too, keeps what came.

        Args:
            digest: the blob.
            size: its length in bytes.
            along: is given what the other one brings, again and again, while this one waits; it stays open until the
                partial is left.

        Raises:
            StorageFull, StorageError: it cannot be opened.
        """
        folder = folder_of(self._root, digest)
        with contextlib.ExitStack() as closing:
            following = along and Following(folder, along, closing)
            # A file's lock tells nobody when it is free.
            while (fd := await acquire(_close, _locked, folder)) is None:
                if following:
                    await following.look()
                await asyncio.sleep(LOCK_POLL)
            partial = await acquire(Partial.close, _made, folder, digest, size, fd)
            closing.callback(partial.close)
            partial.every = RECORD_EVERY if self._every is None else self._every
            yield partial

    def held(self, digest: Digest) -> int:
        """Returns how many bytes of the disk a blob's partial takes; call it in a worker thread."""
        with contextlib.suppress(FileNotFoundError):
            return (folder_of(self._root, digest) / "data").stat().st_blocks * 512
        return 0

    async def keep(self, partial: Partial, target: Path) -> None:
        """Puts a verified blob in its place, durably, and leaves no partial; raises StorageFull, StorageError."""
        await finish(partial.move, target, self._folders)

    async def quarantine(self, partial: Partial, digest: Digest) -> None:
        """Moves bytes that are not those of the digest to where nothing serves them."""
        await finish(partial.move, quarantine_of(self._root, digest), self._folders)


def folder_of(root: Path, digest: Digest) -> Path:
    return root / FOLDER / digest.algorithm / digest.hex


def quarantine_of(root: Path, digest: Digest) -> Path:
    return root / QUARANTINE / digest.algorithm / digest.hex


def _locked(folder: Path) -> int | None:
    """Opens and locks the data; None where another one holds it, or has just moved it away."""
    with storage_errors(folder), contextlib.suppress(BlockingIOError, FileNotFoundError, FileExistsError):
        folder.mkdir(parents=True, exist_ok=True)
        fd = os.open(folder / "data", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        with contextlib.ExitStack() as closing:
            closing.callback(os.close, fd)
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(fd), os.stat(folder / "data")):  # noqa: PTH116 - beside fstat
                closing.pop_all()
                return fd
    return None


def _made(folder: Path, digest: Digest, size: int, fd: int) -> Partial:
    with contextlib.ExitStack() as closing:
        closing.callback(os.close, fd)
        with storage_errors(folder):
            recorded = _record(folder / "parts")
        closing.callback(os.close, recorded)
        made = Partial(folder, digest, size, fd, recorded)
        closing.pop_all()
        return made


def _record(path: Path, flags: int = 0) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | flags, 0o644)


def _close(fd: int | None) -> None:
    if fd is not None:
        os.close(fd)
