"""The plan of a collection: everything that goes, by name, before anything goes."""

from __future__ import annotations

from dataclasses import dataclass

from ocispec.digest import HEX_LENGTHS, Digest
from ocispec.errors import PathUnknown
from storage import paths
from storage.collecting import folders
from storage.collecting.marking import Marked
from storage.collecting.repositories import RepositoryMarks, Unreadable
from storage.collecting.rules import Rules
from storage.engine import Engine


@dataclass(frozen=True, slots=True, order=True)
class Blob:
    """Content that goes, and its length in bytes."""

    digest: Digest
    size: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What goes.

    Attributes:
        marked: how many blobs are in use, manifests among them.
        young: how many blobs are not in use, and too young to go.
        young_manifests: how many manifests are kept for nothing but being young.
        repositories: where something goes, in order of names.
        blobs: content, in order of digests.
        unreadable: manifests that nobody can read.
    """

    marked: int
    young: int
    young_manifests: int
    repositories: tuple[RepositoryMarks, ...]
    blobs: tuple[Blob, ...]
    unreadable: tuple[Unreadable, ...]

    @property
    def manifests(self) -> int:
        return sum(len(each.dead) for each in self.repositories)

    @property
    def size(self) -> int:
        """Bytes that become free."""
        return sum(each.size for each in self.blobs)


async def plan_removals(engine: Engine, rules: Rules, marked: Marked) -> Plan:
    """Lists all content, and takes what is neither marked nor young; changes nothing. Raises StorageError."""
    found: list[Blob] = []
    young = 0

    async def judge(digest: Digest) -> None:
        nonlocal young
        try:
            stat = await engine.stat(paths.blob_data(digest))
        except PathUnknown:
            return
        if stat.modified < rules.before:
            found.append(Blob(digest, stat.size))
        else:
            young += 1

    async def look_into(folder: tuple[str, str]) -> None:
        algorithm, prefix = folder
        for name in await engine.children(f"{paths.BLOBS}/{algorithm}/{prefix}"):
            digest = folders.digest(algorithm, name)
            if digest and prefix == name[:2] and digest not in marked.blobs:
                await judge(digest)

    places = [(each, prefix) for each in HEX_LENGTHS for prefix in await engine.children(f"{paths.BLOBS}/{each}")]
    await folders.side_by_side(places, look_into)
    repositories, unreadable = tuple(marked.repositories), tuple(marked.unreadable)
    return Plan(len(marked.blobs), young, marked.young, repositories, tuple(sorted(found)), unreadable)
