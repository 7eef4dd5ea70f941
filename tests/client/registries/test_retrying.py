"""Patience: what is tried again, how often, and how a host's wishes are read, kept and told."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.registries import retrying
from client.registries.retrying import ATTEMPTS, MAX_SECONDS, Patience, retry_after
from ocispec.errors import (
    BlobUnknown,
    ContentTruncated,
    Denied,
    DigestMismatch,
    HostUnreachable,
    LayerhouseError,
    NoConnection,
    RequestInvalid,
    ResponseInvalid,
    StorageFull,
    TooManyRequests,
    Unauthorized,
    Unavailable,
    UnknownError,
)
from tests.support.processes import REPOSITORY_ROOT

PASSING = (HostUnreachable, ContentTruncated, TooManyRequests, Unavailable, UnknownError)
LASTING = (
    BlobUnknown,
    Denied,
    Unauthorized,
    DigestMismatch,
    RequestInvalid,
    ResponseInvalid,
    StorageFull,
    NoConnection,
)


@dataclass
class Work:
    """Raises what it is given, one after the other, then ends well."""

    errors: list[BaseException]
    tries: int = 0

    async def __call__(self) -> str:
        self.tries += 1
        if self.errors:
            raise self.errors.pop(0)
        return "done"


@dataclass
class Heard:
    told: list[tuple[str, float, str]] = field(default_factory=list)

    def __call__(self, host: str, seconds: float, cause: str) -> None:
        self.told.append((host, seconds, cause))


def asking(wait: str, kind: type[LayerhouseError] = TooManyRequests) -> LayerhouseError:
    return kind("slow down", headers={"retry-after": wait})


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Every pause asked for; none of them lasts, and the clock goes on by it."""
    pauses: list[float] = []
    passed, real, sleep = 0.0, time.monotonic, asyncio.sleep

    async def pass_by(seconds: float) -> None:
        nonlocal passed
        pauses.append(seconds)
        passed += seconds
        await sleep(0)

    monkeypatch.setattr(asyncio, "sleep", pass_by)
    monkeypatch.setattr(retrying.time, "monotonic", lambda: real() + passed)
    return pauses


@pytest.mark.parametrize("kind", PASSING)
async def test_what_may_pass_is_tried_again(kind: type[LayerhouseError]):
    work = Work([kind("a"), kind("b")])
    assert await Patience(first=0.001).run("h", work) == "done"
    assert work.tries == 3


@pytest.mark.parametrize("kind", LASTING)
async def test_what_cannot_pass_is_raised_at_once(kind: type[LayerhouseError]):
    work = Work([kind("a")])
    with pytest.raises(kind, match=r"^a$"):
        await Patience(first=0.001).run("h", work)
    assert work.tries == 1


async def test_a_host_that_answered_once_is_waited_for_where_it_cannot_be_reached():
    patience = Patience(first=0.001)
    assert await patience.run("h", Work([])) == "done"
    work = Work([NoConnection("a"), NoConnection("b")])
    assert await patience.run("h", work) == "done"
    assert work.tries == 3
    with pytest.raises(NoConnection):
        await patience.run("another", Work([NoConnection("a")]))


async def test_what_cannot_pass_ends_the_tries_too():
    work = Work([HostUnreachable("a"), Denied("b")])
    with pytest.raises(Denied, match=r"^b$"):
        await Patience(first=0.001).run("h", work)
    assert work.tries == 2


async def test_an_error_that_is_none_of_ours_passes_through():
    with pytest.raises(ZeroDivisionError):
        await Patience(first=0.001).run("h", Work([ZeroDivisionError()]))
    with pytest.raises(ZeroDivisionError):
        await Patience(first=0.001).run("h", Work([HostUnreachable("a"), ZeroDivisionError()]))


@pytest.mark.parametrize("attempts", [1, 2, ATTEMPTS])
async def test_tries_are_bounded_and_the_last_error_is_the_one_raised(attempts: int):
    work = Work([HostUnreachable(str(number)) for number in range(1, 99)])
    with pytest.raises(HostUnreachable, match=f"^{attempts}$"):
        await Patience(first=0.001, attempts=attempts).run("h", work)
    assert work.tries == attempts


async def test_pauses_grow_and_are_jittered(slept: list[float]):
    with pytest.raises(HostUnreachable):
        await Patience(first=1.0).run("h", Work([HostUnreachable("x") for _ in range(9)]))
    for number, seconds in enumerate(slept):
        assert 2**number <= seconds <= 2**number + 1
    assert len(slept) == ATTEMPTS - 1
    assert sum(slept) != sum(2**number for number in range(len(slept)))


async def test_a_wait_the_host_asks_for_is_kept_and_told_once(slept: list[float]):
    heard = Heard()
    await Patience(heard, first=0.001).run("docker.io", Work([asking("42")]))
    assert heard.told == [("docker.io", 42.0, "slow down")]
    assert 41 < sum(slept) < 44


