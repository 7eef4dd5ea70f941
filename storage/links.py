"""Links: small files that name a digest, the only authority on what a repository holds (Distribution's `link`)."""

from __future__ import annotations

from functools import lru_cache

from ocispec.digest import PARSED, Digest
from ocispec.errors import DigestInvalid, ObjectTooLong, PathUnknown
from storage.engine import Engine

_LIMIT = 1024


async def read(engine: Engine, path: str) -> Digest | None:
    """Returns what the link names; None where it is missing, empty or torn, so that a re-push repairs it.

    Raises:
        StorageError: the engine cannot tell.
    """
    try:
        return _digest(await engine.read(path, _LIMIT))
    except (PathUnknown, ObjectTooLong):
        return None


@lru_cache(PARSED)
def _digest(link: bytes) -> Digest | None:
    try:
        return Digest.parse(link.decode("ascii", "replace").strip())
    except DigestInvalid:
        return None


async def write(engine: Engine, path: str, digest: Digest) -> None:
    """Points the link at `digest`, durably; raises StorageError."""
    await engine.write(path, str(digest).encode("ascii"))
