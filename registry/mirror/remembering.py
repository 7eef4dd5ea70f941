"""What upstream said lately: that a tag stands for what is here, which tags there are, that there is nothing."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, TypeVar

from ocispec.errors import PathUnknown, StorageError
from ocispec.reference import RepositoryName, Tag
from storage import paths
from storage.engine import Engine

_TAGS = 100_000
# Beside a tag's link: Distribution passes it over.
_CONFIRMED = "confirmed"

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class _Entry(Generic[V]):
    value: V
    weight: int
    since: float


class Remembered(Generic[K, V]):
    """Values and how old they are; the oldest go where all together weigh more than `most`.

    Args:
        most: what all values may weigh.
        clock: seconds.
    """

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._clock = clock
        self._weight = 0
        self._entries: OrderedDict[K, _Entry[V]] = OrderedDict()

    def get(self, key: K, within: float = float("inf")) -> V | None:
        """Returns what was put there within so many seconds; None where nothing was."""
        found = self._entries.get(key)
        return found.value if found and self._clock() - found.since < within else None

    def put(self, key: K, value: V, weight: int = 1) -> None:
        self.drop(key)
        self._entries[key] = _Entry(value, weight, self._clock())
        self._weight += weight
        while self._weight > self._most:
            self.drop(next(iter(self._entries)))

    def drop(self, key: K) -> None:
        found = self._entries.pop(key, None)
        if found:
            self._weight -= found.weight


class Freshness:
    """When upstream last confirmed what tags stand for.

    Args:
        engine: where the tags lie; there it is noted too, since a restart must not make anything younger.
        fresh: how many seconds it is believed without asking.
        stale: for how many more it is where upstream cannot be asked; None: for ever.
    """

    def __init__(self, engine: Engine, fresh: float, stale: float | None) -> None:
        self._engine = engine
        self._fresh = fresh
        self._stale = stale
        self._confirmed: Remembered[tuple[RepositoryName, Tag], bool] = Remembered(_TAGS)

    def is_fresh(self, name: RepositoryName, tag: Tag) -> bool:
        """Whether it need not be asked for."""
        return bool(self._fresh) and self._confirmed.get((name, tag), self._fresh) is not None

    async def confirmed(self, name: RepositoryName, tag: Tag) -> None:
        """Notes that it was confirmed now."""
        if self._fresh:
            self._confirmed.put((name, tag), True)
        if self._stale:
            # Where it cannot be written, it counts as old sooner.
            with suppress(StorageError):
                await self._engine.write(_note(name, tag), b"", durable=False)

    async def is_usable(self, name: RepositoryName, tag: Tag) -> bool:
        """Whether what is here may be served although it cannot be asked for."""
        if not self._stale:
            return self._stale is None
        for path in (_note(name, tag), paths.tag_current_link(name, tag)):
            with suppress(PathUnknown):
                return time.time() - (await self._engine.stat(path)).modified < self._stale
        return False


def _note(name: RepositoryName, tag: Tag) -> str:
    return f"{paths.tag_current_link(name, tag).rpartition('/')[0]}/{_CONFIRMED}"
