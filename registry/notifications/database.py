"""The queue's file: SQLite, with each endpoint's events in their order, and how each endpoint fares.

Everything here blocks, and belongs into one thread. Several processes may have the file open.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ocispec.errors import StorageError
from registry.sqlitefiles import OpenFile

_TABLES = """
CREATE TABLE IF NOT EXISTS endpoints (
    name TEXT PRIMARY KEY,
    pending INTEGER NOT NULL DEFAULT 0, bytes INTEGER NOT NULL DEFAULT 0,
    events INTEGER NOT NULL DEFAULT 0, successes INTEGER NOT NULL DEFAULT 0, failures INTEGER NOT NULL DEFAULT 0,
    errors INTEGER NOT NULL DEFAULT 0, dropped INTEGER NOT NULL DEFAULT 0,
    last_success REAL, last_failure REAL, last_error TEXT
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS statuses (
    endpoint TEXT, status INTEGER, count INTEGER NOT NULL, PRIMARY KEY (endpoint, status)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS events (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    endpoint TEXT NOT NULL, queued REAL NOT NULL, size INTEGER NOT NULL, envelope BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS events_of_endpoint ON events (endpoint, number);
"""
# What an event may take of the disk, on the average: references of a large manifest have megabytes.
_AVERAGE = 4096
_FREE_PAGES = 1024


@dataclass(frozen=True, slots=True)
class Entry:
    """An envelope that is to be queued."""

    endpoint: str
    envelope: bytes = field(repr=False)
    queued: float = field(default_factory=time.time)


@dataclass(frozen=True, slots=True)
class Head:
    """The oldest event of an endpoint.

    Attributes:
        number: its place; the events of an endpoint are sent in this order.
        envelope: what is sent.
        pending: how many events wait, this one among them.
    """

    number: int
    envelope: bytes = field(repr=False)
    pending: int = 1


@dataclass(frozen=True, slots=True)
class Figures:
    """How an endpoint fares, over all processes and restarts; times are seconds since the epoch.

    Attributes:
        pending: events that wait.
        oldest: since when the oldest waits.
        events: how many were queued.
        successes: how many the endpoint took.
        failures: answers that were no success.
        errors: requests without an answer.
        dropped: events that were dropped because too many waited.
        statuses: how often each status was answered.
    """

    endpoint: str
    pending: int = 0
    oldest: float | None = None
    events: int = 0
    successes: int = 0
    failures: int = 0
    errors: int = 0
    dropped: int = 0
    last_success: float | None = None
    last_failure: float | None = None
    last_error: str | None = None
    statuses: tuple[tuple[int, int], ...] = ()


class Database(OpenFile):
    """An open queue; every method raises sqlite3.Error.

    Args:
        path: of the file, which is made where it is not there.
        limit: how many events an endpoint may have waiting; they have 4 KiB each, on the average.
    """

    version = 1
    tables = _TABLES

    def __init__(self, path: Path, limit: int) -> None:
        super().__init__(path)
        self._limit = limit

    def _begin(self) -> None:
        # No number comes twice, not even in the file that follows a damaged one: `took` may come late.
        self._db.execute("INSERT INTO sqlite_sequence VALUES ('events', ?)", (time.time_ns() // 1000,))

    def add(self, entries: Sequence[Entry], *, durable: bool) -> dict[str, int]:
        """Queues events, in this order, and drops the oldest where too many wait; returns how many of which endpoint.

        Args:
            entries: what to queue.
            durable: whether it shall survive a loss of power too; the end of the process it survives in any case.
        """
        self._db.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
        with self._writing():
            self._db.executemany(
                "INSERT INTO events (endpoint, queued, size, envelope) VALUES (?, ?, ?, ?)",
                [(each.endpoint, each.queued, len(each.envelope), each.envelope) for each in entries],
            )
            dropped = {}
            for name in {each.endpoint for each in entries}:
                sizes = [len(each.envelope) for each in entries if each.endpoint == name]
                self._count(name, pending=len(sizes), events=len(sizes), bytes=sum(sizes))
                dropped[name] = self._drop(name)
            return dropped

    def _drop(self, endpoint: str) -> int:
        pending, size = self._db.execute("SELECT pending, bytes FROM endpoints WHERE name=?", (endpoint,)).fetchone()
        drop, freed = 0, 0
        oldest = self._db.execute("SELECT number, size FROM events WHERE endpoint=? ORDER BY number", (endpoint,))
        number = -1
        while pending - drop > self._limit or (size - freed > self._limit * _AVERAGE and drop < pending):
            number, length = oldest.fetchone()
            drop, freed = drop + 1, freed + length
        oldest.close()
        if drop:
            self._db.execute("DELETE FROM events WHERE endpoint=? AND number<=?", (endpoint, number))
            self._count(endpoint, pending=-drop, bytes=-freed, dropped=drop)
        return drop

    def head(self, endpoint: str) -> Head | None:
        """The endpoint's oldest event."""
        row = self._db.execute(
            "SELECT number, envelope, pending FROM events JOIN endpoints ON name=endpoint"
            " WHERE endpoint=? ORDER BY number LIMIT 1",
            (endpoint,),
        ).fetchone()
        return Head(*row) if row else None

    def took(self, endpoint: str, number: int, status: int) -> Head | None:
        """Enters that the endpoint took an event, removes it, and returns the next one."""
        self._db.execute("PRAGMA synchronous=NORMAL")
        with self._writing():
            row = self._db.execute("SELECT size FROM events WHERE number=?", (number,)).fetchone()
            if row:  # else it was dropped while it was sent
                self._db.execute("DELETE FROM events WHERE number=?", (number,))
                self._count(endpoint, pending=-1, bytes=-row[0])
            self._count(endpoint, successes=1)
            self._answered(endpoint, status)
            self._db.execute("UPDATE endpoints SET last_success=? WHERE name=?", (time.time(), endpoint))
        head = self.head(endpoint)
        if head is None and self._one("PRAGMA freelist_count") > _FREE_PAGES:
            # By `execute` it would free a single page.
            self._db.executescript("PRAGMA incremental_vacuum")
        return head

    def refused(self, endpoint: str, status: int | None, error: str) -> None:
        """Enters that the endpoint did not take an event: it answered `status`, or nothing."""
        self._db.execute("PRAGMA synchronous=NORMAL")
        with self._writing():
            if status is None:
                self._count(endpoint, errors=1)
            else:
                self._count(endpoint, failures=1)
                self._answered(endpoint, status)
            self._db.execute(
                "UPDATE endpoints SET last_failure=?, last_error=? WHERE name=?", (time.time(), error, endpoint)
            )

    def keep(self, names: Iterable[str]) -> dict[str, int]:
        """Forgets all endpoints but these; returns how many events each of the others had waiting."""
        kept = set(names)
        with self._writing():
            rows = self._db.execute("SELECT name, pending FROM endpoints").fetchall()
            gone = {name: pending for name, pending in rows if name not in kept}
            for name in gone:
                self._db.execute("DELETE FROM events WHERE endpoint=?", (name,))
                self._db.execute("DELETE FROM statuses WHERE endpoint=?", (name,))
                self._db.execute("DELETE FROM endpoints WHERE name=?", (name,))
        return gone

    def figures(self) -> list[Figures]:
        """How each endpoint fares that ever had an event, by name."""
        rows = self._db.execute(
            "SELECT name, pending, (SELECT queued FROM events WHERE endpoint=name ORDER BY number LIMIT 1), events,"
            " successes, failures, errors, dropped, last_success, last_failure, last_error FROM endpoints ORDER BY name"
        ).fetchall()
        statuses = self._db.execute("SELECT endpoint, status, count FROM statuses ORDER BY status").fetchall()
        counts = {row[0]: tuple((status, count) for name, status, count in statuses if name == row[0]) for row in rows}
        return [Figures(*(*row, counts[row[0]])) for row in rows]

    def _count(self, endpoint: str, **changes: int) -> None:
        # The names are those of the schema above.
        self._db.execute("INSERT OR IGNORE INTO endpoints (name) VALUES (?)", (endpoint,))
        added = ", ".join(f"{column}={column}+?" for column in changes)
        self._db.execute(f"UPDATE endpoints SET {added} WHERE name=?", (*changes.values(), endpoint))  # noqa: S608

    def _answered(self, endpoint: str, status: int) -> None:
        self._db.execute(
            "INSERT INTO statuses VALUES (?, ?, 1) ON CONFLICT (endpoint, status) DO UPDATE SET count=count+1",
            (endpoint, status),
        )


def look(file: Path) -> list[Figures]:
    """Returns the figures of a queue that another process may be using; none where there is no queue.

    Raises:
        StorageError: it cannot be read.
    """
    try:
        if not file.exists():
            return []
        database = Database(file, limit=0)
        try:
            return database.figures()
        finally:
            database.close()
    except (sqlite3.Error, OSError) as error:
        raise StorageError(f"{file}: {error}") from error
