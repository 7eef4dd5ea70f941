"""Removing what a plan names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from ocispec.digest import Digest
from ocispec.errors import NameUnknown
from ocispec.reference import RepositoryName
from storage import paths, removal
from storage.collecting import folders
from storage.collecting.planning import Blob, Plan
from storage.collecting.repositories import RepositoryMarks
from storage.engine import Engine


async def sweep(engine: Engine, plan: Plan) -> None:
    """Removes what the plan names: what names content first, content after.

    Nothing here waits for the disk: what power loss brings back is in use no more than before, so the next run removes
    it. A link that came back without its blob counts as none meanwhile.

    Raises:
        StorageError: something could not be removed. What was is, and the next run finishes.
    """
    await folders.side_by_side(plan.repositories, lambda each: _sweep_repository(engine, each))
    await folders.side_by_side(plan.blobs, lambda each: _sweep_blob(engine, each))


async def _sweep_repository(engine: Engine, marks: RepositoryMarks) -> None:
    name = marks.name

    async def forget(path: str) -> None:
        await engine.delete(path, durable=False)

    # Who goes stands in histories and in the referrers' index: once it is gone, nothing leads there any more.
    histories = [_history(name, tag, digest) for digest, tags in marks.dead.items() for tag in tags]
    entries = [paths.referrer(name, *each).rpartition("/")[0] for each in marks.referrers]
    await folders.side_by_side([*histories, *entries], forget)
    await folders.side_by_side([paths.revision(name, each) for each in marks.dead], forget)
    await folders.side_by_side([paths.layer(name, each) for each in marks.links], forget)
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


async def _sweep_blob(engine: Engine, blob: Blob) -> None:
    await engine.delete(paths.blob_data(blob.digest).rpartition("/")[0], durable=False)


def _history(name: RepositoryName, tag: str, digest: Digest) -> str:
    return f"{paths.tags(name)}/{tag}/index/{digest.algorithm}/{digest.hex}"
