"""What the tree says: who links a content, what was fetched, what an image needs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable

from ocispec.digest import Digest
from ocispec.errors import ObjectTooLong, PathUnknown
from ocispec.reference import RepositoryName
from registry.mirror import marks
from registry.mirror.index import Link
from registry.mirror.marks import Kind
from storage import links, paths
from storage.collecting.folders import digests, repositories
from storage.collecting.references import References
from storage.engine import Engine
from storage.names import names
from storage.repository import MAX_MANIFEST
from storage.threads import paced


async def linked(engine: Engine, wanted: Collection[Digest]) -> list[Link]:
    """Returns the links of all repositories to these contents, whether pushed or fetched; raises StorageError."""
    places: dict[str, dict[str, Digest]] = {}
    for digest in wanted:
        places.setdefault(digest.algorithm, {})[digest.hex] = digest
    found = []
    async for name, _ in paced(repositories(engine)):
        for kind in Kind:
            for algorithm, hexes in places.items():
                here = hexes.keys() & set(await engine.children(f"{_room(name, kind)}/{algorithm}"))
                links_ = [Link(name, kind, hexes[each]) for each in here]
                found += [each for each in links_ if await _is_linked(engine, each)]
    return found


async def fetched(engine: Engine, name: RepositoryName) -> AsyncIterator[tuple[Link, int, float]]:
    """Yields what a repository fetched, with its size in bytes, and when that was, in seconds since the epoch."""
    for kind in Kind:
        async for digest in paced(await digests(engine, _room(name, kind))):
            when = await marks.fetched(engine, name, digest, kind)
            size = None if when is None else await size_of(engine, digest)
            if when is not None and size is not None:
                yield Link(name, kind, digest), size, when


async def size_of(engine: Engine, digest: Digest) -> int | None:
    """How many bytes there are of a content; None where it is not here."""
    try:
        return (await engine.stat(paths.blob_data(digest))).size
    except PathUnknown:
        return None


async def pushed(engine: Engine, name: RepositoryName) -> set[Digest]:
    """Returns what the manifests need that were pushed to a repository, themselves among it."""
    linked_here = await manifests(engine, name)
    roots = [each for each in linked_here if await marks.fetched(engine, name, each, Kind.MANIFEST) is None]
    return await needed(engine, name, roots)


async def manifests(engine: Engine, name: RepositoryName) -> list[Digest]:
    """Returns the manifests that a repository links."""
    found = paced(await digests(engine, _room(name, Kind.MANIFEST)))
    return [each async for each in found if await _is_linked(engine, Link(name, Kind.MANIFEST, each))]


async def needed(engine: Engine, name: RepositoryName, roots: Iterable[Digest]) -> set[Digest]:
    """Returns what some manifests of a repository name, at any depth, as far as it can be read here, and themselves."""
    found: set[Digest] = set()
    waiting = list(roots)
    while waiting:
        digest = waiting.pop()
        if digest in found:
            continue
        found.add(digest)
        if await _is_linked(engine, Link(name, Kind.MANIFEST, digest)):
            waiting += (await _references(engine, digest)).named
    return found


async def tags(engine: Engine, name: RepositoryName) -> AsyncIterator[tuple[str, Digest]]:
    """Yields the tags of a repository with what they stand for."""
    async for tag in paced(names(engine, paths.tags(name))):
        digest = await links.read(engine, f"{paths.tags(name)}/{tag}/current/link")
        if digest:
            yield tag, digest


async def _references(engine: Engine, digest: Digest) -> References:
    try:
        return References.of(await engine.read(paths.blob_data(digest), MAX_MANIFEST))
    except (PathUnknown, ObjectTooLong):
        return References()


async def _is_linked(engine: Engine, link: Link) -> bool:
    return await links.read(engine, f"{marks.folder(link.name, link.digest, link.kind)}/link") is not None


def _room(name: RepositoryName, kind: Kind) -> str:
    return f"{paths.manifests(name)}/revisions" if kind is Kind.MANIFEST else f"{paths.repository(name)}/{paths.LAYERS}"
