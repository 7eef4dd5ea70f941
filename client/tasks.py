"""Tasks that run side by side and end together."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable
from typing import Any, TypeVar

T = TypeVar("T")


async def together(works: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Runs all at once.

    Raises:
        BaseException: the first that one of them raised, alone; the others were cancelled and have ended.
    """
    failed: BaseException | None = None
    try:
        async with asyncio.TaskGroup() as group:
            for work in works:
                group.create_task(work)
    except BaseExceptionGroup as errors:
        failed = errors.exceptions[0]
    if failed:
        raise failed


async def side_by_side(action: Callable[[T], Awaitable[None]], items: Collection[T], limit: int) -> None:
    """Runs `action` on every item, at most `limit` at once; raises as `together`."""
    waiting = iter(items)

    async def work() -> None:
        for item in waiting:
            await action(item)

    await together(work() for _ in range(min(limit, len(items))))
