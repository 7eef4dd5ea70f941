"""The mirror of one registry (Distribution's `proxy`)."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

from ocispec.digest import Digest
from ocispec.reference import RepositoryName
from registry.config.proxy import Proxy
from registry.mirror.fetching import Fetches
from registry.mirror.marks import Kind
from registry.mirror.repository import MirroredBlobs, MirroredManifests, MirroredReferrers, MirroredTags, Sizes
from registry.mirror.space import Share, Space
from registry.mirror.upstream import Upstream
from registry.mirror.usage import Usage
from storage import paths
from storage.blobs import HostedBlobs
from storage.engine import Engine
from storage.repository import Repository


class Mirror:
    """Dresses repositories: what is not here comes from upstream, and stays.

    Args:
        settings: which registry, and as whom.
        engine: where the images rest.
        root: the folder of that engine.

    Raises:
        ConfigError: see `Upstream`.
    """

    def __init__(self, settings: Proxy, engine: Engine, root: Path) -> None:
        async def link(name: RepositoryName, digest: Digest) -> None:
            size = (await engine.stat(paths.blob_data(digest))).size
            async with self._usage.fetched(name, digest, size, Kind.BLOB):
                await HostedBlobs(engine, name).link(digest)

        self._upstream = Upstream(settings)
        share = Share(self._upstream.host, ttl=settings.ttl.total_seconds(), reachable=self._upstream.reached)
        # Not in the tree: what is not verified is no blob, and Distribution must not find it.
        scratch = root / ".layerhouse" / "mirror"
        self._usage = Usage(engine, Space((share,)), scratch=scratch, state=root / ".layerhouse")
        self._fetches = Fetches(self._upstream, root, scratch, link, room=self._usage.room)
        self._sizes = Sizes()

    def dressed(self, hosted: Repository) -> Repository:
        """Returns a repository that has what upstream has."""
        upstream, here, usage = self._upstream, hosted, self._usage
        return replace(
            hosted,
            blobs=MirroredBlobs(here.name, here.blobs, upstream, self._fetches, self._sizes, usage=usage),
            manifests=MirroredManifests(here.name, here.manifests, upstream, self._sizes, usage),
            tags=MirroredTags(here.name, here.tags, upstream),
            referrers=MirroredReferrers(here.name, here.referrers, upstream),
        )

    async def run(self) -> None:
        """Fetches, in the background, until it is cancelled; one process of all removes what there is too much of."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._fetches.run())
            tasks.create_task(self._usage.run())
