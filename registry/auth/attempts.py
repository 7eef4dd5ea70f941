"""Failed logins cost whoever tries them time, and nobody else.

Guesses are told apart by who tries whom: an address (of IPv6: a /64) and a user. After five that failed, the answer to
the next is held back for a second, then for two, up to eight; guesses of one pair are looked at one after the other, so
trying many at once gains nothing. After ten, each costs five minutes in which that address is answered 429 for that
user, while his right password still counts from any other address: nobody locks somebody else out. One success clears
the pair.

Who tries many users from one address is held back, and after a hundred failures answered 429, except for users who have
logged in from there lately. Who tries one user from many addresses is held back.

Each process that serves counts for itself (`layerhouse.workers`), in memory that is bounded; who is forgotten is who
has not come for longest.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from hashlib import blake2b
from math import ceil, inf
from typing import Generic, TypeVar
from weakref import WeakValueDictionary

from ocispec.errors import TooManyRequests
from registry.serving.limits import network

T = TypeVar("T")
K = TypeVar("K", bound=str | bytes)

MOST_DELAY = 8.0
"""Seconds that the answer to a guess is held back at most."""
_REMEMBERED = 8192
_MOST_WAITING = 256
_TRUSTED_SECONDS = 86_400.0


class Tally(Generic[K]):
    """Failures by key: they pass with time, and those of the keys that came last are kept.

    Args:
        free: how many cost nothing.
        most: from how many on there may be no further one, until one has passed.
        seconds: how long one takes to pass.
        clock: tells the time in seconds.
    """

    def __init__(self, free: int, most: float, seconds: float, clock: Callable[[], float]) -> None:
        self._free = free
        self._most = most
        self._seconds = seconds
        self._clock = clock
        self._counted: dict[K, tuple[float, float]] = {}

    def count(self, key: K) -> float:
        """How many there are: a part of one is left while it passes."""
        if key not in self._counted:
            return 0.0
        count, at = self._counted[key]
        return max(0.0, count - (self._clock() - at) / self._seconds)

    def add(self, key: K) -> None:
        count = self.count(key) + 1
        self._counted.pop(key, None)
        self._counted[key] = (count, self._clock())
        if len(self._counted) > _REMEMBERED:
            del self._counted[next(iter(self._counted))]

    def clear(self, key: K) -> None:
        self._counted.pop(key, None)

    def wait(self, key: K) -> float:
        """Seconds until there may be one more."""
        return max(0.0, (self.count(key) - self._most + 1) * self._seconds)

    def delay(self, key: K) -> float:
        """Seconds to hold back the answer to the last one: none for the first, then twice as long each time."""
        over = ceil(self.count(key) - self._free)
        return min(2.0 ** (over - 1), MOST_DELAY) if over > 0 else 0.0


class Attempts:
    """The logins with a password that failed.

    Args:
        clock: tells the time in seconds.
        sleep: waits for so many seconds.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    ) -> None:
        self._clock, self._sleep = clock, sleep
        self._pairs: Tally[bytes] = Tally(5, 10, 300.0, clock)
        self._addresses: Tally[str] = Tally(50, 100, 36.0, clock)
        self._users: Tally[bytes] = Tally(20, inf, 60.0, clock)
        self._trusted: dict[bytes, float] = {}
        self._turns: WeakValueDictionary[bytes, asyncio.Lock] = WeakValueDictionary()
        self._waiting: dict[bytes, int] = {}
        self._looked_at: dict[str, int] = {}

    def is_calm(self, address: str) -> bool:
        """Whether no login from there has failed lately, or is being looked at.

        Else what is remembered of passwords must not be used before `checked`: whoever guesses would see, as fast as he
        can ask, which of his guesses is remembered. Quick.
        """
        source = network(address)
        return source not in self._looked_at and not self._addresses.count(source)

    async def checked(self, user: str, address: str, check: Callable[[], Awaitable[T | None]]) -> T | None:
        """Returns what `check` returns: who it is, or None where user and password do not belong together.

        A failure is counted before its answer is held back: hanging up, or a cancelled call, does not undo it.

        Args:
            user: whose password is tried.
            address: from where, an IP address.
            check: looks whether it is right.

        Raises:
            TooManyRequests: too many have failed; `check` was not called.
        """
        source = network(address)
        pair, target = _key(source, user), _key(user)
        self._require_patience(pair, source)
        with _counted(self._looked_at, source), _counted(self._waiting, pair, _MOST_WAITING):
            return await self._in_turn(pair, source, target, check)

    async def _in_turn(
        self, pair: bytes, source: str, target: bytes, check: Callable[[], Awaitable[T | None]]
    ) -> T | None:
        async with self._turns.setdefault(pair, asyncio.Lock()):
            self._require_patience(pair, source)
            found = await check()
            if found is not None:
                self._pairs.clear(pair)
                self._trust(pair)
                return found
            self._pairs.add(pair)
            self._addresses.add(source)
            self._users.add(target)
            delay = max(self._pairs.delay(pair), self._addresses.delay(source), self._users.delay(target))
            if delay:
                await self._sleep(delay)
        return None

    def _require_patience(self, pair: bytes, source: str) -> None:
        wait = self._pairs.wait(pair)
        if self._trusted.get(pair, -_TRUSTED_SECONDS) + _TRUSTED_SECONDS <= self._clock():
            wait = max(wait, self._addresses.wait(source))
        if wait:
            raise _too_many(ceil(wait))

    def _trust(self, pair: bytes) -> None:
        self._trusted.pop(pair, None)
        self._trusted[pair] = self._clock()
        if len(self._trusted) > _REMEMBERED:
            del self._trusted[next(iter(self._trusted))]


@contextmanager
def _counted(counts: dict[K, int], key: K, most: float = inf) -> Iterator[None]:
    """Counts what is done within; raises TooManyRequests where as many are under way as may be."""
    count = counts.get(key, 0)
    if count >= most:
        raise _too_many(1)
    counts[key] = count + 1
    try:
        yield
    finally:
        if counts[key] == 1:
            del counts[key]
        else:
            counts[key] -= 1


def _key(*texts: str) -> bytes:
    """What is remembered in place of names, which may be long, and may be passwords that were typed too early."""
    return blake2b("\0".join(texts).encode(errors="replace"), digest_size=16).digest()


def _too_many(seconds: int) -> TooManyRequests:
    return TooManyRequests(
        f"too many failed logins from your address: ask again in {seconds} s", headers={"Retry-After": str(seconds)}
    )
