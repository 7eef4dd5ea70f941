"""What the processes that serve report to the one that started them."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.observing import reports
from registry.observing.health import Check, CheckFailed, Health
from registry.observing.metrics import Family
from registry.observing.reports import Report, Reporter, Reports

text = st.text(max_size=9)
families = st.lists(
    st.builds(
        Family,
        text,
        st.sampled_from(["counter", "gauge"]),
        text,
        st.lists(st.tuples(text, st.lists(st.tuples(text, text), max_size=2).map(tuple), st.floats(0, 1e20))).map(
            tuple
        ),
        st.sampled_from(["sum", "max", "min"]),
    ),
    max_size=3,
)


class Process:
    """One that serves, with a figure of its own."""

    def __init__(self, figure: float = 0, wrong: str | None = None) -> None:
        self.figure = figure
        self.wrong = wrong
        self.health = Health([Check(wrong or "it", 0.01, 1, 60, self._probe)])
        self.reporter = Reporter(self.health, [self._families])

    async def _probe(self) -> None:
        if self.wrong:
            raise CheckFailed("odd")

    async def _families(self) -> Iterable[Family]:
        return Family.counter("done", "", {(): self.figure}), Family.gauge("now", "", {(): self.figure})

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(each.run()) for each in (self.health, self.reporter)]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task


@asynccontextmanager
async def asking() -> AsyncIterator[Reports]:
    asks = Reports()
    with asks.listening() as listening:
        server = await asks.serve(listening)
        yield asks
        server.close()
    assert "LAYERHOUSE_REPORTS" not in os.environ


async def connected(asks: Reports, number: int) -> None:
    while len(asks._links) != number:
        await asyncio.sleep(0.005)


def figures(report: Report) -> dict[str, float]:
    return {name: figure for each in report.families for name, _, figure in each.samples}


@given(st.dictionaries(text, text, max_size=2), families)
def test_a_report_travels_as_one_line_and_arrives_as_it_was(failing: dict[str, str], told: list[Family]) -> None:
    line = Report(failing, told).to_line()
    assert line.count(b"\n") == 1
    assert Report.from_line(line) == Report(failing, told)


async def test_all_processes_are_asked_and_what_one_counted_outlasts_it() -> None:
    async with asking() as asks, AsyncExitStack() as ending:
        assert (await asks.read()).failing == {"workers": "none serves"}
        one, two = Process(1), Process(2)
        await ending.enter_async_context(one.running())
        async with two.running():
            await connected(asks, 2)
            report = await asks.read()
            assert (dict(report.failing), figures(report)) == ({}, {"done_total": 3, "now": 3})
            two.figure = 5
            assert figures(await asks.read()) == {"done_total": 6, "now": 6}
        await connected(asks, 1)
        assert figures(await asks.read()) == {"done_total": 6, "now": 1}
        async with Process(1).running():
            await connected(asks, 2)
            assert figures(await asks.read()) == {"done_total": 7, "now": 2}


async def test_what_is_wrong_in_one_process_is_wrong() -> None:
    async with asking() as asks, Process().running(), Process(wrong="disk").running():
        await connected(asks, 2)
        while not (report := await asks.read()).failing:
            await asyncio.sleep(0.005)
        assert dict(report.failing) == {"disk": "odd"}


async def test_several_may_ask_at_once() -> None:
    async with asking() as asks, Process(1).running():
        await connected(asks, 1)
        told = await asyncio.gather(*(asks.read() for _ in range(20)))
        assert [figures(each)["done_total"] for each in told] == [1] * 20


async def test_a_process_that_hangs_is_unwell_and_what_it_counted_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports, "_PATIENCE", 0.05)
    hangs = asyncio.Event()
    hangs.set()

    class Hanging(Process):
        async def _families(self) -> Iterable[Family]:
            await hangs.wait()
            return await super()._families()

    async with asking() as asks, Hanging(4).running():
        await connected(asks, 1)
        assert not (await asks.read()).failing
        hangs.clear()
        report = await asks.read()
        assert dict(report.failing) == {f"worker {os.getpid()}": "does not answer"}
        assert figures(report)["done_total"] == 4
        hangs.set()
        while (await asks.read()).failing:
            await asyncio.sleep(0.005)


async def test_a_process_that_ends_while_it_is_asked_does_not_answer() -> None:
    asked = asyncio.Event()

    class Ending(Process):
        async def _families(self) -> Iterable[Family]:
            asked.set()
            await asyncio.Event().wait()
            return ()

    async with asking() as asks:
        async with Ending().running():
            await connected(asks, 1)
            reading = asyncio.create_task(asks.read())
            await asked.wait()
        assert list((await reading).failing.values()) == ["does not answer"]
        await connected(asks, 0)


async def test_nobody_elses_process_is_listened_to(monkeypatch: pytest.MonkeyPatch) -> None:
    async with asking() as asks:
        monkeypatch.setattr(os, "getuid", lambda: 12345)
        link = socket.socket(socket.AF_UNIX)
        link.connect("\0" + os.environ["LAYERHOUSE_REPORTS"])
        reader, writer = await asyncio.open_unix_connection(sock=link)
        assert await reader.read() == b""
        writer.close()
        assert asks._links == set()


async def test_a_process_that_nobody_asks_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "registry")
    await Process().reporter.run()
    assert not caplog.records
    monkeypatch.setenv("LAYERHOUSE_REPORTS", "layerhouse-gone")
    await Process().reporter.run()
    assert caplog.messages == ["nothing is reported of this process: Connection refused"]


async def test_it_ends_with_who_asked() -> None:
    async with asking() as asks:
        running = asyncio.create_task(Process().reporter.run())
        await connected(asks, 1)
        for link in asks._links:
            link._writer.close()
        await running
