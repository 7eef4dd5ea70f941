"""Walking the tree: which repositories there are, which digests lie in a folder, many things side by side."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import TypeVar

from ocispec.digest import HEX_LENGTHS, Digest
from ocispec.errors import DigestInvalid, NameInvalid, StorageError
from ocispec.reference import RepositoryName
from storage import paths
from storage.engine import Engine
from storage.threads import paced

# How many calls wait for the engine at once.
WIDTH = 16
REFERRERS = "_referrers"
ROOMS = frozenset({paths.LAYERS, paths.MANIFESTS, paths.UPLOADS, REFERRERS})

T = TypeVar("T")


async def repositories(engine: Engine, prefix: str = "") -> AsyncIterator[tuple[RepositoryName, frozenset[str]]]:
    """Yields each repository with the names of its rooms, in order of names; each folder is opened once.

    A folder counts in which anything of a repository lies: what a crash left of a removal is finished by the next one.

    Raises:
        StorageError: something of a repository lies under a name that none can have, so that nobody can tell whether
            it is in use.
    """
    children = await engine.children(f"{paths.REPOSITORIES}/{prefix}".rstrip("/"))
    rooms = frozenset(child for child in children if child.startswith("_"))
    if prefix and rooms:
        yield _name(prefix.rstrip("/"), rooms), rooms
    for child in children:
        if child[0] not in "_.":
            async for each in repositories(engine, f"{prefix}{child}/"):
                yield each


async def digests(engine: Engine, folder: str) -> list[Digest]:
    """Returns the digests whose folders, `<alg>/<hex>`, lie below `folder`; other names are passed over."""
    return [
        found
        for algorithm in await engine.children(folder)
        if algorithm in HEX_LENGTHS
        async for name in paced(await engine.children(f"{folder}/{algorithm}"))
        if (found := digest(algorithm, name))
    ]


def digest(algorithm: str, name: str) -> Digest | None:
    try:
        return Digest.parse(f"{algorithm}:{name}")
    except DigestInvalid:
        return None


async def side_by_side(items: Iterable[T], work: Callable[[T], Awaitable[None]]) -> None:
    """Does `work` for each item, `WIDTH` at a time; the first error ends all."""
    left = iter(items)

    async def some() -> None:
        async for item in paced(left):
            await work(item)

    try:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(WIDTH):
                tasks.create_task(some())
    except* StorageError as errors:
        raise _first(errors) from errors


def _first(errors: BaseExceptionGroup[StorageError]) -> StorageError:
    first = errors.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first


def _name(text: str, rooms: frozenset[str]) -> RepositoryName:
    try:
        return RepositoryName.parse(text)
    except NameInvalid as error:
        where = f"{paths.REPOSITORIES}/{text}"
        raise StorageError(
            f"{where}: holds {min(rooms)}, and no repository can have this name: move it out of the tree"
        ) from error
