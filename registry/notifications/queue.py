"""Where events wait until their endpoints have taken them: on disk, for all processes that serve one root."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ocispec.errors import StorageError
from registry.notifications.database import Database, Entry, Figures, Head
from registry.sqlitefiles import SharedFile

_log = logging.getLogger("registry")
# Pulls of this time share a transaction, and `kill -9` may take their events.
_GATHER_SECONDS = 0.01
_RETRY_SECONDS = 1.0
# A full queue drops with every event: one line tells of all in this time.
_QUIET_SECONDS = 60.0


class Gathered:
    """Events that are not on disk yet, within bounds: what is too much is dropped, the oldest first."""

    def __init__(self, limit: int = 10_000, size: int = 64 << 20) -> None:
        self._limit, self._most = limit, size
        self._entries: deque[Entry] = deque()
        self._size = 0
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, entries: Iterable[Entry]) -> None:
        for each in entries:
            self._entries.append(each)
            self._size += len(each.envelope)
        while len(self._entries) > self._limit or self._size > self._most:
            self._size -= len(self._entries.popleft().envelope)
            self.dropped += 1

    def take(self) -> list[Entry]:
        taken, self._size = list(self._entries), 0
        self._entries.clear()
        return taken


class Queue:
    """The queue of one process, over the file that all share.

    A file that is damaged is set aside, and a new one begun. While none can be written, events are kept in memory,
    within bounds.

    Args:
        file: SQLite's; its folder is made.
        limit: how many events an endpoint may have waiting.
    """

    def __init__(self, file: Path, limit: int) -> None:
        self.file = file
        self._limit = limit
        self._shared = SharedFile(file, lambda path: Database(path, limit), "the events in it are not sent")
        self._gathered, self._is_urgent = Gathered(), False
        self._writing = asyncio.Lock()
        self._came = asyncio.Event()
        self._bells: list[asyncio.Event] = []
        self._is_failing = False
        self._dropped: Counter[str] = Counter()
        self._quiet_until = 0.0

    def bell(self) -> asyncio.Event:
        """An event that is set whenever this process has queued something."""
        self._bells.append(asyncio.Event())
        return self._bells[-1]

    async def put(self, entries: Sequence[Entry], *, durable: bool) -> None:
        """Queues events; returns once they are on disk, or at once for those that need not be `durable` (pulls).

        It raises nothing, and waits for no disk that has just failed: who pushes does not suffer.
        """
        self._gathered.add(entries)
        self._is_urgent |= durable
        self._came.set()
        if durable and not self._is_failing:
            await self._flush()

    async def run(self) -> None:
        """Writes what `put` left to be written, until cancelled."""
        while True:
            await self._came.wait()
            self._came.clear()
            await asyncio.sleep(_GATHER_SECONDS)
            await self._flush()
            if self._is_failing:
                await asyncio.sleep(_RETRY_SECONDS)
                self._came.set()

    async def close(self) -> None:
        """Writes what is left, and closes the file; whoever comes late opens it again."""
        await self._flush()
        if len(self._gathered):
            _log.error("%d events could not be queued, and are lost", len(self._gathered))
        await self._shared.close()

    async def head(self, endpoint: str) -> Head | None:
        """The oldest event of an endpoint; raises StorageError."""
        return await self._shared.do(Database.head, endpoint)

    async def took(self, endpoint: str, number: int, status: int) -> Head | None:
        """Removes an event that the endpoint took, and returns the next one; raises StorageError."""
        return await self._shared.do(Database.took, endpoint, number, status)

    async def refused(self, endpoint: str, status: int | None, error: str) -> None:
        """Notes that an endpoint did not take an event; raises StorageError."""
        await self._shared.do(Database.refused, endpoint, status, error)

    async def keep(self, endpoints: Sequence[str]) -> dict[str, int]:
        """Forgets all other endpoints; returns how many events each had waiting. Raises StorageError."""
        return await self._shared.do(Database.keep, endpoints)

    async def figures(self) -> list[Figures]:
        """How each endpoint fares that ever had an event; raises StorageError."""
        return await self._shared.do(Database.figures)

    async def _flush(self) -> None:
        # Who waits here finds that the one before has written for both.
        async with self._writing:
            entries, urgent = self._gathered.take(), self._is_urgent
            if not entries:
                return
            self._is_urgent = False
            written = False
            try:
                dropped = await self._shared.do(_add, entries, urgent)
                written = True
            except StorageError as error:
                self._complain(error)
                return
            finally:
                if not written:
                    later = self._gathered.take()
                    self._gathered.add([*entries, *later])
                    self._is_urgent |= urgent
        self._tell_written(dropped)

    def _complain(self, error: StorageError) -> None:
        if not self._is_failing:
            _log.error("events cannot be queued: %s; until they can, they are kept in memory", error.message)
        self._is_failing = True
        self._came.set()

    def _tell_written(self, dropped: Mapping[str, int]) -> None:
        if self._is_failing:
            _log.warning("events can be queued again")
        self._is_failing = False
        if lost := self._gathered.dropped:
            _log.error("%d events were dropped: more than memory is kept for came while none could be queued", lost)
            self._gathered.dropped = 0
        self._tell_dropped(dropped)
        for each in self._bells:
            each.set()

    def _tell_dropped(self, dropped: Mapping[str, int]) -> None:
        self._dropped.update(dropped)
        if time.monotonic() < self._quiet_until or not self._dropped.total():
            return
        for name, count in (+self._dropped).items():
            _log.error("endpoint %s: the oldest %d events were dropped: at most %d may wait", name, count, self._limit)
        self._dropped.clear()
        self._quiet_until = time.monotonic() + _QUIET_SECONDS


def _add(database: Database, entries: Sequence[Entry], durable: bool) -> dict[str, int]:
    return database.add(entries, durable=durable)
