"""All repositories of a store, in lexical order (Distribution's `_catalog`)."""

from __future__ import annotations

import heapq
from collections.abc import AsyncIterator

from ocispec.errors import NameInvalid
from ocispec.reference import MAX_NAME, RepositoryName
from storage import paths
from storage.engine import Engine
from storage.names import names
from storage.threads import paced


async def repositories(
    engine: Engine, after: str = "", holding: str = paths.MANIFESTS
) -> AsyncIterator[RepositoryName]:
    """Yields the names behind `after` of the folders in which `holding` lies: by default those that are repositories.

    What is yielded, and what lies between, is all that is looked at.
    """
    async for name in paced(_below(engine, "", after)):
        if await engine.children(f"{paths.repository(name)}/{holding}", limit=1):
            yield name


async def _below(engine: Engine, prefix: str, after: str) -> AsyncIterator[RepositoryName]:
    """Yields every valid name below the folder `prefix` ("" or "a/b/"), and behind `after`, that a folder bears."""
    rest = after.removeprefix(prefix) if after.startswith(prefix) else ""
    # "a-b" stands between "a" and "a/b": a name and what lies below it are two places in the order. So folders wait
    # here, as "a/", until their second place comes; at first those whose own place is not behind `after`.
    waiting = [f"{child}/" for child in _beginnings(prefix, rest)]
    heapq.heapify(waiting)
    async for child in names(engine, f"{paths.REPOSITORIES}/{prefix}".rstrip("/"), rest):
        name = _repository(prefix + child) if child[0] not in "_." else None
        if name is None:
            continue
        while waiting and waiting[0] < child:
            async for each in _below(engine, prefix + heapq.heappop(waiting), after):
                yield each
        yield name
        heapq.heappush(waiting, f"{child}/")
    while waiting:
        async for each in _below(engine, prefix + heapq.heappop(waiting), after):
            yield each


def _beginnings(prefix: str, rest: str) -> list[str]:
    """Returns what may be a folder before `rest` in the order of names, while what lies below it is behind."""
    first = rest.partition("/")[0]
    candidates = (first[:end] for end in range(1, min(len(first), MAX_NAME) + 1))
    return [
        each for each in candidates if (f"{each}/" > rest or rest.startswith(f"{each}/")) and _repository(prefix + each)
    ]


def _repository(name: str) -> RepositoryName | None:
    try:
        return RepositoryName.parse(name)
    except NameInvalid:
        return None
