"""Failed logins: who guesses is slowed and then refused, and nobody else is."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as configured
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from ocispec.errors import TooManyRequests
from registry.auth import attempts
from registry.auth.attempts import MOST_DELAY, Attempts, Tally
from storage.memory import MemoryEngine
from tests.support.api import Api, serving
from tests.support.callers import basic, htpasswd, settings

HERE, THERE = "192.0.2.1", "198.51.100.7"


class Time:
    """A clock that goes on where somebody sleeps, and where it is told to."""

    def __init__(self) -> None:
        self.now = 1_000_000.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.sleep(0)


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def slowing(time: Time) -> Attempts:
    return Attempts(time, time.sleep)


def saying(answer: str | None) -> Callable[[], Awaitable[str | None]]:
    async def check() -> str | None:
        await asyncio.sleep(0)
        return answer

    return check


RIGHT, WRONG = saying("alice"), saying(None)


async def guess(slowing: Attempts, user: str = "alice", address: str = HERE) -> str | None:
    return await slowing.checked(user, address, WRONG)


async def test_a_few_typing_errors_cost_nothing_and_more_cost_more(slowing: Attempts, time: Time) -> None:
    for _ in range(10):
        assert await guess(slowing) is None
    assert time.slept == [1, 2, 4, 8, 8]
    with pytest.raises(
        TooManyRequests, match=r"^too many failed logins from your address: ask again in 300 s$"
    ) as told:
        await guess(slowing)
    assert told.value.headers == {"Retry-After": "300"}


async def test_who_guesses_on_has_one_guess_in_five_minutes(slowing: Attempts, time: Time) -> None:
    for _ in range(10):
        await guess(slowing)
    for _ in range(3):
        time.now += 299
        with pytest.raises(TooManyRequests):
            await guess(slowing)
        time.now += 1
        assert await guess(slowing) is None


async def test_the_right_password_is_not_looked_at_from_where_it_was_guessed(slowing: Attempts) -> None:
    for _ in range(10):
        await guess(slowing)
    with pytest.raises(TooManyRequests):
        await slowing.checked("alice", HERE, RIGHT)


async def test_nobody_locks_somebody_else_out(slowing: Attempts, time: Time) -> None:
    for number in range(50):
        for _ in range(10):
            await guess(slowing, address=f"203.0.113.{number}")
    time.slept.clear()
    assert await slowing.checked("alice", THERE, RIGHT) == "alice"
    assert time.slept == []


async def test_a_success_clears_what_failed(slowing: Attempts, time: Time) -> None:
    for _ in range(3):
        for _ in range(5):
            await guess(slowing)
        assert await slowing.checked("alice", HERE, RIGHT) == "alice"
    assert time.slept == []


async def test_many_guesses_at_once_are_looked_at_one_after_the_other(slowing: Attempts) -> None:
    looked = running = 0

    async def check() -> None:
        nonlocal looked, running
        looked += 1
        running += 1
        assert running == 1
        await asyncio.sleep(0)
        running -= 1

    told = await asyncio.gather(*(slowing.checked("alice", HERE, check) for _ in range(100)), return_exceptions=True)
    assert looked == 10
    assert sum(isinstance(each, TooManyRequests) for each in told) == 90


async def test_the_same_user_at_once_with_the_right_password_is_let_in(slowing: Attempts) -> None:
    assert await asyncio.gather(*(slowing.checked("alice", HERE, RIGHT) for _ in range(200))) == ["alice"] * 200


async def test_no_more_wait_than_are_looked_at_in_time(slowing: Attempts) -> None:
    let_go = asyncio.Event()

    async def check() -> str:
        await let_go.wait()
        return "alice"

    asking = [asyncio.create_task(slowing.checked("alice", HERE, check)) for _ in range(257)]
    with pytest.raises(TooManyRequests):
        await asking[-1]
    let_go.set()
    await asyncio.gather(*asking[:-1])


async def test_many_users_from_one_address_are_slowed_and_then_refused(slowing: Attempts, time: Time) -> None:
    assert await slowing.checked("alice", HERE, RIGHT) == "alice"
    for number in range(100):
        await guess(slowing, f"user-{number}")
    assert (len(time.slept), max(time.slept)) == (50, MOST_DELAY)
    with pytest.raises(TooManyRequests, match="in 36 s"):
        await guess(slowing, "bob")
    # Who has logged in from there is known there.
    assert await slowing.checked("alice", HERE, RIGHT) == "alice"
    assert await slowing.checked("bob", THERE, RIGHT) == "alice"
    time.now += 36
    assert await slowing.checked("bob", HERE, RIGHT) == "alice"


async def test_trust_in_a_user_at_an_address_ends_after_a_day(slowing: Attempts, time: Time) -> None:
    await slowing.checked("alice", HERE, RIGHT)
    time.now += 86_400
    for number in range(100):
        await guess(slowing, f"user-{number}")
    with pytest.raises(TooManyRequests):
        await slowing.checked("alice", HERE, RIGHT)


async def test_one_user_from_many_addresses_is_slowed_and_never_refused(slowing: Attempts, time: Time) -> None:
    for number in range(100):
        await guess(slowing, address=f"203.0.113.{number}")
    assert (len(time.slept), max(time.slept)) == (80, MOST_DELAY)


async def test_a_network_of_ipv6_is_one_guesser(slowing: Attempts) -> None:
    for number in range(10):
        await guess(slowing, address=f"2001:db8::{number:x}")
    with pytest.raises(TooManyRequests):
        await guess(slowing, address="2001:db8::ffff")
    assert await guess(slowing, address="2001:db8:0:1::1") is None


async def test_who_hangs_up_has_failed_all_the_same(slowing: Attempts) -> None:
    class Forever(Time):
        async def sleep(self, seconds: float) -> None:
            await asyncio.Event().wait()

    time = Forever()
    slowing = Attempts(time, time.sleep)
    for _ in range(5):
        await guess(slowing)
    for _ in range(5):
        task = asyncio.create_task(guess(slowing))
        for _ in range(10):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    with pytest.raises(TooManyRequests):
        await guess(slowing)


async def test_a_fault_while_looking_is_no_guess(slowing: Attempts, time: Time) -> None:
    async def broken() -> None:
        raise OSError("broken")

    for _ in range(20):
        with pytest.raises(OSError, match="broken"):
            await slowing.checked("alice", HERE, broken)
    assert await slowing.checked("alice", HERE, RIGHT) == "alice"
    assert time.slept == []


async def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch, slowing: Attempts) -> None:
    monkeypatch.setattr(attempts, "_REMEMBERED", 10)
    for number in range(50):
        await guess(slowing, f"user-{number}", f"203.0.113.{number}")
        await slowing.checked(f"user-{number}", f"203.0.113.{number}", RIGHT)
        await guess(slowing, f"user-{number}", f"203.0.113.{number}")
    state = slowing.__dict__
    counted = [state[name].__dict__["_counted"] for name in ("_pairs", "_addresses", "_users")]
    assert [len(each) for each in (*counted, state["_trusted"])] == [10] * 4
    assert [len(state[name]) for name in ("_waiting", "_turns", "_looked_at")] == [0] * 3


@given(st.lists(st.tuples(st.floats(0, 1000), st.booleans()), max_size=60))
def test_no_more_fail_than_are_allowed_in_any_time(moves: list[tuple[float, bool]]) -> None:
    time = Time()
    tally = Tally(5, 10, 300.0, time)
    failed: list[float] = []
    for seconds, is_wrong in moves:
        time.now += seconds
        if is_wrong and not tally.wait(b""):
            tally.add(b"")
            failed.append(time.now)
    for at, begin in enumerate(failed):
        for count, end in enumerate(failed[at:], 1):
            assert count <= 10 + (end - begin) / 300 + 1e-6


class Guessing(RuleBasedStateMachine):
    """Whoever guesses, and whenever: who has the right password gets in from an address that nobody guesses from."""

    def __init__(self) -> None:
        super().__init__()
        self.time = Time()
        self.attempts = Attempts(self.time, self.time.sleep)

    @rule(user=st.sampled_from("ab"), address=st.sampled_from([HERE, "2001:db8::1"]), times=st.integers(1, 30))
    def fails(self, user: str, address: str, times: int) -> None:
        async def fail() -> None:
            for _ in range(times):
                with suppress(TooManyRequests):
                    await guess(self.attempts, user, address)

        asyncio.run(fail())

    @rule(seconds=st.floats(0, 100_000))
    def passes(self, seconds: float) -> None:
        self.time.now += seconds

    @invariant()
    def the_right_password_counts_elsewhere(self) -> None:
        self.time.slept.clear()
        assert asyncio.run(self.attempts.checked("a", THERE, RIGHT)) == "alice"
        assert not self.time.slept


Guessing.TestCase.settings = configured(max_examples=30, stateful_step_count=30, deadline=None)
TestGuessing = Guessing.TestCase


async def test_an_address_is_calm_when_its_failures_have_passed(slowing: Attempts, time: Time) -> None:
    looking = asyncio.Event()

    async def check() -> str:
        assert not slowing.is_calm(HERE)
        looking.set()
        return "alice"

    assert slowing.is_calm(HERE)
    await slowing.checked("alice", HERE, check)
    assert looking.is_set()
    assert slowing.is_calm(HERE)
    await guess(slowing)
    assert (slowing.is_calm(HERE), slowing.is_calm(THERE)) == (False, True)
    time.now += 36
    assert slowing.is_calm(HERE)


async def _at(api: Api, address: str, password: str) -> int:
    """The status of one login."""
    api.scope, asked = _from(api.scope, address), api.scope
    try:
        return (await api.ask("GET", "/v2/", headers=basic("alice", password))).status
    finally:
        api.scope = asked  # type: ignore[method-assign]


def _from(scope: Any, address: str) -> Any:
    return lambda *words: {**scope(*words), "client": (address, 40000)}


async def test_a_registry_refuses_a_guesser_and_lets_the_user_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    sleep = asyncio.sleep

    async def noted(seconds: float) -> None:
        slept.append(seconds)
        await sleep(0)

    monkeypatch.setattr(attempts.Attempts.__init__, "__defaults__", (attempts.time.monotonic, noted))
    file = htpasswd(tmp_path / "htpasswd", alice="secret")
    async with serving(MemoryEngine(), settings(file)) as api:
        # What is remembered of a password tells a guesser nothing.
        assert await _at(api, HERE, "secret") == 200
        assert [await _at(api, HERE, f"guess {number}") for number in range(12)] == [401] * 10 + [429] * 2
        assert await _at(api, HERE, "secret") == 429
        assert await _at(api, THERE, "secret") == 200
    assert slept == [1, 2, 4, 8, 8]
