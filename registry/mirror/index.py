"""What was fetched and when it was last used: a file of SQLite, derived from the marks in the tree (`marks.py`).

A content is counted once, however many repositories link it, and its uses count together. The pins that are set by
command are all that is in no other place.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ocispec.digest import Digest
from ocispec.reference import RepositoryName
from registry.mirror.marks import Kind
from registry.sqlitefiles import OpenFile

_TABLES = """
CREATE TABLE IF NOT EXISTS contents (
    digest TEXT PRIMARY KEY, size INTEGER NOT NULL, used REAL NOT NULL, manifest INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS contents_by_use ON contents (manifest, used, digest);
CREATE TABLE IF NOT EXISTS links (
    digest TEXT, name TEXT, kind TEXT, PRIMARY KEY (digest, name, kind)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS links_by_name ON links (name, kind);
CREATE TABLE IF NOT EXISTS pins (image TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS removed (
    upstream TEXT, cause TEXT, contents INTEGER NOT NULL, bytes INTEGER NOT NULL, PRIMARY KEY (upstream, cause)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS complete (since REAL NOT NULL)
"""
_KEPT = """
SELECT coalesce(sum(size), 0) FROM contents
WHERE digest IN (SELECT digest FROM links WHERE name >= :first AND name < :behind)
"""
_OLDEST = """
SELECT digest, size, used FROM contents WHERE manifest=:manifests AND (used, digest) > (:used, :last) AND EXISTS (
    SELECT 1 FROM links WHERE links.digest=contents.digest AND name >= :first AND name < :behind
) ORDER BY used, digest LIMIT :limit
"""


Cause = Literal["cap", "ttl", "command"]


@dataclass(frozen=True, slots=True, order=True)
class Link:
    """That a repository has what was fetched."""

    name: RepositoryName
    kind: Kind
    digest: Digest


@dataclass(frozen=True, slots=True)
class Content:
    """What was fetched: its size in bytes, and when it was last used, in seconds since the epoch."""

    digest: Digest
    size: int
    used: float


@dataclass(frozen=True, slots=True)
class Removed:
    """How much was removed of an upstream's, and why: `cap`, `ttl` or `command`; over all processes and restarts."""

    upstream: str
    cause: str
    contents: int
    bytes: int


class Index(OpenFile):
    """An open index; every method raises sqlite3.Error.

    `prefix` is what the names of an upstream's repositories begin with; empty, it stands for all.
    """

    version = 1
    tables = _TABLES

    def is_complete(self) -> bool:
        """Whether it was completed from the tree since it was made."""
        return bool(self._one("SELECT count(*) FROM complete"))

    def completed(self, when: float) -> None:
        with self._writing():
            self._db.execute("DELETE FROM complete")
            self._db.execute("INSERT INTO complete VALUES (?)", (when,))

    def state(self) -> tuple[int, int]:
        """Something that differs once anybody has written."""
        return self._one("PRAGMA data_version"), self._db.total_changes

    def link(self, found: Iterable[tuple[Link, int, float]]) -> None:
        """Enters links with the sizes of what they name and the times when it was fetched, which are uses too."""
        self._db.execute("PRAGMA synchronous=NORMAL")
        with self._writing():
            for link, size, used in found:
                digest, is_manifest = str(link.digest), link.kind is Kind.MANIFEST
                self._db.execute(
                    "INSERT INTO contents VALUES (?, ?, ?, ?) ON CONFLICT (digest) DO UPDATE SET"
                    " size=excluded.size, used=max(used, excluded.used), manifest=max(manifest, excluded.manifest)",
                    (digest, size, used, is_manifest),
                )
                self._db.execute("INSERT OR IGNORE INTO links VALUES (?, ?, ?)", (digest, link.name, link.kind))

    def use(self, uses: Mapping[str, float]) -> None:
        """Enters when contents were used."""
        self._db.execute("PRAGMA synchronous=NORMAL")
        with self._writing():
            self._db.executemany(
                "UPDATE contents SET used=? WHERE digest=? AND used<?",
                [(used, digest, used) for digest, used in uses.items()],
            )

    def unlink(self, links: Iterable[Link]) -> None:
        """Removes links; what nothing links any more stays a content until it is forgotten."""
        with self._writing():
            self._db.executemany(
                "DELETE FROM links WHERE digest=? AND name=? AND kind=?",
                [(str(each.digest), each.name, each.kind) for each in links],
            )

    def forget(self, digests: Iterable[Digest]) -> None:
        """Removes contents that nothing links."""
        with self._writing():
            self._db.executemany(
                "DELETE FROM contents WHERE digest=:digest AND NOT EXISTS (SELECT 1 FROM links WHERE digest=:digest)",
                [{"digest": str(each)} for each in digests],
            )

    def kept(self, prefix: str = "") -> int:
        """How many bytes are kept."""
        if not prefix:
            return int(self._one("SELECT coalesce(sum(size), 0) FROM contents"))
        return int(self._db.execute(_KEPT, _below(prefix)).fetchone()[0])

    def oldest(
        self, prefix: str, *, manifests: bool, behind: tuple[float, str] = (-1.0, ""), limit: int = 1000
    ) -> list[Content]:
        """Contents by their last use, the oldest first.

        Args:
            prefix: of repositories, of which one at least links them.
            manifests: either these, or all that are none.
            behind: use and digest of the last one that is known already.
            limit: how many at most.
        """
        rows = self._db.execute(
            _OLDEST,
            {"manifests": manifests, "used": behind[0], "last": behind[1], "limit": limit, **_below(prefix)},
        )
        return [Content(Digest.parse(digest), size, used) for digest, size, used in rows]

    def contents(self, digests: Iterable[Digest]) -> dict[Digest, Content]:
        """Those of these that are here."""
        query = "SELECT size, used FROM contents WHERE digest=?"
        rows = {each: self._db.execute(query, (str(each),)).fetchone() for each in digests}
        return {digest: Content(digest, *row) for digest, row in rows.items() if row}

    def links(self, digests: Iterable[Digest]) -> list[Link]:
        """All links to these."""
        query = "SELECT name, kind, digest FROM links WHERE digest=?"
        return [_link(row) for each in digests for row in self._db.execute(query, (str(each),))]

    def links_of(self, name: RepositoryName, kind: Kind | None = None) -> list[Link]:
        """All links of a repository, or those of a kind."""
        rows = self._db.execute(
            "SELECT name, kind, digest FROM links WHERE name=? AND kind IN (?, ?)",
            (name, kind or Kind.MANIFEST, kind or Kind.BLOB),
        )
        return [_link(row) for row in rows]

    def loose(self) -> list[Digest]:
        """Contents that nothing links: a crash came between the removal of the links and that of the bytes."""
        rows = self._db.execute(
            "SELECT digest FROM contents WHERE NOT EXISTS (SELECT 1 FROM links WHERE links.digest=contents.digest)"
        )
        return [Digest.parse(digest) for (digest,) in rows]

    def names(self) -> list[RepositoryName]:
        """The repositories that link something, in order."""
        rows = self._db.execute("SELECT DISTINCT name FROM links ORDER BY name")
        return [RepositoryName.parse(name) for (name,) in rows]

    def pins(self) -> list[str]:
        return [image for (image,) in self._db.execute("SELECT image FROM pins ORDER BY image")]

    def pin(self, images: Sequence[str]) -> None:
        self._db.execute("PRAGMA synchronous=FULL")
        with self._writing():
            self._db.executemany("INSERT OR IGNORE INTO pins VALUES (?)", [(each,) for each in images])

    def unpin(self, images: Sequence[str]) -> list[str]:
        """Returns those that were no pins."""
        with self._writing():
            return [each for each in images if not self._db.execute("DELETE FROM pins WHERE image=?", (each,)).rowcount]

    def count(self, upstream: str, cause: Cause, contents: int, size: int) -> None:
        """Counts what was removed."""
        with self._writing():
            self._db.execute(
                "INSERT INTO removed VALUES (?, ?, ?, ?) ON CONFLICT (upstream, cause) DO UPDATE SET"
                " contents=contents+excluded.contents, bytes=bytes+excluded.bytes",
                (upstream, cause, contents, size),
            )

    def removed(self) -> list[Removed]:
        return [Removed(*row) for row in self._db.execute("SELECT * FROM removed ORDER BY upstream, cause")]


def _below(prefix: str) -> dict[str, str]:
    # A name is ASCII: nothing that begins with the prefix is behind it and a character that none has.
    return {"first": prefix, "behind": f"{prefix}\x7f"}


def _link(row: tuple[str, str, str]) -> Link:
    name, kind, digest = row
    return Link(RepositoryName.parse(name), Kind(kind), Digest.parse(digest))
