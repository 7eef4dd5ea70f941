"""The referrers index: which manifests name a manifest as their subject (distribution-spec, "Listing Referrers").

Derived from the manifests, one small file a referrer, and never believed against them: an entry counts while the
repository holds the referrer. Another registry may have written to the tree meanwhile, so a process completes a
repository's index from its manifests when it is first asked for it.
"""

from __future__ import annotations

import asyncio
import json
from collections import OrderedDict
from collections.abc import AsyncIterator

from ocispec import strictjson
from ocispec.descriptor import Descriptor
from ocispec.digest import HEX_LENGTHS, Digest
from ocispec.errors import DigestInvalid, GrammarError, ManifestInvalid, ObjectTooLong, PathUnknown
from ocispec.manifest import Manifest
from ocispec.reference import RepositoryName
from storage import links, paths
from storage.engine import Engine
from storage.repository import MAX_MANIFEST
from storage.threads import paced


class CompletedRepositories:
    """Which repositories' indexes this process has completed, the last `limit` of them."""

    def __init__(self, limit: int = 10_000) -> None:
        self._limit = limit
        self._names: OrderedDict[RepositoryName, None] = OrderedDict()

    def __contains__(self, name: RepositoryName) -> bool:
        return name in self._names

    def add(self, name: RepositoryName) -> None:
        self._names[name] = None
        if len(self._names) > self._limit:
            self._names.popitem(last=False)


class HostedReferrers:
    """Implements `storage.repository.Referrers`."""

    def __init__(self, engine: Engine, name: RepositoryName, completed: CompletedRepositories) -> None:
        self._engine = engine
        self._name = name
        self._completed = completed

    async def of(self, subject: Digest) -> tuple[Descriptor, ...]:
        if self._name not in self._completed:
            await self.rebuild()
            self._completed.add(self._name)
        found = [
            await self._entry(subject, digest) async for digest in self._digests(paths.referrers(self._name, subject))
        ]
        return tuple(descriptor for descriptor in found if descriptor)

    async def add(self, subject: Digest, descriptor: Descriptor) -> None:
        """Enters a referrer, durably."""
        text = json.dumps(descriptor.to_json())
        await self._engine.write(paths.referrer(self._name, subject, descriptor.digest), text.encode())

    async def rebuild(self) -> None:
        """Enters every manifest of the repository that has a subject and is not entered yet."""
        async for digest in self._digests(f"{paths.manifests(self._name)}/revisions"):
            manifest = await self._manifest(digest)
            if manifest and manifest.subject and not await self._entry(manifest.subject.digest, digest):
                await self.add(manifest.subject.digest, manifest.descriptor(digest))

    async def _digests(self, folder: str) -> AsyncIterator[Digest]:
        for algorithm in HEX_LENGTHS:
            async for name in paced(await self._engine.children(f"{folder}/{algorithm}")):
                try:
                    yield Digest.parse(f"{algorithm}:{name}")
                except DigestInvalid:
                    continue

    async def _entry(self, subject: Digest, digest: Digest) -> Descriptor | None:
        if await links.read(self._engine, paths.revision_link(self._name, digest)) is None:
            return None
        try:
            raw = await self._engine.read(paths.referrer(self._name, subject, digest), MAX_MANIFEST)
            return Descriptor.from_json(strictjson.loads(raw))
        except (PathUnknown, ObjectTooLong, GrammarError, strictjson.AmbiguousJSON):
            return None

    async def _manifest(self, digest: Digest) -> Manifest | None:
        target = await links.read(self._engine, paths.revision_link(self._name, digest))
        if target is None:
            return None
        try:
            raw = await self._engine.read(paths.blob_data(target), MAX_MANIFEST)
            return await asyncio.to_thread(Manifest.parse, raw)
        except (PathUnknown, ObjectTooLong, ManifestInvalid):
            return None
