"""One fetch, many readers: who asks for a blob while it comes reads along.

What is read before the digest is known is all but the last byte; that follows once the whole is verified, so no client
can take a wrong blob for a whole one.
"""

from __future__ import annotations

import asyncio
import os
from bisect import bisect_right
from collections import Counter
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import Protocol

from ocispec.errors import LayerhouseError, StorageError, Unavailable
from ocispec.reference import RepositoryName
from registry.mirror.straight import Straight
from storage.engine import INLINE, PIECE, Content
from storage.following import Followed, Version
from storage.partials import Partial
from storage.threads import finish


class Source(Protocol):
    """Where bytes that came can be read: `Partial`, or `Followed` while another process fetches."""

    @property
    def version(self) -> Version: ...
    def reach(self, offset: int) -> int: ...
    def reader(self) -> int: ...


class Fetch:
    """One blob on its way.

    Args:
        size: of the blob, in bytes.
        straight: gives the blob to those who cannot have it from here.

    Attributes:
        size: the same.
        straight: the same.
        owners: the repositories that it is, or was, on its way for.
        askers: those that hold the blob once it is whole, and do not yet.
        verified: whether all bytes are here, and are those of the digest.
    """

    def __init__(self, size: int, straight: Straight) -> None:
        self.size = size
        self.straight = straight
        self.owners: set[RepositoryName] = set()
        self.askers: set[RepositoryName] = set()
        self.verified = False
        self._loop = asyncio.get_running_loop()
        self._moved = asyncio.Event()
        self._is_told = False
        self._source: Source | None = None
        self._version: Version | None = None
        self._awaited: Counter[int] = Counter()
        self._whole = False
        self._failure: LayerhouseError | None = None

    async def reach(self, offset: int) -> int:
        """Waits until bytes from `offset` on may be read; returns the offset behind them.

        Raises:
            StorageError: they cannot be kept here.
            LayerhouseError: the fetch failed.
        """
        while (end := self._reached(offset)) <= offset:
            self._awaited[offset] += 1
            try:
                await self._moved.wait()
            finally:
                self._awaited[offset] -= 1
                self._awaited += Counter()  # forgets what nobody waits for
        return end

    async def whole(self) -> None:
        """Waits until the blob is in the repositories that asked for it; raises as `reach`."""
        while not self._whole:
            self._raise_failure()
            await self._moved.wait()

    async def content(self) -> Content | None:
        """Opens the blob for reading along, once its first bytes are here; None where it is whole in the repository.

        Raises:
            LayerhouseError: the fetch failed before.
        """
        try:
            if self.size <= INLINE:
                await self.whole()
                return None
            await self.reach(0)
        except StorageError:
            return self.straight
        if self._source is None:
            return None if self._whole else self.straight
        return Arriving(self, self._source.reader(), self._source.version)

    def is_good(self, version: Version) -> bool:
        """Whether bytes that were read of a version are those that came, or are coming."""
        return version == (self._source.version if self._source else self._version)

    def pick(self, todo: Sequence[tuple[int, int]]) -> int:
        """Returns which part is fetched next (`client.transfers.transfer.Pick`): one that somebody waits for."""
        for offset in self._awaited:
            index = bisect_right(todo, (offset, self.size)) - 1
            if index >= 0 and offset < sum(todo[index]):
                return index
        return 0

    def along(self, followed: Followed) -> None:
        """Reads along with another process, which holds the blob."""
        self._source = followed
        self._wake()

    def found(self, target: Path) -> None:
        """Another one brought it: what was read along with him is good if he is the one."""
        followed, self._source = self._source, None
        is_same = isinstance(followed, Followed) and followed.is_in(target)
        self._version = followed.version if followed and is_same else None

    @contextmanager
    def into(self, partial: Partial) -> Iterator[None]:
        """Reads along from the place where the bytes come to rest, which tells from worker threads how far they are."""
        self._source = partial
        partial.noticed = self._notice
        try:
            yield
        finally:
            # Who comes now waits for the end; who reads already has a descriptor of his own.
            self._source, self._version = None, partial.version

    def end(self, failure: LayerhouseError | None = None) -> None:
        """Tells all readers that it is whole, or has failed."""
        self._source = None
        self._whole, self._failure = failure is None, failure
        self._wake()

    def _reached(self, offset: int) -> int:
        if self._whole or (self.verified and isinstance(self._failure, StorageError)):
            return self.size
        self._raise_failure()
        return min(self._source.reach(offset), self.size - 1) if self._source else offset

    def _raise_failure(self) -> None:
        if self._failure:
            # Of its own for each reader: an error gathers the traceback of whom it passes.
            raise type(self._failure)(self._failure.message, detail=self._failure.detail, headers=self._failure.headers)

    def _notice(self) -> None:
        if not self._is_told:
            self._is_told = True
            self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        self._is_told = False
        self._moved.set()
        self._moved = asyncio.Event()


class Arriving:
    """Implements `storage.engine.Content` for a blob that is still on its way."""

    data = None

    def __init__(self, fetch: Fetch, fd: int, version: Version) -> None:
        self._fetch = fetch
        self._fd: int | None = fd
        self._version = version

    @property
    def size(self) -> int:
        return self._fetch.size

    def detach(self) -> int | None:
        """None: what is sent by the kernel has to be there."""

    async def stream(self, offset: int, count: int) -> AsyncGenerator[bytes, None]:
        start, end = offset, offset + count
        try:
            while offset < end:
                here = min(await self._fetch.reach(offset), end, offset + PIECE)
                piece = await self._read(offset, here - offset)
                offset += len(piece)
                yield piece
        except StorageError:
            async with aclosing(self._fetch.straight.rest(self._opened(), start, offset, end)) as pieces:
                async for piece in pieces:
                    yield piece

    async def close(self) -> None:
        fd, self._fd = self._fd, None
        if fd is not None:
            await finish(os.close, fd)

    async def _read(self, offset: int, count: int) -> bytes:
        piece = await finish(os.pread, self._opened(), count, offset)
        # Asked after reading: what was read before it was taken back is good.
        if not (piece and self._fetch.is_good(self._version)):
            raise Unavailable("upstream sends the blob anew, from its first byte")
        return piece

    def _opened(self) -> int:
        if self._fd is None:
            raise StorageError("read after it was closed")
        return self._fd
