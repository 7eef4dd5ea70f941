"""One question at a time: who asks upstream what is being asked already gets the same answer.

A flight belongs to nobody's request: who leaves does not stop it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, TypeVar

from ocispec.errors import LayerhouseError, Unavailable, UnknownError

_log = logging.getLogger("registry")
# Questions that may be on their way at once; more than that is answered 503 until some have been answered.
MOST = 1024
_BEGUN_WITHIN = 5.0

T = TypeVar("T")


class Flights:
    """All questions on their way in this process."""

    def __init__(self) -> None:
        self._running: dict[Hashable, asyncio.Future[Any]] = {}
        self._tasks: asyncio.TaskGroup | None = None
        self._begun = asyncio.Event()

    @property
    def is_running(self) -> bool:
        return self._tasks is not None

    async def run(self) -> None:
        """Gives flights a life of their own, until it is cancelled: then they end."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            self._begun.set()
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                self._tasks = None

    async def join(self, key: Hashable, work: Callable[[], Awaitable[T]]) -> T:
        """Returns what `work` gives, or what another work under the same key gives that has begun before.

        Raises:
            LayerhouseError: what the work raised, a copy for each.
            Unavailable: too much is on its way.
        """
        await self._running_at_all()
        running = self._running.get(key)
        if running is None:
            if self._tasks is None:
                raise Unavailable("the registry is ending", headers={"Retry-After": "1"})
            if len(self._running) >= MOST:
                raise Unavailable(f"{MOST} questions are on their way upstream", headers={"Retry-After": "1"})
            running = self._running[key] = asyncio.get_running_loop().create_future()
            self._tasks.create_task(self._fly(key, work, running))
        answer: T | LayerhouseError = await asyncio.shield(running)
        if isinstance(answer, LayerhouseError):
            raise copy(answer)
        return answer

    async def _running_at_all(self) -> None:
        """The first request may come before what works in the background has begun."""
        if not self._begun.is_set():
            try:
                async with asyncio.timeout(_BEGUN_WITHIN):
                    await self._begun.wait()
            except TimeoutError:
                raise Unavailable("the registry is starting", headers={"Retry-After": "1"}) from None

    async def _fly(self, key: Hashable, work: Callable[[], Awaitable[T]], answer: asyncio.Future[Any]) -> None:
        given: T | LayerhouseError = Unavailable("the registry is ending", headers={"Retry-After": "1"})
        try:
            given = await work()
        except LayerhouseError as error:
            given = error
        except Exception:  # noqa: BLE001 - nobody else would tell of it, and the other flights go on
            _log.exception("fault while upstream was asked")
            given = UnknownError("upstream could not be asked; the log tells more")
        finally:
            del self._running[key]
            answer.set_result(given)


def copy(error: LayerhouseError) -> LayerhouseError:
    """Returns an error of one's own: it gathers the traceback of whom it passes."""
    return type(error)(error.message, detail=error.detail, headers=error.headers)
