"""Long work in a worker thread that ends early when nobody waits for it any more."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar

from storage.threads import ended

T = TypeVar("T")


class StoppedError(Exception):
    """Raised in the thread, and seen by nobody: the caller is told of its own cancellation."""


class Stop:
    """Called by the work again and again; raises `StoppedError` once it is to end."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def __call__(self) -> None:
        if self._event.is_set():
            raise StoppedError

    def set(self) -> None:
        self._event.set()


async def stoppable(stop: Stop, work: Callable[..., T], *args: object) -> T:
    """Runs `work` in a worker thread; when cancelled, `stop` is set and the cancellation goes on once `work` ended."""
    running = asyncio.ensure_future(asyncio.to_thread(work, *args))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        stop.set()
        await ended(running)
        # What it ended with is taken note of, so that asyncio does not report it as lost.
        if not running.cancelled():
            running.exception()
        raise
