"""Patience with hosts: what is tried again, after how long, and how often.

A host that answers 429 or 503 with `Retry-After` (RFC 9110, section 10.2.3) is left alone by every transfer of a
session until then. Everything else is tried again after a growing, jittered pause. Both are bounded.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from ocispec.errors import (
    ContentTruncated,
    HostUnreachable,
    LayerhouseError,
    NoConnection,
    RequestInvalid,
    TooManyRequests,
    Unavailable,
    UnknownError,
)

if TYPE_CHECKING:
    from stamina import Attempt

ATTEMPTS = 5
LONGEST_WAIT = 600.0
MAX_SECONDS = 10**9
# Requests that were on their way at once are all told of the same wait, at most so many seconds apart.
_SAME_WAIT = 1.0

T = TypeVar("T")

# Told when a wait begins: host, seconds, and why.
Waiting: TypeAlias = Callable[[str, float, str], None]


def _unheard(_host: str, _seconds: float, _cause: str) -> None:
    """Nobody listens."""


@dataclass(slots=True)
class Patience:
    """How a session waits for hosts.

    Attributes:
        told: hears of every wait that a host asks for.
        attempts: how often one thing is tried, in all.
        longest: the longest wait that is granted, in seconds; a host that asks for more is given up.
        first: the first pause where the host asks for none, in seconds; each further one is twice as long.
    """

    told: Waiting = _unheard
    attempts: int = ATTEMPTS
    longest: float = LONGEST_WAIT
    first: float = 0.25
    _until: dict[str, float] = field(default_factory=dict)
    _met: set[str] = field(default_factory=set)

    async def run(self, host: str, work: Callable[[], Awaitable[T]]) -> T:
        """Runs `work`, and again where it met an error that may pass; waits that the host asked for are kept before.

        Raises:
            LayerhouseError: what the last try raised. An error that cannot pass is raised at once, and so is a
                connection that cannot be made to a host which never answered: its name is more often wrong than not.
        """
        try:
            return await self._once(host, work)
        except LayerhouseError as error:
            if not passing(error) or (isinstance(error, NoConnection) and host not in self._met):
                raise
            failed = error
        async for attempt in _attempts(partial(self._pause, host), self.attempts, self.first):
            with attempt:
                if attempt.num == 1:
                    raise failed
                return await self._once(host, work)
        raise failed

    async def _once(self, host: str, work: Callable[[], Awaitable[T]]) -> T:
        await self.kept(host)
        try:
            done = await work()
        except (TooManyRequests, Unavailable) as error:
            if (wanted := retry_after(error.headers) or 0) > self.longest:
                message = f"{error.message}; {host} asks to wait {wanted:.0f} s, {self.longest:.0f} s are granted"
                raise type(error)(message, detail=error.detail, headers=error.headers) from error
            raise
        self._met.add(host)
        return done

    async def kept(self, host: str) -> None:
        """Returns when no wait that the host asked for is running."""
        while (left := self._until.get(host, 0.0) - time.monotonic()) > 0:  # noqa: ASYNC110 - another may prolong it
            await asyncio.sleep(left)

    def _pause(self, host: str, error: Exception) -> bool | float:
        wanted = retry_after(error.headers) if isinstance(error, LayerhouseError) else None
        if not passing(error) or wanted is None:
            return passing(error)
        if wanted > self.longest:
            return False
        known, until = self._until.get(host, 0.0), time.monotonic() + wanted
        self._until[host] = max(known, until)
        if wanted and until > known + _SAME_WAIT:
            self.told(host, wanted, error.message if isinstance(error, LayerhouseError) else str(error))
        return wanted or True


def passing(error: BaseException) -> bool:
    """Whether the same may go well at the next try."""
    kinds = HostUnreachable | ContentTruncated | TooManyRequests | Unavailable | UnknownError
    return isinstance(error, kinds) and not isinstance(error, RequestInvalid)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Returns how many seconds a `Retry-After`, whole seconds or a date, asks for; None where it is absent or wrong."""
    text = next((value for name, value in headers.items() if name.lower() == "retry-after"), "").strip()
    if text.isascii() and text.isdecimal():
        return float(min(int(text[:12]), MAX_SECONDS))
    return _until_date(text) if text else None


def _until_date(text: str) -> float | None:
    # Only a host that gives a date needs it, and it takes some time to import.
    from datetime import UTC  # noqa: PLC0415 - see above
    from email.utils import parsedate_to_datetime  # noqa: PLC0415 - see above

    try:
        date = parsedate_to_datetime(text)
        # The oldest of its three forms names no zone; all of them mean GMT (RFC 9110, section 5.6.7).
        seconds = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - time.time()
    except (ValueError, OverflowError):
        return None
    return min(max(0.0, seconds), MAX_SECONDS)


def _attempts(pause: Callable[[Exception], bool | float], attempts: int, first: float) -> AsyncIterator[Attempt]:
    # Nothing of this is needed, nor imported, before something failed.
    import logging  # noqa: PLC0415 - see above

    import stamina  # noqa: PLC0415 - see above

    # Whoever sets up logging hears of retries; without that they would be written on the terminal, and by structlog,
    # where that is installed, even on standard output.
    logging.getLogger("stamina").addHandler(logging.NullHandler())
    stamina.instrumentation.set_on_retry_hooks([stamina.instrumentation.LoggingOnRetryHook])
    found = stamina.retry_context(pause, attempts, None, wait_initial=first, wait_max=30.0, wait_jitter=first)
    return aiter(found)
