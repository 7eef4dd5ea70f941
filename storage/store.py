"""A store: all repositories on one engine."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from functools import lru_cache

from ocispec.reference import RepositoryName
from storage import paths, removal, uploads
from storage.blobs import HostedBlobs
from storage.catalog import repositories
from storage.engine import Engine
from storage.manifests import HostedManifests, ManifestCache
from storage.referrers import CompletedRepositories, HostedReferrers
from storage.repository import Page, Repository
from storage.rules import ANY, Rules
from storage.tags import HostedTags
from storage.uploads import HostedUploads, RunningHashes

# Repositories hold no state of their own: keeping the objects only saves making them for each request.
_REPOSITORIES = 1024


class Store:
    """Gives repositories, and what concerns all of them.

    Args:
        engine: where the bytes rest.
        sparse_images: whether an image may be pushed before, or without, its blobs.
        rules: what else is asked of a manifest that is pushed.
        dressed: gives each repository as it is to be seen; as it lies here unless told.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        sparse_images: bool = False,
        rules: Rules = ANY,
        dressed: Callable[[Repository], Repository] = lambda hosted: hosted,
    ) -> None:
        self._dressed = dressed
        self._engine = engine
        self._sparse_images = sparse_images
        self._rules = rules
        self._cache = ManifestCache()
        self._hashes = RunningHashes()
        self._completed = CompletedRepositories()
        self._repositories = lru_cache(_REPOSITORIES)(self._repository)

    def repository(self, name: RepositoryName) -> Repository:
        """Returns the repository of that name, which need not exist yet."""
        return self._repositories(name)

    def _repository(self, name: RepositoryName) -> Repository:
        blobs, tags = HostedBlobs(self._engine, name), HostedTags(self._engine, name)
        referrers = HostedReferrers(self._engine, name, self._completed)
        manifests = HostedManifests(
            self._engine,
            name,
            cache=self._cache,
            required=None if self._sparse_images else blobs,
            rules=self._rules,
            tags=tags,
            referrers=referrers,
        )
        uploads = HostedUploads(self._engine, name, blobs, self._hashes)
        return self._dressed(Repository(name, blobs, manifests, tags, referrers, uploads))

    async def catalog(
        self, after: str, limit: int, shown: Callable[[RepositoryName], bool] = lambda _name: True
    ) -> Page:
        """Names of the repositories behind `after`, in lexical order, that `shown` lets the caller see."""
        found: list[str] = []
        async for name in repositories(self._engine, after):
            if shown(name):
                found.append(name)
            if len(found) > limit:
                break
        return Page.of(found, limit)

    async def count(self, name: RepositoryName) -> removal.Counts:
        """How much a repository holds; raises NameUnknown."""
        return await removal.count(self._engine, name)

    async def remove(self, name: RepositoryName) -> None:
        """Removes a repository, durably, and none that lies below its name; raises NameUnknown."""
        await removal.remove(self._engine, name)

    async def purge_uploads(self, before: float, *, dry_run: bool = False) -> AsyncIterator[str]:
        """Removes all uploads that nothing was written to since `before` (seconds since the epoch).

        Yields:
            Each as `repository/id`, once it is removed; with `dry_run` they stay.
        """
        async for name in repositories(self._engine, holding=paths.UPLOADS):
            async for upload_id in uploads.stale(self._engine, name, before):
                if not dry_run:
                    await self._engine.delete(f"{paths.uploads(name)}/{upload_id}")
                yield f"{name}/{upload_id}"
