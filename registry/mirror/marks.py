"""What was fetched, as the tree tells it: a mark beside the link. What was pushed has none, and is never removed here.

The mark is an empty file, `fetched`, which Distribution passes over. It is written after the link, and counts unless
the link is younger: then somebody has pushed since, which writes the link anew. So whatever goes wrong, something that
was fetched counts as pushed and stays, and never the other way round.
"""

from __future__ import annotations

import time
from enum import StrEnum

from ocispec.digest import Digest
from ocispec.errors import PathUnknown
from ocispec.reference import RepositoryName
from storage import paths
from storage.engine import Engine

_MARK = "fetched"
# A link without a mark is a push, unless it is so young that it may be a fetch by another process.
_ON_ITS_WAY = 60.0


class Kind(StrEnum):
    """Where a repository's link of what was fetched lies: manifests are small, and go last."""

    MANIFEST = "manifest"
    BLOB = "blob"


def folder(name: RepositoryName, digest: Digest, kind: Kind) -> str:
    """Where the link lies, and its mark."""
    return paths.revision(name, digest) if kind is Kind.MANIFEST else paths.layer(name, digest)


async def mark(engine: Engine, name: RepositoryName, digest: Digest, kind: Kind) -> None:
    """Notes that what a link names was fetched; raises StorageError, and then it counts as pushed."""
    await engine.write(f"{folder(name, digest, kind)}/{_MARK}", b"", durable=False)


async def fetched(engine: Engine, name: RepositoryName, digest: Digest, kind: Kind) -> float | None:
    """When it was fetched, in seconds since the epoch; None where it is not linked, or was pushed."""
    where = folder(name, digest, kind)
    try:
        marked = (await engine.stat(f"{where}/{_MARK}")).modified
        return marked if (await engine.stat(f"{where}/link")).modified <= marked else None
    except PathUnknown:
        return None


async def is_pushed(engine: Engine, name: RepositoryName, digest: Digest, kind: Kind) -> bool:
    """Whether a repository links it, and not because it was fetched."""
    try:
        linked = (await engine.stat(f"{folder(name, digest, kind)}/link")).modified
    except PathUnknown:
        return False
    return linked < time.time() - _ON_ITS_WAY and await fetched(engine, name, digest, kind) is None
