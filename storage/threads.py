"""Sharing the event loop: work that blocks, in worker threads, and long walks, in short steps.

A thread cannot be stopped. A cancelled caller therefore waits for its end here: else it would free what the thread
still uses.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from typing import TypeVar

T = TypeVar("T")


async def finish(work: Callable[..., T], *args: object) -> T:
    """Runs `work` in a worker thread; when cancelled, the cancellation goes on once `work` has ended."""
    return await acquire(_keep, work, *args)


async def acquire(release: Callable[[T], None], work: Callable[..., T], *args: object) -> T:
    """Like `finish`, for work that returns a thing to be released: `release` gets it where the caller cannot."""
    running = asyncio.ensure_future(asyncio.to_thread(work, *args))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await ended(running)
        if not running.cancelled() and running.exception() is None:
            release(running.result())
        raise


async def paced(items: Iterable[T] | AsyncIterable[T], step: int = 64) -> AsyncIterator[T]:
    """Yields `items`, and lets others run after every `step` of them: reading what is warm suspends nowhere."""
    count = 0
    async for item in items if isinstance(items, AsyncIterable) else _each(items):
        yield item
        count += 1
        if count % step == 0:
            await asyncio.sleep(0)


async def _each(items: Iterable[T]) -> AsyncIterator[T]:
    for item in items:
        yield item


def _keep(_result: object) -> None:
    """Nothing to release."""


async def ended(running: asyncio.Future[T]) -> None:
    """Returns when `running` has ended, however often the caller is cancelled meanwhile."""
    while not running.done():
        try:
            await asyncio.wait({running})
        except asyncio.CancelledError:
            continue
