"""Places for transfers: so many in all, so many to one host, in the order in which they were asked for."""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import AsyncExitStack

import pytest

from client.transfers.slots import Slots


async def most_at_once(slots: Slots, hosts: list[str]) -> tuple[int, dict[str, int]]:
    """Runs one transfer from each of `hosts`; returns the most there were at once, in all and by host."""
    running, most, by_host = dict.fromkeys(hosts, 0), 0, dict.fromkeys(hosts, 0)

    async def transfer(host: str) -> None:
        nonlocal most
        async with slots.one(host):
            running[host] += 1
            most = max(most, sum(running.values()))
            by_host[host] = max(by_host[host], running[host])
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            running[host] -= 1

    await asyncio.gather(*map(transfer, hosts))
    assert not any(running.values())
    return most, by_host


@pytest.mark.parametrize(
    ("total", "per_host", "most", "each"), [(3, 2, 3, 2), (9, 2, 4, 2), (2, 9, 2, 1), (1, 1, 1, 1)]
)
async def test_there_are_never_more_than_allowed(total: int, per_host: int, most: int, each: int):
    found, by_host = await most_at_once(Slots(total, per_host), ["a", "b"] * 10)
    assert found == most
    assert max(by_host.values()) == each


async def test_places_are_given_in_the_order_of_asking():
    slots, order = Slots(1, 1), []

    async def transfer(number: int) -> None:
        async with slots.one("h"):
            order.append(number)

    async with slots.one("h"):
        tasks = [asyncio.create_task(transfer(number)) for number in range(5)]
        await asyncio.sleep(0)
    await asyncio.gather(*tasks)
    assert order == list(range(5))


async def test_a_place_is_free_again_after_an_error_and_after_a_cancelled_wait():
    slots = Slots(1, 1)
    with pytest.raises(ZeroDivisionError):
        async with slots.one("h"):
            raise ZeroDivisionError

    async def wait() -> None:
        async with slots.one("h"):
            raise NotImplementedError

    async with slots.one("h"):
        waiting = asyncio.create_task(wait())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    async with asyncio.timeout(5), slots.one("h"):
        pass


async def test_a_host_that_is_full_takes_no_place_from_another():
    slots = Slots(2, 1)
    async with AsyncExitStack() as held:
        await held.enter_async_context(slots.one("busy"))
        waiting = asyncio.create_task(held.enter_async_context(slots.one("busy")))
        await asyncio.sleep(0)
        async with asyncio.timeout(5), slots.one("other"):
            assert not waiting.done()
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)


def test_blobs_on_their_way_share_the_places():
    slots = Slots(12, 6)
    with slots.shared() as alone, slots.shared() as two, slots.shared():
        assert (alone, two) == (6, 3)
        with contextlib.suppress(ZeroDivisionError), slots.shared() as four:
            assert four == 1
            raise ZeroDivisionError
        with slots.shared() as again:
            assert again == 1
    with slots.shared() as alone:
        assert alone == 6


def test_however_many_share_each_may_count_on_one():
    slots = Slots(2, 2)
    with slots.shared(), slots.shared(), slots.shared() as last:
        assert last == 1
