"""Verify: hash every blob of the cache again, and fetch what is broken or missing from where its name says.

A blob whose bytes are wrong goes to quarantine at once, so that nothing is served from it and the next pull fetches it.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from typing import Any

from client.caching.census import Census, census, name_of
from client.progress import silent
from client.session import Session
from client.tasks import side_by_side
from client.transfers.download import Downloads
from ocispec.descriptor import Descriptor
from ocispec.digest import Digest
from ocispec.errors import (
    CacheError,
    DigestInvalid,
    LayerhouseError,
    NameInvalid,
    PathUnknown,
    StorageError,
    TagInvalid,
)
from ocispec.mediatypes import MANIFESTS, OCTET_STREAM
from ocispec.reference import Reference
from storage.layout import ImageLayout

# More readers than this make a disk seek and hash nothing sooner.
_HASHED_AT_ONCE = 8
# A manifest that was mended leads to others: index, index, image, layers.
_ROUNDS = 8


class Kind(Enum):
    """What is wrong with a blob, or with a name."""

    DAMAGED = "damaged"
    UNREADABLE = "unreadable"
    MISSING = "missing"
    INVALID = "invalid"
    EMPTY = "empty"


@dataclass(frozen=True, slots=True)
class Flaw:
    """Something wrong in the cache.

    Attributes:
        kind: DAMAGED: its bytes were wrong, it is in quarantine; UNREADABLE: it cannot be read or moved; MISSING;
            INVALID: a manifest with the right bytes that is none; EMPTY: an index of which no image is here.
        wanted: the blob.
        names: of the images that need it.
        cause: what the system or the grammar says, if it says anything.
    """

    kind: Kind
    wanted: Descriptor
    names: tuple[str, ...]
    cause: str = ""

    @property
    def mendable(self) -> bool:
        """Whether fetching the blob again can help."""
        return bool(self.names) and self.kind in (Kind.DAMAGED, Kind.UNREADABLE, Kind.MISSING)

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind.value, "digest": str(self.wanted.digest), "images": list(self.names)}


@dataclass(frozen=True, slots=True)
class Progress:
    """`blobs` of `of_blobs`, and `size` of `of_size` bytes, were hashed."""

    blobs: int
    of_blobs: int
    size: int
    of_size: int


class Verification:
    """Looks at a cache, once or again after repairs: what was found good is not hashed a second time.

    Args:
        layout: the cache.
        names: the images it is about; None for everything, blobs that no name needs among it.
        told: hears how far it came.

    Attributes:
        blobs, size: how many blobs, and bytes of them, were hashed.
    """

    def __init__(
        self, layout: ImageLayout, names: Sequence[str] | None = None, told: Callable[[Progress], None] | None = None
    ) -> None:
        self.blobs = 0
        self.size = 0
        self._layout = layout
        self._names = names
        self._told = told
        self._good: set[Digest] = set()

    async def flaws(self) -> list[Flaw]:
        """Hashes what is new, and returns all that is wrong: manifests before what they name.

        Cancelled, it has moved the bad blobs that it met to quarantine.

        Raises:
            StorageError: the cache's index is damaged, or a folder cannot be read.
        """
        entries = [each for each in await self._layout.entries() if self._names is None or name_of(each) in self._names]
        taken = await census(self._layout, entries)
        here = {each.digest: each.size async for each in self._layout.blobs()}
        wanted = [each for each in here if self._names is None or each in taken.needs]
        bad = await self._hash({each: here[each] for each in wanted if each not in self._good})
        missing = [each for each in taken.needs.values() if not each.optional and each.descriptor.digest not in here]
        return [
            *sorted((_flaw(taken, digest, kind, cause) for digest, (kind, cause) in bad.items()), key=_manifests_first),
            *(_flaw(taken, each.descriptor.digest, Kind.MISSING) for each in missing),
            *_invalid(taken, bad),
            *_empty(taken),
        ]

    async def _hash(self, sizes: dict[Digest, int]) -> dict[Digest, tuple[Kind, str]]:
        bad: dict[Digest, tuple[Kind, str]] = {}
        done, whole, hashed = 0, sum(sizes.values()), 0

        def count(size: int) -> None:
            nonlocal hashed
            hashed += size
            if self._told:
                self._told(Progress(done, len(sizes), hashed, whole))

        async def check(digest: Digest) -> None:
            nonlocal done
            with suppress(PathUnknown):  # pruned meanwhile
                try:
                    if await self._layout.check(digest, count):
                        self._good.add(digest)
                    else:
                        bad[digest] = Kind.DAMAGED, ""
                except PathUnknown:
                    raise
                except StorageError as error:
                    bad[digest] = Kind.UNREADABLE, error.message
            done += 1
            count(0)

        await side_by_side(check, list(sizes), min(_HASHED_AT_ONCE, os.cpu_count() or 1))
        self.blobs, self.size = self.blobs + len(sizes), self.size + hashed
        return bad


async def mend(
    session: Session,
    layout: ImageLayout,
    verification: Verification,
    flaws: Sequence[Flaw],
    told: Callable[[Flaw, LayerhouseError | None], None],
) -> list[Flaw]:
    """Fetches what is broken again, each blob through the names that need it; a mended manifest may show more of it.

    Args:
        session: reaches the registries.
        layout: the cache.
        verification: found the flaws, and looks again.
        flaws: what it found.
        told: hears how the mending of each flaw ended: with None if it is mended.

    Returns:
        What is wrong still.

    Raises:
        StorageError: the cache's index is damaged, or a folder cannot be read.
    """
    tried: set[Digest] = set()

    async def fix(flaw: Flaw) -> None:
        told(flaw, await _fetch(session, layout, flaw.wanted, flaw.names))

    for _ in range(_ROUNDS):
        todo = [each for each in flaws if each.mendable and each.wanted.digest not in tried]
        if not todo:
            break
        tried |= {each.wanted.digest for each in todo}
        await side_by_side(fix, todo, session.jobs)
        flaws = await verification.flaws()
    return [each for each in flaws if each.names or each.kind is not Kind.DAMAGED]


async def _fetch(
    session: Session, layout: ImageLayout, wanted: Descriptor, names: Sequence[str]
) -> LayerhouseError | None:
    downloads = Downloads(layout, session.slots, session.patience, silent)
    failed: LayerhouseError = CacheError(f"{wanted.digest}: no name of an image tells where it can be had")
    for reference in _references(names):
        remote = session.remote(reference)
        try:
            if wanted.media_type in MANIFESTS:
                _, manifest = await remote.manifest(wanted.digest)
                await layout.add(wanted.digest, manifest.raw)
            else:
                await downloads.fetch(remote, wanted)
        except LayerhouseError as error:
            failed = error
        else:
            return None
    return failed


def _references(names: Sequence[str]) -> list[Reference]:
    """Returns the names that tell a registry: a short one, as other tools write it, could mean any."""
    found = []
    for name in names:
        with suppress(NameInvalid, TagInvalid, DigestInvalid):
            reference = Reference.parse(name)
            if str(reference) == name:
                found.append(reference)
    return found


def _flaw(taken: Census, digest: Digest, kind: Kind, cause: str = "") -> Flaw:
    need = taken.needs.get(digest)
    # Of a blob that no name needs nothing is known but its digest.
    wanted = need.descriptor if need else Descriptor(OCTET_STREAM, digest, 0)
    return Flaw(kind, wanted, tuple(taken.names(digest)), cause)


def _manifests_first(flaw: Flaw) -> bool:
    return flaw.wanted.media_type not in MANIFESTS


def _invalid(taken: Census, bad: Collection[Digest]) -> list[Flaw]:
    """Manifests whose bytes are right, and that cannot be read all the same."""
    strange = {
        each.descriptor.digest: each.problem.message
        for _, each in taken.unread
        if each.problem and not isinstance(each.problem, PathUnknown) and each.descriptor.digest not in bad
    }
    return [_flaw(taken, digest, Kind.INVALID, cause) for digest, cause in strange.items()]


def _empty(taken: Census) -> list[Flaw]:
    """Indexes that were read, and of whose images none is here."""
    named = Counter(position for need in taken.needs.values() for position in need.entries)
    needed = Counter(position for need in taken.needs.values() if not need.optional for position in need.entries)
    torn = {position for position, _ in taken.unread}
    return [
        Flaw(Kind.EMPTY, entry, (name_of(entry),))
        for position, entry in enumerate(taken.entries)
        if named[position] > 1 and needed[position] == 1 and position not in torn
    ]
