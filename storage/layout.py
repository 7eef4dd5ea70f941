"""An OCI image layout on disk (image-spec, image-layout.md).

<root>/oci-layout                   the layout's version
<root>/index.json                   one descriptor per name; `org.opencontainers.image.ref.name` holds the name
<root>/blobs/<algorithm>/<hex>      whole, verified blobs only
<root>/.ingest/<uuid>               blobs on their way in
<root>/.lock                        held while index.json changes

Any number of processes may use one layout at once. Every method may be cancelled: a blob is then there whole or not
at all, and index.json is the old one or the new one.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from ocispec import strictjson
from ocispec.descriptor import REF_NAME, Descriptor
from ocispec.digest import Digest
from ocispec.errors import DigestMismatch, GrammarError, PathUnknown, StorageError
from ocispec.mediatypes import OCI_INDEX
from storage import durable
from storage.ingest import Ingest, storage_errors
from storage.threads import acquire, finish

MAX_DOCUMENT = 4 * 1024 * 1024
LOCK_WAIT = 60.0
_LOCK_POLL = 0.005
_VERSION = b'{"imageLayoutVersion":"1.0.0"}'


class ImageLayout:
    """A folder that holds images; made at the first write.

    Attributes:
        root: the folder.
        lock_wait: how long another process may hold the lock, in seconds.
    """

    def __init__(self, root: Path, lock_wait: float = LOCK_WAIT) -> None:
        self.root = root
        self._lock_wait = lock_wait
        self._folders = durable.DurableFolders(root)
        self._scratch = root / ".ingest"
        self._index = root / "index.json"

    def path(self, digest: Digest) -> Path:
        """Where the blob lies, if it is there."""
        return self.root / "blobs" / digest.algorithm / digest.hex

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
        members = await finish(self._members)
        with _index_errors(self._index):
            return tuple(Descriptor.from_json(each, f"manifests[{n}]") for n, each in enumerate(members["manifests"]))

    async def find(self, name: str) -> Descriptor | None:
        """Returns the descriptor that has the name; see `entries` for errors."""
        return next((each for each in await self.entries() if each.annotations.get(REF_NAME) == name), None)

    async def set_name(self, name: str, target: Descriptor) -> None:
        """Gives `name` to a manifest or index, durably, and takes it from what had it; all other names stay.

        Raises:
            StorageError: index.json is damaged, or another process held the lock for too long.
        """
        entry = replace(target, annotations={**target.annotations, REF_NAME: name}).to_json()
        if entry in (await finish(self._members))["manifests"]:
            return
        async with self._locked():
            await finish(self._put_entry, name, entry)

    async def purge(self, age: float) -> None:
        """Removes what crashed processes left in `.ingest` more than `age` seconds ago."""
        # Another process may purge at the same time, and be first.
        with contextlib.suppress(PathUnknown):
            await finish(_explained, self._scratch, durable.purge, self._scratch, age)

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

    def _members(self) -> dict[str, Any]:
        empty = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}
        with _index_errors(self._index), storage_errors(self._index):
            try:
                members = strictjson.loads(self._index.read_bytes())
            except FileNotFoundError:
                return empty
            if not isinstance(members, dict) or not isinstance(members.setdefault("manifests", []), list):
                raise GrammarError("expected an object with a list of manifests")
            return members

    def _put_entry(self, name: str, entry: dict[str, Any]) -> None:
        members = self._members()
        members["manifests"] = [*(each for each in members["manifests"] if _name(each) != name), entry]
        with storage_errors(self._index):
            if not (self.root / "oci-layout").is_file():
                durable.write(self.root / "oci-layout", _VERSION, self._scratch, self._folders)
            durable.write(self._index, json.dumps(members).encode(), self._scratch, self._folders)

    @asynccontextmanager
    async def _locked(self) -> AsyncIterator[None]:
        lock = await acquire(os.close, _explained, self.root, self._open_lock)
        try:
            deadline = time.monotonic() + self._lock_wait
            while not _try_lock(lock):
                if time.monotonic() > deadline:
                    raise StorageError(f"another process has held {self.root / '.lock'} for {self._lock_wait:.0f} s")
                await asyncio.sleep(_LOCK_POLL)
            yield
        finally:
            os.close(lock)

    def _open_lock(self) -> int:
        self._folders.ensure(self.root)
        return os.open(self.root / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)


def _try_lock(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _name(entry: Any) -> Any:
    annotations = entry.get("annotations") if isinstance(entry, dict) else None
    return annotations.get(REF_NAME) if isinstance(annotations, dict) else None


def _explained(path: Path, work: Callable[..., Any], *args: object) -> Any:
    with storage_errors(path):
        return work(*args)


@contextmanager
def _index_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (GrammarError, strictjson.AmbiguousJSON) as error:
        raise StorageError(f"{path} is damaged: {error}") from error
