"""Room: what was used least lately goes, once there is more than the cap allows.

Contents go by their last use, whichever repository used them; manifests last: they are small, and tell what images
there were. So somewhat less than the cap is kept, and what comes meanwhile finds room.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from registry.config.values import written_size
from registry.mirror.index import Cause, Content, Index
from registry.mirror.removing import Remover
from registry.mirror.space import Share, Space
from registry.sqlitefiles import SharedFile
from storage.leftovers import held, leftovers, remove
from storage.threads import finish

_log = logging.getLogger("registry")
# From where on something goes, and down to where: shares of the cap.
FULL, GOAL = 0.95, 0.9
# A download that nobody went on with for so many seconds is given up where room is needed.
ABANDONED = 3600.0
_AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class Use:
    """How many bytes a share has: what is kept, and what is on its way or was left on its way."""

    kept: int
    arriving: int = 0

    @property
    def all(self) -> int:
        return self.kept + self.arriving


class Evictor:
    """Makes room; one at a time, of all processes.

    Args:
        space: who may have how much.
        index: of what was fetched.
        remover: removes it.
        scratch: where downloads are on their way.
        clock: seconds since the epoch.
    """

    def __init__(
        self, space: Space, index: SharedFile[Index], remover: Remover, *, scratch: Path, clock: Callable[[], float]
    ) -> None:
        self._space = space
        self._index = index
        self._remover = remover
        self._scratch = scratch
        self._clock = clock

    async def keep_caps(self, reserved: Callable[[Share], int]) -> None:
        """Makes room wherever there is more than the caps allow; raises StorageError.

        Args:
            reserved: how many bytes are on their way to a share.
        """
        for share in (self._space.whole, *self._space.shares):
            if share.cap is None:
                continue
            over = await self.use(share, reserved(share))
            if over.all > share.cap * FULL:
                await self._evict(share, over.all - int(share.cap * GOAL))

    async def use(self, share: Share, reserved: int = 0) -> Use:
        """How much a share has; what lies on its way is known of all shares together alone. Raises StorageError."""
        kept = await self._index.do(Index.kept, share.prefix)
        if share.upstream:
            return Use(kept, reserved)
        left = await finish(leftovers, self._scratch)
        coming = [each for each in left if await finish(held, each)]
        here = sum(each.size for each in coming)
        return Use(kept, sum(each.size for each in left) - here + max(here, reserved))

    async def make_room(self, share: Share, goal: int, cause: Cause = "cap") -> int:
        """Removes what was used least lately until a share has no more than `goal` bytes; returns how many went.

        Raises:
            StorageError: something cannot be removed.
        """
        return await self._remove(share, (await self.use(share)).all - goal, cause)

    async def _evict(self, share: Share, size: int) -> None:
        freed = await self._remove(share, size, "cap")
        whose = f"the mirror of {share.upstream}" if share.upstream else "the mirror"
        if freed:
            _log.info("%s: %d bytes were evicted, to keep its cap of %s", whose, freed, written_size(share.cap or 0))
        if freed < size:
            _log.warning(
                "%s: %d bytes more than its cap of %s are pinned, pushed, or on their way",
                *(whose, size - freed, written_size(share.cap or 0)),
            )

    async def _remove(self, share: Share, size: int, cause: Cause) -> int:
        freed = 0 if share.upstream else await self._give_up(size)
        for manifests in (False, True):
            behind = (-1.0, "")
            while freed < size:
                page = await self._oldest(share, behind, manifests=manifests)
                if not page:
                    break
                batch = _enough(page, size - freed)
                behind = batch[-1].used, str(batch[-1].digest)
                freed += await self._removed(share, batch, cause)
        return freed

    async def _oldest(self, share: Share, behind: tuple[float, str], *, manifests: bool) -> list[Content]:
        return await self._index.do(Index.oldest, share.prefix, manifests=manifests, behind=behind, limit=_AT_ONCE)

    async def _removed(self, share: Share, batch: list[Content], cause: Cause) -> int:
        gone = await self._remover.remove(batch, share.has)
        size = sum(each.size for each in gone)
        await self._index.do(Index.count, share.upstream, cause, len(gone), size)
        return size

    async def _give_up(self, size: int) -> int:
        """Gives up downloads that nobody goes on with."""
        freed = 0
        for each in await finish(leftovers, self._scratch):
            if freed < size and each.modified < self._clock() - ABANDONED and await finish(remove, each):
                freed += each.size
        return freed


def _enough(page: list[Content], size: int) -> list[Content]:
    """Returns the first ones that have so many bytes."""
    some = 0
    for count, each in enumerate(page, 1):
        some += each.size
        if some >= size:
            return page[:count]
    return page
