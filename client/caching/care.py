"""Keeping the cache small: what it takes, names taken away, and blobs that no name needs.

A pull stores blobs first and their name last. So what no name needs may be about to get one: `prune` removes blobs only
while no pull, push, save or load of any process is at work (`ImageLayout.alone`), and, unless it is told to remove all,
only what came more than `GRACE` ago. That leaves alone what other programs, which take no locks, are about to name, and
the layers of a pull that failed and will be tried again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Container, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from client.caching.census import NO_NAME, Census, census, name_of
from ocispec.errors import CacheError, PathUnknown, StorageFull
from storage.blobfolder import Stored
from storage.layout import ImageLayout
from storage.leftovers import Kind, Leftover, held, leftovers, remove
from storage.locks import quietly
from storage.threads import finish

GRACE = 24 * 3600.0
PARTIALS_FOR = 7 * 24 * 3600.0
# Whoever writes into such a file for so long without a pause is no more.
SCRATCH_FOR = 24 * 3600.0
_DELETED_AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class Heap:
    """How many things, and their bytes on disk."""

    count: int = 0
    size: int = 0

    @classmethod
    def of(cls, things: Collection[Stored | Leftover]) -> Heap:
        return cls(len(things), sum(each.size for each in things))

    def to_json(self) -> dict[str, int]:
        return {"count": self.count, "size": self.size}


@dataclass(frozen=True, slots=True)
class ImageUsage:
    """Bytes on disk that a name needs.

    Attributes:
        name: the name.
        own: what nothing else needs: what is freed without it.
        shared: what other names need as well.
    """

    name: str
    own: int
    shared: int

    @property
    def total(self) -> int:
        return self.own + self.shared


@dataclass(frozen=True, slots=True)
class Usage:
    """Bytes on disk.

    Attributes:
        images: by name.
        shared: of blobs that several names need, each once.
        unreferenced: blobs that no name needs.
        partial: downloads that were not finished.
        quarantined: blobs whose bytes were wrong.
        scratch: files on their way in, and what crashes left of such.
    """

    images: tuple[ImageUsage, ...]
    shared: int
    unreferenced: Heap
    partial: Heap
    quarantined: Heap
    scratch: Heap

    @property
    def heaps(self) -> dict[str, Heap]:
        """What belongs to no image, by what it is called."""
        names = ("unreferenced", "partial", "quarantined", "scratch")
        return {each: getattr(self, each) for each in names}

    @property
    def total(self) -> int:
        own = sum(each.own for each in self.images)
        return own + self.shared + sum(each.size for each in self.heaps.values())

    def to_json(self) -> dict[str, Any]:
        images = [
            {"name": each.name, "own": each.own, "shared": each.shared, "total": each.total} for each in self.images
        ]
        heaps = {name: each.to_json() for name, each in self.heaps.items()}
        return {"images": images, "shared": self.shared, **heaps, "total": self.total}


@dataclass(frozen=True, slots=True)
class Pruned:
    """What was removed, or would be.

    Attributes:
        blobs, partial, quarantined, scratch: what went.
        young: unreferenced blobs that stay because they came not long ago.
    """

    blobs: Heap = Heap()
    partial: Heap = Heap()
    quarantined: Heap = Heap()
    scratch: Heap = Heap()
    young: Heap = Heap()

    @property
    def heaps(self) -> dict[str, Heap]:
        """What went, by what it is called."""
        return {each: getattr(self, each) for each in ("blobs", "partial", "quarantined", "scratch")}

    @property
    def size(self) -> int:
        """Bytes freed."""
        return sum(each.size for each in self.heaps.values())

    def to_json(self) -> dict[str, Any]:
        heaps = {name: each.to_json() for name, each in {**self.heaps, "young": self.young}.items()}
        return {**heaps, "freed": self.size}


async def usage(layout: ImageLayout) -> Usage:
    """Measures the cache; raises StorageError where it cannot be read."""
    taken = await census(layout, sorted(await layout.entries(), key=name_of))
    own, shared = [0] * len(taken.entries), [0] * len(taken.entries)
    in_common, lone = 0, list[Stored]()
    async for blob in layout.blobs():
        owners = taken.needs[blob.digest].entries if blob.digest in taken.needs else []
        if not owners:
            lone.append(blob)
        elif len(owners) == 1:
            own[owners[0]] += blob.size
        else:
            in_common += blob.size
            for each in owners:
                shared[each] += blob.size
    images = tuple(ImageUsage(name_of(each), own[n], shared[n]) for n, each in enumerate(taken.entries))
    left = _by_kind(await finish(leftovers, layout.root))
    return Usage(images, in_common, Heap.of(lone), **{kind.value: Heap.of(left[kind]) for kind in Kind})


async def forget(layout: ImageLayout, names: Collection[str]) -> list[Stored]:
    """Takes names away; their blobs stay.

    Returns:
        The blobs that no name needs now, and that one of these did.

    Raises:
        CacheError: there is no such name; none is then taken away.
        StorageError: the cache's index cannot be read or written.
    """
    before = await census(layout, await layout.entries())
    try:
        await layout.remove_names(names)
    except PathUnknown as error:
        raise CacheError(error.message) from error
    except StorageFull as error:
        raise StorageFull(f"{error.message}; `rm --prune` frees some first") from error
    after = await census(layout, await layout.entries())
    return [each async for each in layout.blobs() if each.digest in before.needs and each.digest not in after.needs]


async def discard(layout: ImageLayout, names: Collection[str], waiting: Callable[[], None] = quietly) -> Heap:
    """Takes names away, and the blobs that no other name needs with them, of any age.

    Cancelled, the names are gone and some of the blobs. On a full disk no new index can be written before blobs made
    room for it: they go first there, and between the two the names are not whole.

    Returns:
        What was removed.

    Raises:
        CacheError: there is no such name, or it is not known what another one needs; nothing is then removed.
        StorageError: others used the cache for too long, or something cannot be read or removed.
    """
    async with layout.alone(waiting):
        taken = await census(layout, await layout.entries())
        going = {position for position, each in enumerate(taken.entries) if name_of(each) in names}
        _refuse_torn(taken, going)
        doomed = {digest for digest, need in taken.needs.items() if going.issuperset(need.entries)}
        lone = [each async for each in layout.blobs() if each.digest in doomed]
        try:
            await layout.remove_names(names)
        except PathUnknown as error:
            raise CacheError(error.message) from error
        except StorageFull:
            gone = await _delete(layout, lone)
            await layout.remove_names(names)
            return gone
        return await _delete(layout, lone)


async def prune(
    layout: ImageLayout,
    *,
    older: float = PARTIALS_FOR,
    grace: float = GRACE,
    dry_run: bool = False,
    waiting: Callable[[], None] = quietly,
) -> Pruned:
    """Removes blobs that no name needs, old partial downloads, quarantined blobs, and what crashes left.

    Cancelled, it has removed some of them. A partial download that goes on right now stays, whatever its age.

    Args:
        layout: the cache.
        older: the age at which partial downloads go, in seconds.
        grace: the age at which blobs go that no name needs, in seconds.
        dry_run: tell what would go, and remove nothing.
        waiting: is told, once, that it waits for others who use the cache.

    Raises:
        CacheError: an image is damaged, so that it is not known what it needs; nothing is then removed.
        StorageError: others used the cache for too long, or something cannot be read or removed.
    """
    if not await finish(layout.root.is_dir):
        return Pruned()
    if dry_run:
        old, young = _by_age(await _unreferenced(layout), grace)
        blobs = Heap.of(old)
    else:
        async with layout.alone(waiting):
            old, young = _by_age(await _unreferenced(layout), grace)
            blobs = await _delete(layout, old)
    # Quarantine tells the count above which images are damaged, so it goes last.
    left = await _remove_leftovers(layout, older, dry_run=dry_run)
    return Pruned(blobs=blobs, young=Heap.of(young), **left)


async def _unreferenced(layout: ImageLayout) -> list[Stored]:
    taken = await census(layout, await layout.entries())
    _refuse_torn(taken)
    return [each async for each in layout.blobs() if each.digest not in taken.needs]


def _refuse_torn(taken: Census, going: Container[int] = ()) -> None:
    """Raises CacheError where a manifest cannot be read, unless what needs it is going.

    Entries without a name are left to the tools that wrote them.
    """
    torn = [name_of(taken.entries[position]) for position, _ in taken.unread if position not in going]
    if named := [each for each in torn if not each.startswith(NO_NAME)]:
        raise CacheError(
            f"{named[0]} is damaged, so what it needs is not known and no blob was removed: "
            "mend it with `verify --repair`, or give it up with `rm`"
        )


def _by_age(blobs: Iterable[Stored], grace: float) -> tuple[list[Stored], list[Stored]]:
    oldest = time.time() - grace
    old, young = list[Stored](), list[Stored]()
    for each in blobs:
        (old if grace <= 0 or each.modified < oldest else young).append(each)
    return old, young


async def _delete(layout: ImageLayout, blobs: Sequence[Stored]) -> Heap:
    freed = 0
    for start in range(0, len(blobs), _DELETED_AT_ONCE):
        freed += await layout.delete([each.digest for each in blobs[start : start + _DELETED_AT_ONCE]])
    return Heap(len(blobs), freed)


async def _remove_leftovers(layout: ImageLayout, older: float, *, dry_run: bool) -> dict[str, Heap]:
    ages = {Kind.PARTIAL: older, Kind.QUARANTINED: 0.0, Kind.SCRATCH: SCRATCH_FOR}
    found = await finish(leftovers, layout.root)
    old = [each for each in found if _is_old(each, ages[each.kind])]
    gone = _by_kind([each for each in old if await _gone(each, dry_run=dry_run)])
    return {kind.value: Heap.of(each) for kind, each in gone.items()}


def _is_old(leftover: Leftover, age: float) -> bool:
    return age <= 0 or leftover.modified < time.time() - age


async def _gone(leftover: Leftover, *, dry_run: bool) -> bool:
    return not await finish(held, leftover) if dry_run else await finish(remove, leftover)


def _by_kind(found: Iterable[Leftover]) -> dict[Kind, list[Leftover]]:
    kinds: dict[Kind, list[Leftover]] = {kind: [] for kind in Kind}
    for each in found:
        kinds[each.kind].append(each)
    return kinds
