"""Removing what was fetched: its links first, its bytes where nobody links them any more.

A push beside it must lose nothing. What is pushed is put in its place first and linked then, and a mount links what is
in its place, so that a moment lies between:

1. Contents that a push, or a manifest that was pushed, or a pin needs are left alone, with all their links.
2. Links of the others go. From then on nobody mounts from there.
3. After a pause, in which who mounted or pushed before has linked it, the links of all repositories are read again.
4. Bytes that nobody links are moved aside, and looked at: if others were put in their place meanwhile, these go back.

A crash leaves links without bytes, which a mirror fetches anew; bytes without links, and bytes that lie aside: the
next one finds both (`recover`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from itertools import groupby

from ocispec.digest import Digest
from ocispec.errors import PathUnknown
from ocispec.reference import RepositoryName
from registry.mirror import marks, tree
from registry.mirror.index import Content, Index, Link
from registry.mirror.marks import Kind
from registry.mirror.pins import Pins
from registry.sqlitefiles import SharedFile
from storage import paths
from storage.collecting.folders import REFERRERS
from storage.collecting.folders import digest as parsed
from storage.engine import Engine, Stat
from storage.threads import paced

ASIDE = ".layerhouse/mirror-removed"
GRACE = 5.0


def everywhere(_name: RepositoryName) -> bool:
    return True


class Remover:
    """Removes what was fetched; one at a time, of all processes.

    Args:
        engine: where it lies.
        index: of what was fetched.
        pins: gives what is pinned now.
        pause: waits until who has begun to push or mount something has linked it.
    """

    def __init__(
        self,
        engine: Engine,
        index: SharedFile[Index],
        pins: Callable[[], Awaitable[Pins]],
        pause: Callable[[], Awaitable[None]],
    ) -> None:
        self._engine = engine
        self._index = index
        self._pins = pins
        self._pause = pause

    async def remove(
        self, contents: Sequence[Content], within: Callable[[RepositoryName], bool] = everywhere
    ) -> list[Content]:
        """Removes contents from some repositories, and their bytes where no other one has them.

        Returns:
            Those that went; the others are needed.

        Raises:
            StorageError: something cannot be read or removed; what has gone is gone, and the rest is as it was.
        """
        wanted = [each.digest for each in contents]
        links = await tree.linked(self._engine, wanted)
        needed = await self._needed(links)
        going = [each for each in contents if each.digest not in needed]
        stamps = {each.digest: await self._stamp(each.digest) for each in going}
        await self._unlink([each for each in links if each.digest in stamps and within(each.name)])
        entered = await self._index.do(Index.links, stamps)
        await self._index.do(Index.unlink, [each for each in entered if within(each.name)])
        await self._free(stamps)
        return going

    async def recover(self) -> None:
        """Finishes what a crash cut short; raises StorageError."""
        aside = await self._engine.children(ASIDE)
        found = [each for name in aside if (each := parsed(*name.partition("-")[::2]))]
        linked = {link.digest for link in await tree.linked(self._engine, found)} if found else set()
        for digest in found:
            if digest in linked:
                await self._put_back(digest)
            else:
                await self._engine.delete(_aside(digest), durable=False)
        loose = await self._index.do(Index.loose)
        if loose:
            await self._free({each: await self._stamp(each) for each in loose})

    async def _needed(self, links: Iterable[Link]) -> set[Digest]:
        """What is pushed, or pinned, or needed by what is, of what these link."""
        needed, concerned = set(), set()
        for link in links:
            if await marks.fetched(self._engine, link.name, link.digest, link.kind) is None:
                needed.add(link.digest)
            else:
                concerned.add(link.name)
        pins = await self._pins()
        for name in concerned:
            needed |= await tree.pushed(self._engine, name)
            if pins.of(name):
                needed |= await tree.needed(self._engine, name, await pins.roots(self._engine, name))
        return needed

    async def _unlink(self, links: Iterable[Link]) -> None:
        for name, some in groupby(sorted(links), key=lambda link: link.name):
            await self._unlink_of(name, list(some))
            await prune(self._engine, name)

    async def _unlink_of(self, name: RepositoryName, links: Collection[Link]) -> None:
        gone = {each.digest for each in links if each.kind is Kind.MANIFEST}
        async for tag, digest in tree.tags(self._engine, name):
            if digest in gone:
                await self._engine.delete(f"{paths.tags(name)}/{tag}", durable=False)
        async for each in paced(links):
            # Whoever pushes it just now makes it his own.
            if await marks.fetched(self._engine, name, each.digest, each.kind) is not None:
                await self._engine.delete(marks.folder(name, each.digest, each.kind), durable=False)

    async def _free(self, stamps: dict[Digest, Stat | None]) -> None:
        if not stamps:
            return
        await self._pause()
        linked = {link.digest for link in await tree.linked(self._engine, stamps)}
        for digest, stamp in stamps.items():
            if digest not in linked and stamp is not None:
                await self._remove_bytes(digest, stamp)
        await self._index.do(Index.forget, list(stamps))

    async def _remove_bytes(self, digest: Digest, stamp: Stat) -> None:
        aside, data = _aside(digest), paths.blob_data(digest)
        try:
            await self._engine.move(data, aside)
        except PathUnknown:
            return
        if await self._engine.stat(aside) != stamp:
            await self._put_back(digest)
            return
        await self._engine.delete(aside, durable=False)
        await self._engine.prune(data.rpartition("/")[0])

    async def _put_back(self, digest: Digest) -> None:
        if await self._stamp(digest) is None:
            await self._engine.move(_aside(digest), paths.blob_data(digest))
        else:
            await self._engine.delete(_aside(digest), durable=False)

    async def _stamp(self, digest: Digest) -> Stat | None:
        try:
            return await self._engine.stat(paths.blob_data(digest))
        except PathUnknown:
            return None


async def prune(engine: Engine, name: RepositoryName) -> None:
    """Forgets a repository in which nothing is left, so that nobody lists it."""
    manifests, layers = paths.manifests(name), f"{paths.repository(name)}/{paths.LAYERS}"
    if await engine.children(paths.tags(name), limit=1):
        return
    for folder in (f"{manifests}/revisions", layers):
        for algorithm in await engine.children(folder):
            await engine.prune(f"{folder}/{algorithm}")
        await engine.prune(folder)
    if not await engine.children(f"{manifests}/revisions", limit=1):
        await engine.delete(f"{paths.repository(name)}/{REFERRERS}", durable=False)
    parts = str(name).split("/")
    above = [f"{paths.REPOSITORIES}/{'/'.join(parts[:length])}" for length in range(len(parts), 0, -1)]
    for folder in (paths.tags(name), manifests, *above):
        await engine.prune(folder)


def _aside(digest: Digest) -> str:
    return f"{ASIDE}/{digest.algorithm}-{digest.hex}"
