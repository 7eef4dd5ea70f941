"""Tasks side by side: at most so many at once, they end together, and the first failure is told alone."""

from __future__ import annotations

import asyncio

import pytest

from client.tasks import side_by_side, together
from ocispec.errors import ResponseInvalid


async def test_no_more_than_the_limit_run_at_once():
    running, most, done = 0, 0, []

    async def action(number: int) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        done.append(number)

    await side_by_side(action, range(20), 3)
    assert (most, running, sorted(done)) == (3, 0, list(range(20)))
    await side_by_side(action, [], 3)
    await together([])


async def test_the_first_failure_ends_the_rest_and_is_reported_alone():
    ended = []

    async def action(number: int) -> None:
        try:
            if number == 1:
                raise ResponseInvalid("first")
            await asyncio.Event().wait()
        finally:
            ended.append(number)

    with pytest.raises(ResponseInvalid, match=r"^first$") as raised:
        await side_by_side(action, range(9), 3)
    assert sorted(ended) == [0, 1, 2]
    assert raised.value.__context__ is None


async def test_a_failure_is_raised_when_all_have_ended():
    ended = []

    async def failing() -> None:
        raise ResponseInvalid("first")

    async def slow() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.01)
            ended.append(True)

    with pytest.raises(ResponseInvalid):
        await together([slow(), failing()])
    assert ended


async def test_of_a_group_within_a_group_the_error_comes_out():
    async def failing() -> None:
        raise ResponseInvalid("inner")

    with pytest.raises(ResponseInvalid, match="inner"):
        await together([together([failing()])])


async def test_cancelled_it_cancels_all_and_they_have_ended():
    ended = []

    async def action(number: int) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(number)

    running = asyncio.create_task(side_by_side(action, range(4), 4))
    await asyncio.sleep(0.01)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert sorted(ended) == [0, 1, 2, 3]


async def test_ctrl_c_in_one_of_them_passes_as_it_is():
    async def interrupted() -> None:
        raise asyncio.CancelledError

    await together([interrupted()])  # who cancels itself alone disturbs nobody