async def test_all_who_are_told_to_wait_at_once_are_one_announcement():
    heard, all_sent, told = Heard(), asyncio.Barrier(6), 0
    patience = Patience(heard, first=0.001)

    async def work() -> None:
        nonlocal told
        await all_sent.wait()
        told += 1
        raise asking("42")

    waiting = [asyncio.create_task(patience.run("docker.io", work)) for _ in range(6)]
    while told < 6:
        await asyncio.sleep(0.001)
    await asyncio.sleep(0.05)
    assert [seconds for _, seconds, _ in heard.told] == [42]
    for each in waiting:
        each.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_a_longer_wait_is_told_anew(slept: list[float]):
    heard = Heard()
    await Patience(heard, first=0.001).run("h", Work([asking("2"), asking("30", Unavailable)]))
    assert [seconds for _, seconds, _ in heard.told] == [2, 30]


async def test_who_comes_later_waits_as_well_and_other_hosts_do_not():
    patience = Patience(first=0.001)
    patience._until["slow"] = time.monotonic() + 3600
    assert await patience.run("other", Work([])) == "done"
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(patience.run("slow", Work([])), 0.01)


async def test_a_wait_that_is_prolonged_while_it_runs_is_kept_to_its_end(slept: list[float]):
    patience = Patience()
    patience._until["h"] = retrying.time.monotonic() + 10
    waiting = asyncio.create_task(patience.kept("h"))
    while not slept:
        await asyncio.tasks.__sleep0()
    patience._until["h"] += 10
    await waiting
    assert 19 < sum(slept) < 21


async def test_a_host_that_asks_for_too_long_is_given_up_and_its_wish_is_told(slept: list[float]):
    heard, work = Heard(), Work([asking("7200")])
    with pytest.raises(
        TooManyRequests, match=r"^slow down; docker\.io asks to wait 7200 s, 600 s are granted$"
    ) as raised:
        await Patience(heard, first=0.001).run("docker.io", work)
    assert (work.tries, slept, heard.told) == (1, [], [])
    assert retry_after(raised.value.headers) == 7200


async def test_a_wait_of_nothing_is_an_ordinary_pause(slept: list[float]):
    heard = Heard()
    await Patience(heard, first=0.5).run("h", Work([asking("0")]))
    assert heard.told == []
    assert 0.5 <= sum(slept) <= 1


async def test_cancelled_in_a_pause_it_ends():
    running = asyncio.create_task(Patience(first=3600).run("h", Work([HostUnreachable("x")])))
    await asyncio.sleep(0.1)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_nobody_needs_to_listen():
    assert await Patience(first=0.001).run("h", Work([asking("1")])) == "done"


NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(retrying.time, "time", NOW.timestamp)
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("42", 42),
        (" 42 ", 42),
        ("0", 0),
        ("9" * 40, MAX_SECONDS),
        (format_datetime(NOW + timedelta(seconds=42), usegmt=True), 42),
        (format_datetime(NOW - timedelta(days=9), usegmt=True), 0),
        ("Sunday, 01-Mar-26 12:00:42 GMT", 42),
        ("Sun Mar  1 12:00:42 2026", 42),
        ("Sun, 01 Mar 2026 13:00:42 +0100", 42),
        ("Fri, 31 Dec 9999 23:59:59 GMT", MAX_SECONDS),
        ("", None),
        ("soon", None),
        ("-1", None),
        ("1.5", None),
        ("٤٢", None),
        ("Sun, 41 Mar 2026 12:00:42 GMT", None),
        ("Sun, 01 Mar 2026 12:00:42 +99999999999", None),
    ],
)
def test_each_form_of_retry_after(now: None, text: str, seconds: float | None):
    assert retry_after({"Retry-After": text}) == seconds


def test_without_the_header_there_is_no_wish():
    assert retry_after({"Age": "5"}) is None


@given(
    st.text(max_size=60) | st.from_regex(r"[A-Za-z]{3}, [0-9]{1,2} [A-Za-z]{3} [0-9]{1,5} [0-9:]{1,9} [A-Z+-]+[0-9]*")
)
def test_garbage_asks_for_nothing_and_breaks_nothing(text: str):
    found = retry_after({"retry-after": text})
    assert found is None or 0 <= found <= MAX_SECONDS


def test_the_library_for_retries_is_loaded_at_the_first_failure_only():
    code = """if True:
        import asyncio, sys
        from client.registries.retrying import Patience
        from ocispec.errors import HostUnreachable
        failed = []
        async def work():
            if not failed:
                failed.append(1)
                raise HostUnreachable("x")
        async def well(): pass
        patience = Patience(first=0.001)
        asyncio.run(patience.run("h", well))
        print("stamina" in sys.modules)
        asyncio.run(patience.run("h", work))
        print("stamina" in sys.modules)
    """
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY_ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]
    assert done.stderr == ""
