"""Marking a whole store."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from ocispec.digest import Digest
from ocispec.reference import RepositoryName
from storage.collecting import folders
from storage.collecting.repositories import RepositoryMarks, Unreadable, mark_repository
from storage.collecting.rules import Rules
from storage.engine import Engine

_AT_ONCE = 64

# Is told of each repository, with those of its blobs that no repository before it keeps.
Watch = Callable[[RepositoryMarks, Sequence[Digest]], None]


class Marks:
    """A set of digests; some 130 bytes each."""

    def __init__(self) -> None:
        self._digests: set[bytes] = set()

    def add(self, digest: Digest) -> bool:
        """Says whether it is new."""
        before = len(self._digests)
        self._digests.add(bytes.fromhex(digest.hex))
        return len(self._digests) > before

    def __contains__(self, digest: Digest) -> bool:
        return bytes.fromhex(digest.hex) in self._digests

    def __len__(self) -> int:
        return len(self._digests)


@dataclass(slots=True)
class Marked:
    """What is in use.

    Attributes:
        blobs: to be kept, manifests among them.
        repositories: those in which something goes, without what they keep.
        unreadable: manifests that nobody can read.
        young: how many manifests are kept for nothing but being young.
    """

    blobs: Marks = field(default_factory=Marks)
    repositories: list[RepositoryMarks] = field(default_factory=list)
    unreadable: list[Unreadable] = field(default_factory=list)
    young: int = 0


def _nobody(_repository: RepositoryMarks, _fresh: Sequence[Digest]) -> None:
    """Tells nobody."""


async def mark(engine: Engine, rules: Rules, watch: Watch = _nobody) -> Marked:
    """Marks all that is in use; changes nothing.

    Args:
        engine: where the bytes rest.
        rules: what goes.
        watch: is told of the repositories, in order of their names.

    Raises:
        StorageError: something cannot be read, so that nobody can tell what is in use.
    """
    marked = Marked()
    everything = [each async for each in folders.repositories(engine)]
    for some in _windows(everything):
        found: dict[RepositoryName, RepositoryMarks] = {}

        async def enter(each: tuple[RepositoryName, frozenset[str]]) -> None:
            found[each[0]] = await mark_repository(engine, *each, rules)  # noqa: B023 - awaited in this round

        await folders.side_by_side(some, enter)
        for name, _ in some:
            _take(marked, found[name], watch)
    return marked


def _take(marked: Marked, repository: RepositoryMarks, watch: Watch) -> None:
    for digest in repository.manifests:
        marked.blobs.add(digest)
    watch(repository, [digest for digest in repository.blobs if marked.blobs.add(digest)])
    marked.unreadable += repository.unreadable
    marked.young += repository.young
    if repository.changes:
        marked.repositories.append(repository.without_what_stays())


def _windows(
    repositories: Sequence[tuple[RepositoryName, frozenset[str]]],
) -> Iterator[Sequence[tuple[RepositoryName, frozenset[str]]]]:
    for start in range(0, len(repositories), _AT_ONCE):
        yield repositories[start : start + _AT_ONCE]
