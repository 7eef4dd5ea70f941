"""Names in large folders: read once, in order, remembered within a bound, and believed only against the folder itself.

A folder's names are in no order on disk, so a page of them in order takes all of them: some 0.1 s for 100,000. They are
remembered, and count while `stat` shows the folder's same inode and times: every name that comes or goes changes those.
As with small files (`storage.smallfiles`), that is sound because only a folder that had been at rest for a while is
remembered: whatever changes it afterwards, and be it while it is read, bears later times, even where the system counts
time coarsely. A folder that is not at rest is read anew for each page.
"""

from __future__ import annotations

import heapq
import os
import sys
import threading
import time
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

_AT_REST = 2.0
# A folder of fewer names is read as quickly as it is looked up.
_WORTHWHILE = 128
_LIMIT = 64 * 1024 * 1024
# What a name costs beside its characters, in CPython: the string, and its place in the list.
_NAME_BYTES = sys.getsizeof("") + 8
# A file system tells a folder's size in its own way (blocks, names, bytes of names): where it is so little, the folder
# is read within some milliseconds at most.
_SMALL = 8 * 1024

_State = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class _Listing:
    """A folder's names as they were while it bore `state`; in their order once somebody needed more than one page.

    Attributes:
        cost: bytes of memory.
    """

    state: _State
    names: Sequence[str]
    ordered: bool
    cost: int


class Listings:
    """Reads names of folders, and remembers those of large ones; threads may share it.

    Args:
        limit: bytes that what is remembered may take in all.
        at_rest: seconds since its last change after which a folder is remembered.
    """

    def __init__(self, limit: int = _LIMIT, at_rest: float = _AT_REST) -> None:
        self._limit = limit
        self._at_rest = at_rest
        self._size = 0
        self._remembered: OrderedDict[str, _Listing] = OrderedDict()
        self._lock = threading.Lock()

    def is_quick(self, folder: str) -> bool:
        """Whether `page` takes microseconds, as long as the disk does not let us wait: the folder is small, or known.

        Raises:
            OSError: as the system gives it.
        """
        found = os.stat(folder)  # noqa: PTH116 - pathlib costs four times as much
        known = self._remembered.get(folder)
        return found.st_size <= _SMALL or (known is not None and known.ordered and known.state == _state(found))

    def page(self, folder: str, after: str, limit: int | None) -> list[str]:
        """Returns the names behind `after`, in lexical order, the first `limit` of them; None returns all.

        It blocks: quickly where `is_quick` says so, else call it from a worker thread.

        Raises:
            OSError: as the system gives it.
        """
        state = _state(os.stat(folder))  # noqa: PTH116 - as above
        known = self._remembered.get(folder)
        if known is None or known.state != state:
            names = os.listdir(folder)  # noqa: PTH208 - names are all that is asked for
            self._keep(folder, _Listing(state, names, ordered=False, cost=_cost(names)))
            return _first(names, after, limit)
        if not known.ordered:
            # The first page was spared this: few who read a page go on to the next.
            known = _Listing(state, sorted(known.names), ordered=True, cost=known.cost)
        self._keep(folder, known)
        start = bisect_right(known.names, after)
        return list(known.names[start : None if limit is None else start + limit])

    def _keep(self, folder: str, listing: _Listing) -> None:
        with self._lock:
            former = self._remembered.pop(folder, None)
            self._size -= former.cost if former else 0
            if not self._may_be_believed(listing):
                return
            self._remembered[folder] = listing
            self._size += listing.cost
            while self._size > self._limit:
                self._size -= self._remembered.popitem(last=False)[1].cost

    def _may_be_believed(self, listing: _Listing) -> bool:
        at_rest = listing.state[-1] / 1e9 < time.time() - self._at_rest
        return at_rest and len(listing.names) >= _WORTHWHILE and listing.cost <= self._limit


def _first(names: list[str], after: str, limit: int | None) -> list[str]:
    behind = [name for name in names if name > after]
    if limit is None or limit * 8 > len(behind):
        return sorted(behind)[:limit]
    return heapq.nsmallest(limit, behind)


def _cost(names: Sequence[str]) -> int:
    return sum(map(len, names)) + len(names) * _NAME_BYTES


def _state(found: os.stat_result) -> _State:
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_ctime_ns
