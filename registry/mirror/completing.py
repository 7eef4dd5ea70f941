"""Bringing the index in line with the tree: what the one has and the other has not."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

from ocispec.reference import RepositoryName
from registry.mirror import marks, tree
from registry.mirror.index import Index, Link
from registry.sqlitefiles import SharedFile
from storage.collecting.folders import repositories
from storage.engine import Engine
from storage.threads import paced

_AT_ONCE = 1000


async def complete(engine: Engine, index: SharedFile[Index], now: float) -> None:
    """Enters what was fetched and is not in the index, and takes out what is not in the tree any more.

    What others fetch and remove meanwhile they enter themselves. Raises StorageError.
    """
    known: set[RepositoryName] = set()
    async for name, _ in repositories(engine):
        known.add(name)
        await _complete(engine, index, name)
    for name in await index.do(Index.names):
        if name not in known:
            await _complete(engine, index, name)
    await index.do(Index.completed, now)


async def _complete(engine: Engine, index: SharedFile[Index], name: RepositoryName) -> None:
    entered = set(await index.do(Index.links_of, name))
    found = {link: (size, when) async for link, size, when in tree.fetched(engine, name)}
    for some in _batches(link for link in found if link not in entered):
        await index.do(Index.link, [(link, *found[link]) for link in some])
    stale = [link async for link in paced(entered - found.keys()) if not await _is_there(engine, link)]
    if stale:
        await index.do(Index.unlink, stale)
        # Their bytes may be all that is left of them: `Remover.recover` knows them by that nothing links them.


async def _is_there(engine: Engine, link: Link) -> bool:
    """Whether it came since the repository was read."""
    return (
        await marks.fetched(engine, link.name, link.digest, link.kind) is not None
        and await tree.size_of(engine, link.digest) is not None
    )


def _batches(links: Iterable[Link]) -> Iterable[list[Link]]:
    left = iter(links)
    while some := list(islice(left, _AT_ONCE)):
        yield some
