from __future__ import annotations

import asyncio
import threading

import pytest

from storage.threads import acquire, finish


async def test_the_result_and_the_error_come_back() -> None:
    assert await finish(pow, 2, 3) == 8
    with pytest.raises(ZeroDivisionError):
        await finish(divmod, 1, 0)


async def test_a_cancelled_caller_waits_for_the_end_of_the_work() -> None:
    started, go_on, ended = threading.Event(), threading.Event(), threading.Event()

    def work() -> str:
        started.set()
        go_on.wait()
        ended.set()
        return "thing"

    released: list[str] = []
    task = asyncio.create_task(acquire(released.append, work))
    await asyncio.to_thread(started.wait)
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0)
    assert not task.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()
    assert released == ["thing"]


async def test_an_error_in_cancelled_work_releases_nothing() -> None:
    started, go_on = threading.Event(), threading.Event()

    def work() -> str:
        started.set()
        go_on.wait()
        raise OSError("lost")

    released: list[str] = []
    task = asyncio.create_task(acquire(released.append, work))
    await asyncio.to_thread(started.wait)
    task.cancel()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert released == []
