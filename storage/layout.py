"""An OCI image layout on disk (image-spec, image-layout.md).

<root>/oci-layout                        the layout's version
<root>/index.json                        one descriptor per name; `org.opencontainers.image.ref.name` holds the name
<root>/blobs/<algorithm>/<hex>           whole, verified blobs only
<root>/.ingest/<uuid>                    files on their way in
<root>/.partial/<algorithm>/<hex>/       a blob that arrives in parts, see `storage.partials`
<root>/.quarantine/<algorithm>/<hex>     a blob whose bytes were found to be others than its digest names
<root>/.lock                             held while index.json changes
<root>/.use                              shared by those who rely on blobs, held alone by the one who removes some

Any number of processes may use one layout at once. Every method may be cancelled: a blob is then there whole or not
at all, and index.json is the old one or the new one.

Blobs are stored first and their name last, so between the two nothing tells that somebody needs them; and a pull relies
on blobs that it found. Both do so under `in_use`, and whoever removes blobs does it under `alone`: neither can then see
a half of the other's work. Other programs take no locks: what skopeo writes here is safe by its age alone
(`client.caching.care`).
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Collection, Iterable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TypeVar

from ocispec.descriptor import REF_NAME, Descriptor
from ocispec.digest import Digest
from ocispec.errors import DigestMismatch, PathUnknown, StorageError
from storage import blobfolder, durable, locks, partials
from storage.blobfolder import Stored
from storage.ingest import Ingest, storage_errors
from storage.layoutindex import LayoutIndex
from storage.leftovers import SCRATCH, expire
from storage.threads import finish

MAX_DOCUMENT = 4 * 1024 * 1024
LOCK_WAIT = 60.0

T = TypeVar("T")


class ImageLayout:
    """A folder that holds images; made at the first write.

    Attributes:
        root: the folder.
        lock_wait: how long another process may hold a lock, in seconds.
    """

    def __init__(self, root: Path, lock_wait: float = LOCK_WAIT) -> None:
        self.root = root
        self._lock_wait = lock_wait
        self._folders = durable.DurableFolders(root)
        self._scratch = root / SCRATCH
        self._index = LayoutIndex(root, self._scratch, self._folders, lock_wait)

    def path(self, digest: Digest) -> Path:
        """Where the blob lies, if it is there."""
        return blobfolder.path_of(self.root, digest)

    async def missing(self, wanted: Iterable[Descriptor]) -> list[Descriptor]:
        """Returns those of `wanted` that are not there with their size, each digest once, in their order."""
        unique = {each.digest: each for each in wanted}
        return await finish(lambda: [each for each in unique.values() if not self._holds(each)])

    async def read(self, digest: Digest, limit: int = MAX_DOCUMENT) -> bytes:
        """Returns a whole small blob, its digest checked.

        Raises:
            PathUnknown: there is no such blob.
            StorageError: it is longer than `limit` bytes, or its bytes are not those its digest names.
        """
        return await finish(self._read, digest, limit)

    async def add(self, digest: Digest, data: bytes) -> None:
        """Stores a small blob.

        Raises:
            DigestMismatch: `data` is not what the digest names; nothing is stored.
        """
        await finish(self._add, digest, data)

    def ingest(self, digest: Digest, size: int) -> Ingest:
        """Begins to take a blob of `size` bytes in; use it as `async with`."""
        return Ingest(digest, size, self._scratch, self.path(digest), self._folders)

    async def entries(self) -> tuple[Descriptor, ...]:
        """Returns the descriptors in index.json, in its order; none where there is no layout yet.

        Raises:
            StorageError: index.json is damaged.
        """
        return await self._index.entries()

    async def find(self, name: str) -> Descriptor | None:
        """Returns the descriptor that has the name; see `entries` for errors."""
        return next((each for each in await self.entries() if each.annotations.get(REF_NAME) == name), None)

    async def set_name(self, name: str, target: Descriptor) -> None:
        """Gives `name` to a manifest or index, durably, and takes it from what had it; all other names stay.

        Raises:
            StorageError: index.json is damaged, or another process held the lock for too long.
        """
        await self._index.put(name, target)

    async def remove_names(self, names: Collection[str]) -> None:
        """Takes names away, durably and all at once; the blobs stay, and so do all other names.

        Raises:
            PathUnknown: there is no such name; none is then taken away.
            StorageError: index.json is damaged, or another process held the lock for too long.
        """
        await self._index.remove(names)

    def in_use(self) -> AbstractAsyncContextManager[None]:
        """Keeps every blob here that is here or comes while it is held, whether it has a name or not.

        Whoever stores blobs and names them afterwards, or relies on blobs that a name may lose meanwhile, does so
        inside `async with layout.in_use():`. Any number may hold it; it ends with its process.

        Raises:
            StorageError: somebody removes blobs, and did not end for too long; or the folder cannot be made.
        """
        return locks.shared(self.root / ".use", self._folders, self._lock_wait)

    def alone(self, waiting: Callable[[], None] = locks.quietly) -> AbstractAsyncContextManager[None]:
        """Waits until nobody holds `in_use`, and keeps it so; `delete` is called inside of it.

        Args:
            waiting: is told, once, that somebody holds it.

        Raises:
            StorageError: somebody held it for too long.
        """
        return locks.exclusive(self.root / ".use", self._folders, self._lock_wait, waiting)

    def blobs(self) -> AsyncIterator[Stored]:
        """Yields every blob, in no order; files that are none are passed over.

        Raises:
            StorageError: a folder cannot be read.
        """
        return blobfolder.walk(self.root)

    async def check(self, digest: Digest, told: Callable[[int], None]) -> bool:
        """Hashes a whole blob; one whose bytes are not those of its digest goes to quarantine, where nobody reads it.

        Args:
            digest: the blob.
            told: hears how many bytes were hashed, again and again.

        Returns:
            Whether the blob is good.

        Raises:
            PathUnknown: there is no such blob.
            StorageError: it cannot be read, or not be moved.
        """
        return await blobfolder.check(self.root, digest, self._folders, told)

    async def delete(self, digests: Iterable[Digest]) -> int:
        """Removes blobs, durably; one that is not there is no error. To be called under `alone`.

        Returns:
            How many bytes that freed.

        Raises:
            StorageError: a blob cannot be removed; those before it are.
        """
        return await finish(blobfolder.delete, self.root, digests)

    async def in_quarantine(self, digest: Digest) -> bool:
        """Returns whether a blob was here that was bad."""
        return await finish(partials.quarantine_of(self.root, digest).exists)

    async def purge(self, age: float, partial_age: float) -> None:
        """Removes what nobody will finish, by its age in seconds: files of crashed processes, and partial downloads."""
        # Another process may purge at the same time, and be first.
        with contextlib.suppress(PathUnknown):
            await finish(_explained, self._scratch, durable.purge, self._scratch, age)
        await finish(expire, self.root, partial_age)

    def _holds(self, wanted: Descriptor) -> bool:
        with contextlib.suppress(OSError):
            return self.path(wanted.digest).stat().st_size == wanted.size
        return False

    def _read(self, digest: Digest, limit: int) -> bytes:
        with storage_errors(self.path(digest)), self.path(digest).open("rb") as file:
            data = file.read(limit + 1)
        if len(data) > limit:
            raise StorageError(f"{self.path(digest)} is longer than {limit} bytes")
        if not digest.matches(data):
            raise StorageError(f"{self.path(digest)} is damaged: its content has another digest")
        return data

    def _add(self, digest: Digest, data: bytes) -> None:
        if not digest.matches(data):
            raise DigestMismatch(f"expected {digest}, its content hashes to {Digest.of(data, digest.algorithm)}")
        with storage_errors(self.path(digest)):
            durable.write(self.path(digest), data, self._scratch, self._folders)


def _explained(path: Path, work: Callable[..., T], *args: object) -> T:
    with storage_errors(path):
        return work(*args)
