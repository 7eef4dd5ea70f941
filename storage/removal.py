"""A whole repository: what it holds, and its removal.

Repositories share folders: `team/app` lies in the folder of `team`. No component of a name begins with `_`, so what
begins with it right below a repository's folder is the repository's own, and everything else is another's.
"""

from __future__ import annotations

from dataclasses import dataclass

from ocispec.digest import HEX_LENGTHS
from ocispec.errors import NameUnknown
from ocispec.reference import RepositoryName
from storage import paths
from storage.engine import Engine


@dataclass(frozen=True, slots=True)
class Counts:
    """How many tags, manifests (tagged or not) and blobs a repository links, and how many uploads are in progress."""

    tags: int
    manifests: int
    blobs: int
    uploads: int


async def count(engine: Engine, name: RepositoryName) -> Counts:
    """Counts folders, without looking into them: one that a crash left without its link counts too.

    Raises:
        NameUnknown: there is no such repository.
    """
    folder = paths.repository(name)
    if not await _own(engine, name):
        raise _unknown(name)
    revisions = [f"{paths.manifests(name)}/revisions/{algorithm}" for algorithm in HEX_LENGTHS]
    layers = [f"{folder}/{paths.LAYERS}/{algorithm}" for algorithm in HEX_LENGTHS]
    return Counts(
        tags=len(await engine.children(paths.tags(name))),
        manifests=sum([len(await engine.children(each)) for each in revisions]),
        blobs=sum([len(await engine.children(each)) for each in layers]),
        uploads=len(await engine.children(paths.uploads(name))),
    )


async def remove(engine: Engine, name: RepositoryName) -> None:
    """Removes a repository, durably; the blobs' data stays for the garbage collector.

    Its tags and manifests go first, in one step: from then on nobody lists or pulls it, and what a crash or a
    cancellation leaves of the rest is removed by the next call. They go once more at the end, because a push that
    found the blobs' links still there may have stored a manifest that lacks them now.

    Raises:
        NameUnknown: nothing of such a repository is there.
        StorageError: the engine failed.
    """
    own = await _own(engine, name)
    if not own:
        raise _unknown(name)
    rest = [each for each in own if each != paths.MANIFESTS]
    for each in (paths.MANIFESTS, *rest, paths.MANIFESTS):
        await engine.delete(f"{paths.repository(name)}/{each}")
    parts = name.split("/")
    for length in range(len(parts), 0, -1):
        await engine.prune(f"{paths.REPOSITORIES}/{'/'.join(parts[:length])}")


async def _own(engine: Engine, name: RepositoryName) -> list[str]:
    return [each for each in await engine.children(paths.repository(name)) if each.startswith("_")]


def _unknown(name: RepositoryName) -> NameUnknown:
    return NameUnknown(detail={"name": name})
