"""All repositories of a store, in lexical order (Distribution's `_catalog`)."""

from __future__ import annotations

from collections.abc import AsyncIterator

from ocispec.errors import NameInvalid
from ocispec.reference import RepositoryName
from storage import paths
from storage.engine import Engine


async def repositories(
    engine: Engine, after: str = "", holding: str = paths.MANIFESTS
) -> AsyncIterator[RepositoryName]:
    """Yields the names behind `after` of the folders in which `holding` lies: by default those that are repositories.

    Only folders that can hold such a name are opened.
    """
    async for name in _below(engine, "", after):
        if await engine.children(f"{paths.repository(name)}/{holding}"):
            yield name


async def _below(engine: Engine, prefix: str, after: str) -> AsyncIterator[RepositoryName]:
    children = await engine.children(f"{paths.REPOSITORIES}/{prefix}".rstrip("/"))
    # "a-b" stands between "a" and "a/b": a name and what lies below it are two places in the order.
    for key in sorted(place for child in children if child[0] not in "_." for place in (child, f"{child}/")):
        name = prefix + key
        if name.endswith("/"):
            if name > after or after.startswith(name):
                async for each in _below(engine, name, after):
                    yield each
        elif name > after and (found := _repository(name)):
            yield found


def _repository(name: str) -> RepositoryName | None:
    try:
        return RepositoryName.parse(name)
    except NameInvalid:
        return None
