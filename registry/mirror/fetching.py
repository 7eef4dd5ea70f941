"""One fetch, many readers: a blob comes from upstream once, and whoever asks meanwhile reads along.

A fetch belongs to nobody's request: a reader that leaves does not stop it. What is read before the digest is known is
all but the last byte; that follows once the whole is verified, so no client can take a wrong blob for a whole one.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from client.registries.remote import Remote
from client.transfers.transfer import Transfer
from ocispec.digest import Digest
from ocispec.errors import DigestMismatch, LayerhouseError, StorageError, StorageFull, Unavailable, UnknownError
from ocispec.reference import RepositoryName
from registry.mirror.upstream import Upstream, answered
from storage import paths
from storage.engine import INLINE, PIECE
from storage.partials import Partial, Partials
from storage.threads import finish

_log = logging.getLogger("registry")
# Blobs that may be on their way at once; more than that is answered 503 until some have come.
MOST = 256


class Fetch:
    """One blob on its way.

    Attributes:
        size: in bytes.
        askers: the repositories that hold the blob once it is whole.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.askers: set[RepositoryName] = set()
        self._loop = asyncio.get_running_loop()
        self._moved = asyncio.Event()
        self._partial: Partial | None = None
        self._whole = False
        self._failure: LayerhouseError | None = None

    async def reach(self, offset: int) -> int:
        """Waits until bytes from `offset` on may be read; returns the offset behind them.

        Raises:
            LayerhouseError: the fetch failed.
        """
        while True:
            if self._failure:
                # Of its own for each reader: an error gathers the traceback of whom it passes.
                raise type(self._failure)(
                    self._failure.message, detail=self._failure.detail, headers=self._failure.headers
                )
            if self._whole:
                return self.size
            end = min(self._partial.reach(offset), self.size - 1) if self._partial else offset
            if end > offset:
                return end
            await self._moved.wait()

    async def whole(self) -> None:
        """Waits for the end; raises as `reach`."""
        while not self._whole:
            await self.reach(self.size)

    async def content(self) -> Arriving | None:
        """Opens the blob for reading along, once its first bytes are here; None where it is whole in the repository."""
        if self.size <= INLINE:
            await self.whole()
            return None
        await self.reach(0)
        return None if self._whole or self._partial is None else Arriving(self, self._partial.reader())

    @contextmanager
    def into(self, partial: Partial) -> Iterator[None]:
        """Reads along from the place where the bytes come to rest, which tells from worker threads how far they are."""
        self._partial = partial
        partial.noticed = self._notice
        try:
            yield
        finally:
            # Who comes now waits for the end; who reads already has a descriptor of his own.
            self._partial = None

    def end(self, failure: LayerhouseError | None = None) -> None:
        """Tells all readers that it is whole, or has failed."""
        self._whole, self._failure = failure is None, failure
        self._wake()

    def _notice(self) -> None:
        self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        self._moved.set()
        self._moved = asyncio.Event()


class Arriving:
    """Implements `storage.engine.Content` for a blob that is still on its way."""

    data = None

    def __init__(self, fetch: Fetch, fd: int) -> None:
        self._fetch = fetch
        self._fd: int | None = fd

    @property
    def size(self) -> int:
        return self._fetch.size

    def detach(self) -> int | None:
        """None: what is sent by the kernel has to be there."""

    async def stream(self, offset: int, count: int) -> AsyncGenerator[bytes, None]:
        end = offset + count
        while offset < end:
            here = min(await self._fetch.reach(offset), end, offset + PIECE)
            if self._fd is None:
                raise StorageError("read after it was closed")
            piece = await finish(os.pread, self._fd, here - offset, offset)
            if not piece:
                raise StorageError(f"the bytes from {offset} on are gone")
            offset += len(piece)
            yield piece

    async def close(self) -> None:
        fd, self._fd = self._fd, None
        if fd is not None:
            await finish(os.close, fd)


class Fetches:
    """All blobs on their way in this process; a lock on each one's file keeps other processes from fetching it too.

    Args:
        upstream: where they come from.
        root: of the images.
        scratch: where bytes lie until they are verified: on the same file system.
        link: makes a blob part of a repository.
    """

    def __init__(
        self, upstream: Upstream, root: Path, scratch: Path, link: Callable[[RepositoryName, Digest], Awaitable[None]]
    ) -> None:
        self._upstream = upstream
        self._root = root
        self._partials = Partials(scratch)
        self._link = link
        self._running: dict[Digest, Fetch] = {}
        self._tasks: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        """Gives fetches a life of their own, until it is cancelled: then they end, and what came stays for the next."""
        async with self._upstream.session, asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                self._tasks = None

    def of(self, name: RepositoryName, digest: Digest, size: int, there: RepositoryName | None = None) -> Fetch:
        """Returns the fetch of a blob of `size` bytes, which begins now unless it is on its way.

        Args:
            name: the repository here. Who asks has made sure that upstream's has the blob.
            digest: the blob.
            size: its length in bytes.
            there: what upstream calls the repository, if otherwise.

        Raises:
            Unavailable: too many are on their way.
        """
        fetch = self._running.get(digest)
        if fetch is None:
            if self._tasks is None:
                raise Unavailable("the registry is starting or ending", headers={"Retry-After": "1"})
            if len(self._running) >= MOST:
                raise Unavailable(f"{MOST} blobs are on their way already", headers={"Retry-After": "1"})
            fetch = self._running[digest] = Fetch(size)
            self._tasks.create_task(self._fetched(fetch, self._upstream.remote(there or name), digest))
        fetch.askers.add(name)
        return fetch

    async def _fetched(self, fetch: Fetch, remote: Remote, digest: Digest) -> None:
        failure: LayerhouseError | None = Unavailable("the registry is ending", headers={"Retry-After": "1"})
        try:
            with answered():
                await self._brought(fetch, remote, digest)
            while fetch.askers:
                await self._link(fetch.askers.pop(), digest)
            failure = None
        except LayerhouseError as error:
            _log.error("%s: %s", remote.place(digest), error.message)
            failure = error
        except Exception:  # noqa: BLE001 - nobody else would tell of it, and the other fetches go on
            _log.exception("fault while %s was fetched", remote.place(digest))
            failure = UnknownError(f"{digest} could not be fetched; the log tells more")
        finally:
            del self._running[digest]
            fetch.end(failure)

    async def _brought(self, fetch: Fetch, remote: Remote, digest: Digest) -> None:
        target = self._root / paths.blob_data(digest)
        async with self._partials.opened(digest, fetch.size) as partial:
            # Another process may have brought it while this one waited for the file's lock, or somebody pushed it.
            if await finish(target.exists):
                await finish(partial.discard)
                return
            with fetch.into(partial):
                await self._transferred(remote, digest, partial)
                await self._partials.keep(partial, target)

    async def _transferred(self, remote: Remote, digest: Digest, partial: Partial) -> None:
        session = self._upstream.session
        try:
            await Transfer(remote, digest, partial, session.slots, session.patience, mirrors=False).run()
            await finish(partial.verify)
        except DigestMismatch:
            await self._partials.quarantine(partial, digest)
            raise
        except StorageFull:
            await finish(partial.discard)
            raise
