"""`index.json` of an image layout: which names there are, and what has them (image-spec, image-layout.md).

It is replaced as a whole, under a lock that all processes take. Entries of other tools, and members that the
specification does not know, stay as they are.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from ocispec import strictjson
from ocispec.descriptor import REF_NAME, Descriptor
from ocispec.errors import GrammarError, PathUnknown, StorageError
from ocispec.mediatypes import OCI_INDEX
from storage import durable
from storage.ingest import storage_errors
from storage.locks import exclusive
from storage.threads import finish

_VERSION = b'{"imageLayoutVersion":"1.0.0"}'


class LayoutIndex:
    """The names of one layout; every method may be cancelled: the file is then the old one or the new one.

    Args:
        root: the layout's folder.
        scratch: folder for the temporary file, on the same file system.
        folders: makes folders durably.
        lock_wait: how long another process may hold the lock, in seconds.
    """

    def __init__(self, root: Path, scratch: Path, folders: durable.DurableFolders, lock_wait: float) -> None:
        self._root = root
        self._scratch = scratch
        self._folders = folders
        self._lock_wait = lock_wait
        self._path = root / "index.json"

    async def entries(self) -> tuple[Descriptor, ...]:
        """See `ImageLayout.entries`."""
        members = await finish(self._members)
        with _damage(self._path):
            return tuple(Descriptor.from_json(each, f"manifests[{n}]") for n, each in enumerate(members["manifests"]))

    async def put(self, name: str, target: Descriptor) -> None:
        """See `ImageLayout.set_name`."""
        entry = replace(target, annotations={**target.annotations, REF_NAME: name}).to_json()
        if entry in (await finish(self._members))["manifests"]:
            return
        async with self._locked():
            await finish(self._put, name, entry)

    async def remove(self, names: Collection[str]) -> None:
        """See `ImageLayout.remove_names`."""
        async with self._locked():
            await finish(self._remove, names)

    def _locked(self) -> AbstractAsyncContextManager[None]:
        return exclusive(self._root / ".lock", self._folders, self._lock_wait)

    def _members(self) -> dict[str, Any]:
        empty = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}
        with _damage(self._path), storage_errors(self._path):
            try:
                members = strictjson.loads(self._path.read_bytes())
            except FileNotFoundError:
                return empty
            if not isinstance(members, dict) or not isinstance(members.setdefault("manifests", []), list):
                raise GrammarError("expected an object with a list of manifests")
            return members

    def _put(self, name: str, entry: dict[str, Any]) -> None:
        members = self._members()
        self._write(members, [*(each for each in members["manifests"] if _name(each) != name), entry])

    def _remove(self, names: Collection[str]) -> None:
        members = self._members()
        here = {_name(each) for each in members["manifests"]}
        if absent := [each for each in names if each not in here]:
            raise PathUnknown(f"{self._path} has no name {absent[0]!r}")
        self._write(members, [each for each in members["manifests"] if _name(each) not in names])

    def _write(self, members: dict[str, Any], manifests: list[Any]) -> None:
        with storage_errors(self._path):
            if not (self._root / "oci-layout").is_file():
                durable.write(self._root / "oci-layout", _VERSION, self._scratch, self._folders)
            data = json.dumps({**members, "manifests": manifests}).encode()
            durable.write(self._path, data, self._scratch, self._folders)


def _name(entry: Any) -> str | None:
    annotations = entry.get("annotations") if isinstance(entry, dict) else None
    name = annotations.get(REF_NAME) if isinstance(annotations, dict) else None
    return name if isinstance(name, str) else None


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    try:
        yield
    except (GrammarError, strictjson.AmbiguousJSON) as error:
        way_out = "move it away and pull again: blobs that are here are not fetched twice"
        raise StorageError(f"{path} is damaged: {error}; {way_out}") from error
