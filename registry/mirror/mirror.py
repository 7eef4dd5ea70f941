"""The mirror: of one registry under its own names (Distribution's `proxy`), or of many beside what is hosted."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ocispec.digest import Digest
from ocispec.reference import RepositoryName
from registry.config import Settings
from registry.config.mirror import MirroredRegistry
from registry.config.proxy import Proxy
from registry.mirror.checking import check
from registry.mirror.counting import Counts
from registry.mirror.fetching import Fetches
from registry.mirror.flights import Flights
from registry.mirror.instance import instance
from registry.mirror.lists import Lists, MirroredReferrers, MirroredTags
from registry.mirror.marks import Kind
from registry.mirror.remembering import Freshness
from registry.mirror.repository import Behind, MirroredBlobs, MirroredManifests, Sizes
from registry.mirror.space import Share, Space
from registry.mirror.upstream import Upstream
from registry.mirror.upstreams import Upstreams
from registry.mirror.usage import Usage
from registry.observing.metrics import Family
from storage import paths
from storage.blobs import HostedBlobs
from storage.engine import Engine
from storage.repository import Repository
from storage.store import Store


class Mirror:
    """Dresses repositories: what is not here comes from upstream, and stays.

    Args:
        settings: which registries, and as whom.
        engine: where the images rest.

    Attributes:
        instance: how this instance calls itself to those it asks.
        upstreams: what names mean; None where all of them are one registry's.
        usage: what was fetched and used, and the space that it may take.

    Raises:
        ConfigError: see `Upstream`; or the images do not lie in files.
    """

    def __init__(self, settings: Settings, engine: Engine) -> None:
        check(settings)
        mirror, root = settings.layerhouse.mirror, settings.storage.filesystem.rootdirectory
        given: Sequence[Proxy | MirroredRegistry] = mirror.upstreams or (settings.proxy,)
        # Not in the tree: what is not verified is no blob, and Distribution must not find it.
        scratch = root / ".layerhouse" / "mirror"
        self.instance = instance(root / ".layerhouse")
        self.upstreams = Upstreams(mirror) if mirror.upstreams else None
        asked = [(each, Upstream(each, self.instance)) for each in given]
        space = Space(tuple(_share(*each) for each in asked), mirror.cap, mirror.pins)
        self.usage = Usage(engine, space, scratch=scratch, state=settings.state_directory)
        self._engine = engine
        self._flights = Flights()
        self._counts = Counts()
        # What upstream has is taken as it is: not all of an image needs to be here, and no rule of pushes is for it.
        self._here = Store(engine, sparse_images=True)
        stale = None if mirror.stale is None else mirror.stale.total_seconds()
        self._behind: Mapping[str, Behind] = {
            upstream.name: self._stands(upstream, _fresh(each), stale, root, scratch) for each, upstream in asked
        }

    def dressed(self, hosted: Repository) -> Repository:
        """Returns a repository that has what upstream has; one that is hosted here, as it is."""
        place = self.upstreams.of(hosted.name) if self.upstreams else None
        if self.upstreams and place is None:
            return hosted
        behind = self._behind[place.upstream] if place else next(iter(self._behind.values()))
        name, there, here = hosted.name, place.there if place else hosted.name, self._here.repository(hosted.name)
        return replace(
            here,
            blobs=MirroredBlobs(name, there, here.blobs, behind),
            manifests=MirroredManifests(name, there, here.manifests, behind),
            tags=MirroredTags(name, there, here.tags, behind.lists),
            referrers=MirroredReferrers(name, there, here.referrers, behind.lists),
        )

    async def families(self) -> Iterable[Family]:
        """What was asked of this process, what upstreams grant, and the space that is taken."""
        limits = [(name, behind.upstream.limits) for name, behind in self._behind.items()]
        self._counts.blobs.pulled = sum(behind.fetches.pulled for behind in self._behind.values())
        return [*self._counts.families(limits), *await self.usage.families()]

    @property
    def is_running(self) -> bool:
        """Whether it fetches what is asked for."""
        return self._flights.is_running and all(each.fetches.is_running for each in self._behind.values())

    async def run(self) -> None:
        """Fetches, in the background, until it is cancelled; one process of all removes what there is too much of."""
        async with asyncio.TaskGroup() as tasks:
            for behind in self._behind.values():
                tasks.create_task(behind.fetches.run())
            tasks.create_task(self._flights.run())
            tasks.create_task(self.usage.run())

    def _stands(self, upstream: Upstream, fresh: float, stale: float | None, root: Path, scratch: Path) -> Behind:
        return Behind(
            upstream,
            Fetches(upstream, root, scratch, self._link, room=self.usage.room),
            self._flights,
            Freshness(self._engine, fresh, stale),
            Lists(upstream, self._flights, fresh),
            Sizes(),
            self.usage,
            self._counts,
        )

    async def _link(self, name: RepositoryName, digest: Digest) -> None:
        size = (await self._engine.stat(paths.blob_data(digest))).size
        async with self.usage.fetched(name, digest, size, Kind.BLOB):
            await HostedBlobs(self._engine, name).link(digest)


def _share(settings: Proxy | MirroredRegistry, upstream: Upstream) -> Share:
    ttl = settings.ttl.total_seconds()
    if isinstance(settings, Proxy):
        return Share(upstream.name, ttl=ttl, reachable=upstream.reached)
    return Share(upstream.name, f"{settings.name}/", settings.cap, ttl, upstream.reached)


def _fresh(settings: Proxy | MirroredRegistry) -> float:
    """How long a tag is believed; Distribution asks each time."""
    return 0.0 if isinstance(settings, Proxy) else settings.fresh.total_seconds()
