"""The mirror of one registry (Distribution's `proxy`)."""

from __future__ import annotations

from pathlib import Path

from ocispec.digest import Digest
from ocispec.reference import RepositoryName
from registry.config.proxy import Proxy
from registry.mirror.fetching import Fetches
from registry.mirror.repository import Sizes, mirrored
from registry.mirror.upstream import Upstream
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
            await HostedBlobs(engine, name).link(digest)

        self._upstream = Upstream(settings)
        # Not in the tree: what is not verified is no blob, and Distribution must not find it.
        self._fetches = Fetches(self._upstream, root, root / ".layerhouse" / "mirror", link)
        self._sizes = Sizes()

    def dressed(self, hosted: Repository) -> Repository:
        return mirrored(hosted, self._upstream, self._fetches, self._sizes)

    async def run(self) -> None:
        """Fetches, in the background, until it is cancelled."""
        await self._fetches.run()
