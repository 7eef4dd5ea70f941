"""Cancels what runs at each of its steps: between any two of them, its caller may."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from typing import Any

COUNT: ContextVar[Callable[[], None]] = ContextVar("COUNT")


class Counted(Coroutine[Any, Any, Any]):
    """A task's coroutine that tells each of its steps."""

    def __init__(self, inner: Coroutine[Any, Any, Any], tick: Callable[[], None]) -> None:
        self.inner = inner
        self.tick = tick

    def send(self, value: Any) -> Any:
        self.tick()
        return self.inner.send(value)

    def throw(self, *error: Any) -> Any:
        self.tick()
        return self.inner.throw(*error)

    def __await__(self) -> Any:
        raise NotImplementedError


def _counting(loop: asyncio.AbstractEventLoop, inner: Any, **options: Any) -> asyncio.Task[Any]:
    tick = COUNT.get(None)
    return asyncio.Task(Counted(inner, tick) if tick else inner, loop=loop, **options)


async def cancelled_at(step: int, work: Coroutine[Any, Any, Any]) -> int:
    """Cancels `work` at its step'th step, those of its child tasks counted too; returns how many there were."""
    steps = 0

    def tick() -> None:
        nonlocal steps
        steps += 1
        if steps == step:
            working.cancel()

    asyncio.get_running_loop().set_task_factory(_counting)
    token = COUNT.set(tick)
    working = asyncio.create_task(work)
    COUNT.reset(token)
    await asyncio.gather(working, return_exceptions=True)
    return steps
