"""Files of SQLite that several processes share: one thread of each uses one, and who finds it damaged sets it aside."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

from ocispec.errors import StorageError
from storage.threads import ended

P = ParamSpec("P")
T = TypeVar("T")
D = TypeVar("D", bound="OpenFile")

_log = logging.getLogger("registry")
BUSY_SECONDS = 2.0
_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


class OpenFile:
    """An open file of SQLite; every method raises sqlite3.Error.

    Everything here blocks, and belongs into one thread. Several processes may have the file open.

    Attributes:
        version: of the tables; a file of a newer one is not opened.
        tables: the statements that make them.

    Args:
        path: of the file, which is made where it is not there.
    """

    version: int
    tables: str

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        try:
            self._prepare()
            status = path.stat()
        except (sqlite3.Error, OSError):
            self._db.close()
            raise
        self._path, self._file = path, (status.st_dev, status.st_ino)

    def is_current(self) -> bool:
        """Whether the file still lies at its path: another process may have set it aside."""
        try:
            status = self._path.stat()
        except OSError:
            return False
        return (status.st_dev, status.st_ino) == self._file

    def close(self) -> None:
        self._db.close()

    def _prepare(self) -> None:
        found = self._one("PRAGMA user_version")
        if found > self.version:
            raise sqlite3.DatabaseError(f"written by a newer version: {found}, expected {self.version}")
        if found < self.version:
            self._db.execute("PRAGMA auto_vacuum=INCREMENTAL")
            self._db.execute("PRAGMA journal_mode=WAL")
            with self._writing():
                for statement in self.tables.split(";"):
                    self._db.execute(statement)
                self._begin()
                self._db.execute(f"PRAGMA user_version={self.version}")

    def _begin(self) -> None:
        """Enters what a new file begins with, within the transaction that makes its tables."""

    def _one(self, query: str, values: tuple[Any, ...] = ()) -> Any:
        return self._db.execute(query, values).fetchone()[0]

    @contextmanager
    def _writing(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        finally:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")


class SharedFile(Generic[D]):
    """A file that all processes share, as one of them has it; it is opened when something is first done with it.

    Args:
        path: of the file; its folder is made.
        opened: opens it.
        loss: what is said to be lost when it is damaged, and set aside for a new one.
    """

    def __init__(self, path: Path, opened: Callable[[Path], D], loss: str) -> None:
        self.path = path
        self._opened = opened
        self._loss = loss
        self._database: D | None = None
        self._thread = ThreadPoolExecutor(1, path.stem)

    async def do(self, work: Callable[Concatenate[D, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Does `work` in the file's thread; when cancelled, the cancellation goes on once `work` has ended.

        Raises:
            StorageError: it cannot be done.
        """
        return await self._in_thread(lambda: self._use(lambda database: work(database, *args, **kwargs)))

    async def close(self) -> None:
        """Closes the file; whoever comes late opens it again."""
        await self._in_thread(self._close)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        running = asyncio.get_running_loop().run_in_executor(self._thread, work)
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            await ended(running)
            running.cancelled() or running.exception()
            raise

    # What follows runs in the thread.

    def _use(self, work: Callable[[D], T]) -> T:
        try:
            try:
                return work(self._open())
            except sqlite3.DatabaseError as error:
                if not _is_damage(error):
                    raise
                with self._guarded():
                    # Unless another process did, and the file is a new one.
                    if self._database and self._database.is_current():
                        self._set_aside(error)
                return work(self._open())
        except (sqlite3.Error, OSError) as error:
            raise StorageError(f"{self.path}: {_cause(error)}") from error

    def _open(self) -> D:
        if self._database and self._database.is_current():
            return self._database
        self._close()
        with self._guarded():
            try:
                self._database = self._made()
            except sqlite3.DatabaseError as error:
                if not _is_damage(error):
                    raise
                self._set_aside(error)
                self._database = self._made()
        return self._database

    def _made(self) -> D:
        # It tells who was here: nobody else's to read.
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        return self._opened(self.path)

    def _close(self) -> None:
        if self._database:
            self._database.close()
        self._database = None

    def _set_aside(self, error: sqlite3.DatabaseError) -> None:
        # Another process may still have it open: SQLite does not touch a successor's log when it closes a moved file.
        self._close()
        aside = f"{self.path.name}.damaged-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
        for suffix in ("", "-wal", "-shm"):
            with suppress(FileNotFoundError):
                self.path.with_name(self.path.name + suffix).rename(self.path.with_name(aside + suffix))
        message = "%s cannot be used (%s): it was set aside as %s, and %s"
        _log.error(message, self.path, _cause(error), aside, self._loss)

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """One process opens the file, or sets it aside, at a time."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        guard = os.open(self.path.with_suffix(".guard"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(guard, fcntl.LOCK_EX)
            yield
        finally:
            os.close(guard)


def _is_damage(error: sqlite3.DatabaseError) -> bool:
    # What a newer version wrote has no code of SQLite's: it is set aside like what is damaged.
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_NOTADB) & 0xFF in _DAMAGED


def _cause(error: sqlite3.Error | OSError) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error)
