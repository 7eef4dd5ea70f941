"""What a mirror fetched and when it was last used, and what keeps its space within bounds.

What is fetched is entered at once, uses are gathered in memory and written every few seconds: a crash loses the order
of these alone. One process of all removes what there is too much of, and what nobody has used for too long.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from functools import partial
from itertools import count
from pathlib import Path

from ocispec.digest import Digest
from ocispec.errors import RegistryError, StorageError
from ocispec.reference import RepositoryName
from registry.leadership import lead
from registry.mirror import marks, removing
from registry.mirror.completing import complete
from registry.mirror.eviction import Evictor
from registry.mirror.expiry import expire
from registry.mirror.families import families
from registry.mirror.index import Index, Link
from registry.mirror.marks import Kind
from registry.mirror.pins import Pins
from registry.mirror.removing import Remover
from registry.mirror.space import Share, Space
from registry.observing.metrics import Family
from registry.sqlitefiles import SharedFile
from storage.engine import Engine

_log = logging.getLogger("registry")
INDEX = "mirror-usage/index.sqlite"
_FLUSH_SECONDS = 2.0
_LOOK_SECONDS = 1.0
# How often what expired is looked for, in seconds: ten times in its life, and once an hour at most.
_SHARE, _SELDOM, _OFTEN = 10, 3600.0, 1.0
_RETRY_SECONDS = 60.0
# Uses between two writings; of more, some are not noted.
_MOST_USES = 100_000


class Usage:
    """What the repositories of a mirror tell of what they fetch and serve, and what is done about it.

    Args:
        engine: where it lies.
        space: who may have how much, and how long.
        scratch: where downloads are on their way.
        state: where the index is kept.
        clock: seconds since the epoch.
    """

    def __init__(
        self, engine: Engine, space: Space, *, scratch: Path, state: Path, clock: Callable[[], float] = time.time
    ) -> None:
        self.space = space
        self.engine = engine
        self.index = SharedFile(
            state / INDEX, Index, "a new one is made from the tree, but pins that were set by command are lost"
        )
        self.remover = Remover(engine, self.index, self.pins, partial(asyncio.sleep, removing.GRACE))
        self.evictor = Evictor(space, self.index, self.remover, scratch=scratch, clock=clock)
        self._folder, self._clock = self.index.path.parent, clock
        self._uses: dict[Digest, float] = {}
        self._arriving: dict[int, tuple[RepositoryName, int]] = {}
        self._numbers = count()
        self._wanted = asyncio.Event()
        self._looked: tuple[int, int] | None = None
        self._due: dict[str, float] = {}

    @asynccontextmanager
    async def fetched(self, name: RepositoryName, digest: Digest, size: int, kind: Kind) -> AsyncIterator[None]:
        """Around the making of a repository's link to what was fetched; what was pushed before stays pushed.

        Args:
            name: the repository, by its name here.
            digest: of what the link names.
            size: in bytes.
            kind: which link.

        Raises:
            StorageError: it could not be marked; then it counts as pushed, and stays for ever.
        """
        pushed = await marks.is_pushed(self.engine, name, digest, kind)
        yield
        if pushed:
            return
        await marks.mark(self.engine, name, digest, kind)
        try:
            await self.index.do(Index.link, [(Link(name, kind, digest), size, self._clock())])
        except StorageError as error:
            _log.error("%s of %s is not in the mirror's index until it is completed: %s", digest, name, error.message)

    def used(self, _name: RepositoryName, digest: Digest) -> None:
        """Notes that it is used now; costs a microsecond, and is written some seconds later."""
        if len(self._uses) < _MOST_USES:
            self._uses[digest] = self._clock()

    @asynccontextmanager
    async def room(self, name: RepositoryName, size: int) -> AsyncIterator[None]:
        """Around a fetch of `size` bytes into a repository: what is on its way counts, and others make place for it.

        Nobody waits here: a mirror that is over its cap for some seconds does less harm than one that lets clients
        wait, and may not be able to make place at all.
        """
        number = next(self._numbers)
        self._arriving[number] = name, size
        self._wanted.set()
        try:
            yield
        finally:
            del self._arriving[number]

    async def pins(self) -> Pins:
        """All that is pinned now; raises StorageError."""
        return Pins([*self.space.pins, *await self.index.do(Index.pins)])

    async def families(self) -> Iterable[Family]:
        """How much is kept, may be kept, and was removed: the same in every process."""
        return await families(self.space, self.index)

    async def run(self) -> None:
        """Writes what was noted, and in one process of all evicts and expires, until it is cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._write())
                tasks.create_task(self._led())
        finally:
            await self.flush()
            await self.index.close()

    async def flush(self) -> None:
        """Writes when what was used; what cannot be written is lost, and with it the order of these uses alone."""
        uses, self._uses = self._uses, {}
        if uses:
            with suppress(StorageError):
                await self.index.do(Index.use, {str(digest): when for digest, when in uses.items()})

    async def alone(self, work: Callable[[], Awaitable[None]]) -> None:
        """Does what removes things: one at a time, of all processes. Raises what it raises, and StorageError."""
        await lead(self._folder / "removing.lock", work)

    async def completed(self, *, again: bool = False) -> None:
        """Makes sure that the index has what the tree has, and finishes what a crash cut short; raises StorageError.

        Args:
            again: also where it was completed before.
        """
        if again or not await self.index.do(Index.is_complete):
            await complete(self.engine, self.index, self._clock())
            await self.alone(self.remover.recover)

    async def _write(self) -> None:
        while True:
            await asyncio.sleep(_FLUSH_SECONDS)
            await self.flush()

    async def _led(self) -> None:
        await self._trying(partial(lead, self._folder / "leading.lock", self._lead))

    async def _lead(self) -> None:
        await self.completed(again=True)
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_SECONDS):
                    await self._wanted.wait()
            self._wanted.clear()
            await self.completed()
            await self._keep_caps()
            for share in self.space.shares:
                await self._expire(share)
            await asyncio.sleep(0)

    async def _trying(self, work: Callable[[], Awaitable[None]]) -> None:
        """Does work for ever; where storage fails it is told, and tried again later."""
        while True:
            try:
                await work()
            except StorageError as error:
                _log.error("the mirror's space cannot be looked after: %s", error.message)
            await asyncio.sleep(_RETRY_SECONDS)

    async def _keep_caps(self) -> None:
        if self.space.cap is None and all(share.cap is None for share in self.space.shares):
            return
        state = await self.index.do(Index.state)
        if state == self._looked and not self._arriving:
            return
        await self.flush()
        await self.alone(partial(self.evictor.keep_caps, self._reserved))
        self._looked = await self.index.do(Index.state)

    async def _expire(self, share: Share) -> None:
        now = self._clock()
        if not share.ttl or now < self._due.get(share.upstream, 0.0):
            return
        self._due[share.upstream] = now + max(_OFTEN, min(share.ttl / _SHARE, _SELDOM))
        await self.flush()
        try:
            await self.alone(partial(self._expired, share, now))
        except RegistryError as error:
            _log.warning("nothing of %s expires: %s", share.upstream, error.message)

    async def _expired(self, share: Share, now: float) -> None:
        await expire(share, now - share.ttl, self.index, self.remover)

    def _reserved(self, share: Share) -> int:
        return sum(size for name, size in self._arriving.values() if share.has(name))
