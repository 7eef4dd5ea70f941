"""What the names of a cache need: their manifests, configs and layers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, field

from ocispec.descriptor import REF_NAME, Descriptor
from ocispec.digest import Digest
from ocispec.errors import LayerhouseError, ManifestInvalid, PathUnknown, StorageError
from ocispec.manifest import Manifest
from ocispec.mediatypes import MANIFESTS, is_foreign
from storage.layout import ImageLayout

# What no name of an image begins with.
NO_NAME = "(no name)"


@dataclass(frozen=True, slots=True)
class Reached:
    """Something that an entry of the index leads to through manifests.

    Attributes:
        descriptor: names it.
        manifest: its content; None for content of another kind, and where it cannot be read.
        problem: why it cannot be read: PathUnknown where it is not there.
    """

    descriptor: Descriptor
    manifest: Manifest | None = None
    problem: LayerhouseError | None = None


@dataclass(slots=True)
class Need:
    """One blob that entries need.

    Attributes:
        descriptor: names it.
        entries: which need it, as positions in `Census.entries`.
        optional: whether they are whole without it: a foreign layer, or an image of an index that was not pulled.
    """

    descriptor: Descriptor
    optional: bool
    entries: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Census:
    """What entries of the index need.

    Attributes:
        entries: those that were asked about.
        needs: by digest.
        unread: the manifests that cannot be read, so that what they need is not known, each with its entry's position.
    """

    entries: tuple[Descriptor, ...]
    needs: Mapping[Digest, Need]
    unread: tuple[tuple[int, Reached], ...]

    def names(self, digest: Digest) -> list[str]:
        """Returns who needs a blob."""
        need = self.needs.get(digest)
        return [name_of(self.entries[each]) for each in need.entries] if need else []


def name_of(entry: Descriptor) -> str:
    """Returns an entry's name; other tools leave some without."""
    return entry.annotations.get(REF_NAME) or f"{NO_NAME} {entry.digest}"


async def reached(layout: ImageLayout, entry: Descriptor) -> AsyncIterator[Reached]:
    """Yields the entry and every manifest below it, each digest once, in the order of the indexes."""
    waiting, seen = [entry], set()
    while waiting:
        each = waiting.pop()
        if each.digest in seen:
            continue
        seen.add(each.digest)
        found = await _reached(layout, each)
        yield found
        if found.manifest:
            waiting += reversed(found.manifest.manifests)


async def census(layout: ImageLayout, entries: Iterable[Descriptor]) -> Census:
    """Finds out what entries need; whatever is damaged or missing is told in the result and not raised."""
    asked, needs, unread = tuple(entries), dict[Digest, Need](), list[tuple[int, Reached]]()
    for position, entry in enumerate(asked):
        async for each in reached(layout, entry):
            left_out = await _left_out(layout, entry, each)
            _note(needs, each.descriptor, position, optional=left_out)
            if each.problem and not left_out:
                unread.append((position, each))
            for blob in each.manifest.blobs if each.manifest else ():
                _note(needs, blob, position, optional=is_foreign(blob.media_type) and bool(blob.urls))
    return Census(asked, needs, tuple(unread))


def _note(needs: dict[Digest, Need], wanted: Descriptor, position: int, *, optional: bool) -> None:
    need = needs.setdefault(wanted.digest, Need(wanted, optional))
    need.optional = need.optional and optional
    if position not in need.entries[-1:]:
        need.entries.append(position)


async def _left_out(layout: ImageLayout, entry: Descriptor, found: Reached) -> bool:
    """Whether this is an image of an index that nobody pulled; one that was found to be bad is none of these."""
    absent = isinstance(found.problem, PathUnknown) and found.descriptor.digest != entry.digest
    return absent and not await layout.in_quarantine(found.descriptor.digest)


async def _reached(layout: ImageLayout, wanted: Descriptor) -> Reached:
    if wanted.media_type not in MANIFESTS:
        return Reached(wanted)
    try:
        return Reached(wanted, Manifest.parse(await layout.read(wanted.digest), wanted.media_type))
    except (StorageError, ManifestInvalid) as error:
        return Reached(wanted, problem=error)
