"""Blobs on their way from upstream: each comes once, whoever asks meanwhile, in whichever process.

A fetch belongs to nobody's request: a reader that leaves does not stop it. What came outlives the process, also by
`kill -9`; whoever asks next goes on from there.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path

from client.registries.remote import Remote
from client.transfers.transfer import Transfer
from ocispec.digest import Digest
from ocispec.errors import DigestMismatch, LayerhouseError, StorageError, StorageFull, Unavailable, UnknownError
from ocispec.reference import RepositoryName
from registry.mirror.reading import Fetch
from registry.mirror.straight import READERS, Straight
from registry.mirror.upstream import Upstream, answered
from storage import leftovers, paths
from storage.ingest import storage_errors
from storage.partials import Partial, Partials, folder_of
from storage.threads import finish

_log = logging.getLogger("registry")
# Blobs that may be on their way at once; more than that is answered 503 until some have come.
MOST = 256
# What nobody asked for again in a day is given up; it is looked for every hour.
_GIVEN_UP, _SWEEP_EVERY = 24 * 3600.0, 3600.0


@asynccontextmanager
async def _boundless(_name: RepositoryName, _size: int) -> AsyncIterator[None]:
    """There is room for everything."""
    yield


class Fetches:
    """All blobs on their way in this process; a lock on each one's file keeps other processes from fetching it too.

    Args:
        upstream: where they come from.
        root: of the images.
        scratch: where bytes lie until they are verified: on the same file system.
        link: makes a blob part of a repository.
        room: is entered around each fetch, with the repository and how many bytes it needs.

    Attributes:
        pulled: bytes that came from upstream, of blobs that were whole then.
    """

    def __init__(
        self,
        upstream: Upstream,
        root: Path,
        scratch: Path,
        link: Callable[[RepositoryName, Digest], Awaitable[None]],
        *,
        room: Callable[[RepositoryName, int], AbstractAsyncContextManager[None]] = _boundless,
    ) -> None:
        self.pulled = 0
        self._upstream = upstream
        self._root = root
        self._scratch = scratch
        # Other processes read along by the record, so it has a line for each piece.
        self._partials = Partials(scratch, every=0)
        self._link = link
        self._room = room
        self._straight = asyncio.Semaphore(READERS)
        # By size too: a manifest that lies about it breaks nobody else's fetch.
        self._running: dict[tuple[Digest, int], Fetch] = {}
        self._tasks: asyncio.TaskGroup | None = None

    @property
    def is_running(self) -> bool:
        return self._tasks is not None

    async def run(self) -> None:
        """Gives fetches a life of their own, until it is cancelled: then they end, and what came stays for the next."""
        async with self._upstream.session, asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            try:
                while True:
                    await self._sweep()
                    await asyncio.sleep(_SWEEP_EVERY)
            finally:
                self._tasks = None

    async def _sweep(self) -> None:
        try:
            await finish(leftovers.expire, self._scratch, _GIVEN_UP)
        except StorageError as error:
            _log.warning("what is left of fetches stays: %s", error.message)

    def is_for(self, name: RepositoryName, digest: Digest, size: int) -> bool:
        """Whether a blob is on its way for this repository."""
        fetch = self._running.get((digest, size))
        return fetch is not None and name in fetch.owners

    async def is_of_others(self, name: RepositoryName, digest: Digest, size: int) -> bool:
        """Whether anything of a blob is here that did not come for this repository.

        Then `of` may be called only when upstream has said that its repository has the blob. Else whoever may push a
        manifest to any repository upstream could name there what he may not read, and get it from here.
        """
        is_here = not self.is_for(name, digest, size) and await finish(self._is_here, digest)
        return not self.is_for(name, digest, size) and (is_here or (digest, size) in self._running)

    def _is_here(self, digest: Digest) -> bool:
        return (self._root / paths.blob_data(digest)).exists() or folder_of(self._scratch, digest).exists()

    def of(
        self,
        name: RepositoryName,
        digest: Digest,
        size: int,
        there: RepositoryName | None = None,
        *,
        is_theirs: bool = False,
    ) -> Fetch:
        """Returns the fetch of a blob of `size` bytes, which begins now unless it is on its way.

        Args:
            name: the repository here.
            digest: the blob.
            size: its length in bytes.
            there: what upstream calls the repository, if otherwise.
            is_theirs: whether upstream itself has said that its repository has the blob; see `is_of_others`.

        Raises:
            Unavailable: too many are on their way.
        """
        fetch = self._running.get((digest, size))
        if fetch is None:
            if self._tasks is None:
                raise Unavailable("the registry is starting or ending", headers={"Retry-After": "1"})
            if len(self._running) >= MOST:
                raise Unavailable(f"{MOST} blobs are on their way already", headers={"Retry-After": "1"})
            remote = self._upstream.remote(there or name)
            fetch = self._running[digest, size] = Fetch(size, Straight(remote, digest, size, self._straight))
            self._tasks.create_task(self._fetched(fetch, name, remote, digest, is_theirs=is_theirs))
        fetch.owners.add(name)
        fetch.askers.add(name)
        return fetch

    async def _fetched(
        self, fetch: Fetch, name: RepositoryName, remote: Remote, digest: Digest, *, is_theirs: bool
    ) -> None:
        failure: LayerhouseError | None = Unavailable("the registry is ending", headers={"Retry-After": "1"})
        try:
            async with self._room(name, fetch.size):
                with answered():
                    await self._brought(fetch, remote, digest, is_theirs=is_theirs)
                while fetch.askers:
                    await self._link(fetch.askers.pop(), digest)
            failure = None
        except StorageError as error:
            _log.error("%s: cannot be kept, and is served from upstream: %s", remote.place(digest), error.message)
            failure = error
        except LayerhouseError as error:
            _log.error("%s: %s", remote.place(digest), error.message)
            failure = error
        except Exception:  # noqa: BLE001 - nobody else would tell of it, and the other fetches go on
            _log.exception("fault while %s was fetched", remote.place(digest))
            failure = UnknownError(f"{digest} could not be fetched; the log tells more")
        finally:
            del self._running[digest, fetch.size]
            fetch.end(failure)

    async def _brought(self, fetch: Fetch, remote: Remote, digest: Digest, *, is_theirs: bool) -> None:
        target = self._root / paths.blob_data(digest)
        async with self._partials.opened(digest, fetch.size, fetch.along if is_theirs else None) as partial:
            if not is_theirs and (partial.came or await finish(target.exists)):
                # Since it was looked for, another process brought it, or begins to, for whichever repository.
                await self._upstream.size(remote.reference.repository, digest)
            # Another process may have brought it while this one waited for the file's lock, or somebody pushed it.
            if await finish(target.exists):
                fetch.found(target)
                await finish(partial.discard)
                await finish(_check_size, target, fetch.size)
                return
            with fetch.into(partial):
                await self._transferred(fetch, remote, digest, partial)
                fetch.verified = True
                await self._partials.keep(partial, target)

    async def _transferred(self, fetch: Fetch, remote: Remote, digest: Digest, partial: Partial) -> None:
        session = self._upstream.session
        transfer = Transfer(remote, digest, partial, session.slots, session.patience, mirrors=False, pick=fetch.pick)
        before = partial.came
        try:
            await finish(self._check_space, partial)
            await transfer.run()
            await finish(partial.verify)
            self.pulled += partial.size - before
        except LayerhouseError as error:
            if isinstance(error, DigestMismatch | StorageError) or not partial.came:
                with suppress(StorageError):
                    await finish(partial.discard)
            raise

    def _check_space(self, partial: Partial) -> None:
        """Leaves a disk that has no room for the blob as it is: others need what there is."""
        missing, free = partial.size - partial.came, shutil.disk_usage(self._root).free
        if missing > free:
            raise StorageFull(f"{self._root}: {missing} bytes more are needed, and {free} are free")


def _check_size(target: Path, size: int) -> None:
    with storage_errors(target):
        found = target.stat().st_size
    if found != size:
        raise DigestMismatch(f"a manifest says that it has {size} bytes, it has {found}")
