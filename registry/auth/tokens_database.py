"""What the registry itself keeps of tokens: the logins of clients, and when tokens were used last. SQLite.

Everything here blocks. Several processes use the file at once, each call with a connection of its own: logins are rare.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ocispec.errors import StorageError

FILE = "tokens.sqlite"
MOST_LOGINS = 100
"""Of one account: whoever logs in anew in every job of a build leaves no more than this behind."""
_BUSY_SECONDS = 2.0
_MODE = 0o600
_SCHEMA = """
CREATE TABLE IF NOT EXISTS logins (
    hash BLOB PRIMARY KEY, kind TEXT NOT NULL, name TEXT NOT NULL, account TEXT NOT NULL, client TEXT NOT NULL,
    created REAL NOT NULL, used REAL NOT NULL, expires REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS logins_of_account ON logins (kind, name, used);
CREATE TABLE IF NOT EXISTS uses (id TEXT PRIMARY KEY, used REAL NOT NULL) WITHOUT ROWID;
PRAGMA user_version=1;
"""


@dataclass(frozen=True, slots=True)
class Login:
    """A login that a client keeps.

    Attributes:
        hash: of its secret.
        kind, name: whose it is.
        account: by what it was made; see `registry.auth.tokens_accounts`.
        client: the program, as it calls itself.
        created, used, expires: seconds since the epoch.
    """

    hash: bytes = field(repr=False)
    kind: str
    name: str
    account: str
    client: str
    created: float
    used: float
    expires: float

    @property
    def title(self) -> str:
        """What the operator calls it."""
        return f"login-{self.hash.hex()[:12]}"


class TokenDatabase:
    """The file, which is made when something is first written; every method raises StorageError."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def add(self, login: Login) -> None:
        """Enters a login, and removes those that have ended, and the oldest where an account has too many."""
        with self._open(make=True) as db:
            db.execute("BEGIN IMMEDIATE")
            db.execute("DELETE FROM logins WHERE expires<=?", (login.created,))
            db.execute(
                "DELETE FROM logins WHERE hash IN (SELECT hash FROM logins WHERE kind=? AND name=?"
                " ORDER BY used DESC LIMIT -1 OFFSET ?)",
                (login.kind, login.name, MOST_LOGINS - 1),
            )
            values = (login.hash, login.kind, login.name, login.account, login.client)
            times = (login.created, login.used, login.expires)
            db.execute("INSERT INTO logins VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (*values, *times))
            db.execute("COMMIT")

    def use(self, hashed: bytes, now: float, lifetime: float) -> Login | None:
        """Returns a login that has not ended, whose end is put off by this; None where there is none."""
        with self._open() as db:
            updated = "UPDATE logins SET used=?, expires=? WHERE hash=? AND expires>? RETURNING *"
            row = db.execute(updated, (now, now + lifetime, hashed, now)).fetchone()
            return Login(*row) if row else None

    def remove(self, hashed: bytes) -> None:
        with self._open() as db:
            db.execute("DELETE FROM logins WHERE hash=?", (hashed,))

    def logins(self, now: float) -> list[Login]:
        """Those that have not ended, the oldest first."""
        with self._open() as db:
            rows = db.execute("SELECT * FROM logins WHERE expires>? ORDER BY created", (now,)).fetchall()
            return [Login(*row) for row in rows]

    def note(self, token: str, now: float) -> None:
        """Enters that a personal or robot token was used."""
        with self._open(make=True) as db:
            db.execute("INSERT OR REPLACE INTO uses VALUES (?, ?)", (token, now))

    def uses(self) -> dict[str, float]:
        """When tokens were used last, by their ids."""
        with self._open() as db:
            return dict(db.execute("SELECT id, used FROM uses").fetchall())

    @contextmanager
    def _open(self, *, make: bool = False) -> Iterator[sqlite3.Connection]:
        """Opens the file; an empty one in memory where there is none and none is to be made."""
        try:
            if make:
                os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _MODE))
            path = self._path if self._path.exists() else ":memory:"
            db = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None)
            try:
                if db.execute("PRAGMA user_version").fetchone()[0] != 1:
                    db.execute("PRAGMA journal_mode=WAL")
                    db.executescript(_SCHEMA)
                yield db
            finally:
                db.close()
        except (sqlite3.Error, OSError) as error:
            raise StorageError(f"{self._path}: {error}") from error
