"""Lock files: the digests that names had, so that everybody pulls the same images.

file    = *( comment / blank / entry )
entry   = name [":" tag] "@" digest [ space comment ]
comment = "#" text

Names are sorted, so that a change of one image is a change of one line. Comments stay where they are: those at the head
of the file up to the first blank line, and those above an entry or behind it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from client.session import Session
from client.tasks import side_by_side
from ocispec.digest import Digest
from ocispec.errors import ArchiveInvalid, DigestInvalid, NameInvalid, PathUnknown, TagInvalid
from ocispec.reference import Reference
from storage.durable import DurableFolders, write
from storage.ingest import storage_errors
from storage.threads import finish

MAX_FILE = 4 * 1024 * 1024
HEAD = ("# Images by digest. `pullclient pull --locked` pulls these; `pullclient lock` renews them.",)
_EXPECTED = "expected an image with its digest, like docker.io/library/nginx:1.27@sha256:…"


@dataclass(frozen=True, slots=True)
class Entry:
    """One image.

    Attributes:
        reference: its name with its digest.
        above: the comments above it, as they stand.
        behind: the comment behind it, with its `#`.
    """

    reference: Reference
    above: tuple[str, ...] = ()
    behind: str = ""

    @property
    def name(self) -> str:
        """What is locked: a name with its tag, or with its digest where it has none."""
        return name_of(self.reference)

    def lines(self) -> list[str]:
        return [*self.above, f"{self.reference}{f'  {self.behind}' if self.behind else ''}"]


@dataclass(frozen=True, slots=True)
class Lock:
    """What a file holds: a head of comments, entries, and comments behind the last one."""

    head: tuple[str, ...] = HEAD
    entries: tuple[Entry, ...] = ()
    tail: tuple[str, ...] = ()

    def __str__(self) -> str:
        entries = sorted(self.entries, key=lambda each: each.name)
        body = [line for each in entries for line in each.lines()]
        return "".join(f"{line}\n" for line in (*self.head, *([""] if self.head else []), *body, *self.tail))

    def with_entry(self, reference: Reference) -> Lock:
        """Returns it with an image added, or renewed where its name is there."""
        known = {each.name: each for each in self.entries}
        name = name_of(reference)
        known[name] = replace(known.get(name, Entry(reference)), reference=reference)
        return replace(self, entries=tuple(known.values()))


@dataclass(frozen=True, slots=True)
class Locked:
    """What locking did to an image.

    Attributes:
        reference: its name with its digest.
        before: the digest that stood there; None where it is new.
    """

    reference: Reference
    before: Digest | None = field(default=None)


def name_of(reference: Reference) -> str:
    """How a lock file calls an image: by its tag, else by its digest."""
    return f"{reference.name}:{reference.tag}" if reference.tag else str(reference)


def read(path: Path) -> tuple[Reference, ...]:
    """Returns the images of a lock file, each with its digest, in the order of the file. Blocks.

    Raises:
        ArchiveInvalid: it is no lock file; naming file and line.
        StorageError: it cannot be read (`PathUnknown`: it is not there).
    """
    return tuple(each.reference for each in load(path).entries)


def pinned(path: Path, names: Sequence[Reference]) -> tuple[Reference, ...]:
    """Returns what a lock file says of some names, in their order, or of all where there are none; see `read`.

    Raises:
        ArchiveInvalid: it does not hold one of the names.
    """
    locked = {name_of(each): each for each in read(path)}
    if missing := [name_of(each) for each in names if name_of(each) not in locked]:
        raise ArchiveInvalid(f"{path} does not lock {', '.join(missing)}: pullclient lock {path} {missing[0]}")
    return tuple(locked[name_of(each)] for each in names) if names else tuple(locked.values())


def load(path: Path) -> Lock:
    """Returns a lock file with its comments; see `read`."""
    with storage_errors(path), path.open("rb") as file:
        raw = file.read(MAX_FILE + 1)
    if len(raw) > MAX_FILE:
        raise ArchiveInvalid(f"{path} is no lock file: it is longer than {MAX_FILE} bytes")
    try:
        return parse(raw.decode(), str(path))
    except UnicodeDecodeError as error:
        raise ArchiveInvalid(f"{path} is no lock file: it is not UTF-8") from error


def parse(text: str, label: str) -> Lock:
    """Reads the grammar above.

    Args:
        text: the file.
        label: how messages call it.

    Raises:
        ArchiveInvalid: naming the line.
    """
    head: tuple[str, ...] = ()
    entries: dict[str, Entry] = {}
    comments: list[str] = []
    for number, line in enumerate(text.split("\n"), 1):
        bare = line.strip()
        if not bare:
            if not entries and not head:
                head, comments = tuple(comments), []
        elif bare.startswith("#"):
            comments.append(bare)
        else:
            entry = _entry(bare, f"{label}:{number}", tuple(comments))
            if known := entries.get(entry.name):
                raise ArchiveInvalid(f"{label}:{number}: {entry.name} stands there twice, first {known.reference}")
            entries[entry.name], comments = entry, []
    return Lock(head, tuple(entries.values()), tuple(comments))


def _entry(line: str, where: str, above: tuple[str, ...]) -> Entry:
    text, mark, note = line.partition("#")
    try:
        reference = Reference.parse(text.strip())
    except (NameInvalid, TagInvalid, DigestInvalid) as error:
        raise ArchiveInvalid(f"{where}: {_EXPECTED}: {error.message}") from error
    if reference.digest is None:
        raise ArchiveInvalid(f"{where}: {_EXPECTED}, not {text.strip()[:200]!r}")
    return Entry(reference, above, f"{mark}{note}".strip())


async def lock_in(session: Session, path: Path, references: Sequence[Reference]) -> list[Locked]:
    """Asks registries what names stand for, and writes that into a lock file; the other images in it stay.

    Cancelled, it leaves the file as it was, or written whole.

    Args:
        session: connections, and how many of them.
        path: the file, made where it is not there.
        references: the images; where none are given, those in the file. One with a digest keeps that.

    Raises:
        ArchiveInvalid: there is such a file, and it is no lock file.
        PathUnknown: there is none, and no image is given.
        ManifestUnknown, Unauthorized, …: as the registries answer; nothing was written.
    """
    lock = await finish(_existing, path, bool(references))
    known = {each.name: each.reference for each in lock.entries}
    wanted = references or [_by_tag(each) for each in known.values()]
    found: dict[str, Reference] = {}

    async def one(reference: Reference) -> None:
        found[name_of(reference)] = await _resolved(session, reference)

    await side_by_side(one, {name_of(each): each for each in wanted}.values(), session.jobs)
    changed = lock
    for reference in found.values():
        changed = changed.with_entry(reference)
    await finish(_write, path, str(changed))
    before = {name: each.digest for name, each in known.items()}
    return [Locked(found[name], before.get(name)) for name in sorted(found)]


def _existing(path: Path, make: bool) -> Lock:
    try:
        return load(path)
    except PathUnknown as error:
        if make:
            return Lock()
        raise PathUnknown(f"{error.message}: name the images that it is to lock") from error


def _by_tag(reference: Reference) -> Reference:
    """What is asked for anew; a digest without a tag stands for good."""
    return replace(reference, digest=None) if reference.tag else reference


async def _resolved(session: Session, reference: Reference) -> Reference:
    remote = session.remote(reference)
    digest = await remote.head(reference.target)
    if digest is None:
        # Registries need not say a digest with HEAD, nor why they do not.
        digest, _ = await remote.manifest(reference.target)
    return reference.with_digest(reference.digest or digest)


def _write(path: Path, text: str) -> None:
    # A link in a checkout leads to the file that is meant.
    target = path.resolve()
    with storage_errors(path):
        if not target.exists() or target.read_bytes() != text.encode():
            write(target, text.encode(), target.parent, DurableFolders(target.parent))
