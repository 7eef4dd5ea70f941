"""Removing what a plan names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress

from ocispec.digest import Digest
from ocispec.errors import NameUnknown
from ocispec.reference import RepositoryName
from storage import paths, removal
from storage.collecting import folders
from storage.collecting.planning import Plan
from storage.collecting.repositories import RepositoryMarks
from storage.engine import Engine

# How many objects one call removes: what an object store takes at once, and some milliseconds of a thread.
_BATCH = 1000


async def sweep(engine: Engine, plan: Plan) -> None:
    """Removes what the plan names: what names content first, content after.

    Nothing here waits for the disk: what power loss brings back is in use no more than before, so the next run removes
    it. A link that came back without its blob counts as none meanwhile.

    Raises:
        StorageError: something could not be removed. What was is, and the next run finishes.
    """
    await folders.side_by_side(plan.repositories, lambda each: _sweep_repository(engine, each))
    await _discard(engine, [paths.blob_data(each.digest) for each in plan.blobs])


async def _sweep_repository(engine: Engine, marks: RepositoryMarks) -> None:
    name = marks.name
    # Who goes stands in histories and in the referrers' index: once it is gone, nothing leads there any more.
    histories = [_history(name, tag, digest) for digest, tags in marks.dead.items() for tag in tags]
    entries = [paths.referrer(name, *each) for each in marks.referrers]
    await _discard(engine, [*histories, *entries])
    await _discard(engine, [paths.revision_link(name, each) for each in marks.dead])
    await _discard(engine, [paths.layer_link(name, each) for each in marks.links])
    await folders.side_by_side([*marks.hollow, *_index(marks)], engine.prune)
    if marks.vanishes:
        with suppress(NameUnknown):
            await removal.remove(engine, name)


def _index(marks: RepositoryMarks) -> Iterator[str]:
    """Folders of the referrers' index that may have become empty, the inner ones first."""
    for subject, digest in marks.referrers:
        folder = paths.referrers(marks.name, subject)
        yield f"{folder}/{digest.algorithm}"
        yield folder


async def _discard(engine: Engine, removed: Sequence[str]) -> None:
    batches = [removed[start : start + _BATCH] for start in range(0, len(removed), _BATCH)]
    await folders.side_by_side(batches, engine.discard)


def _history(name: RepositoryName, tag: str, digest: Digest) -> str:
    return f"{paths.tags(name)}/{tag}/index/{digest.algorithm}/{digest.hex}/link"
