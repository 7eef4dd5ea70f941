"""How many transfers run at once: in all, and to one host."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager


class Slots:
    """Places for transfers, given in the order in which they were asked for.

    Args:
        total: how many there are.
        per_host: how many of them one host gets.
    """

    def __init__(self, total: int, per_host: int) -> None:
        self.total = total
        self.per_host = min(per_host, total)
        self._sharing = 0
        self._all = asyncio.Semaphore(total)
        self._hosts: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(self.per_host))

    @contextmanager
    def shared(self) -> Iterator[int]:
        """While one blob is fetched; gives how many places it may count on beside the blobs that are on their way."""
        self._sharing += 1
        try:
            yield max(1, self.per_host // self._sharing)
        finally:
            self._sharing -= 1

    @asynccontextmanager
    async def one(self, host: str) -> AsyncIterator[None]:
        """Holds a place for a transfer from `host`."""
        async with self._hosts[host], self._all:
            yield
