"""Walking the names of a folder of any size, in order."""

from __future__ import annotations

from collections.abc import AsyncIterator

from storage.engine import Engine

# Each batch is larger than the one before: a page needs few names, and a walk through all of a folder that keeps
# changing, so that each batch takes all of it, is done in few.
_FIRST, _GROWTH, _MOST = 256, 4, 65_536


async def names(engine: Engine, folder: str, after: str = "") -> AsyncIterator[str]:
    """Yields the names right below `folder` that are behind `after`, in lexical order, as far as they are asked for.

    Raises:
        StorageError: the engine cannot tell.
    """
    limit = _FIRST
    while batch := await engine.children(folder, after, limit):
        for each in batch:
            yield each
        if len(batch) < limit:
            break
        after, limit = batch[-1], min(limit * _GROWTH, _MOST)
