"""The log's lines, as an operator's tools read them."""

from __future__ import annotations

import asyncio
import io
import logging
import re
import time
from collections.abc import Iterator
from contextlib import redirect_stderr

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.logs import AccessLog, Clock, Formatter, configure

NAMES = ("registry", "registry.access", "uvicorn")
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"


@pytest.fixture(autouse=True)
def untouched() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in NAMES]
    before = [(each.handlers, each.propagate, each.level) for each in loggers]
    yield
    for logger, (handlers, propagate, level) in zip(loggers, before, strict=True):
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)


@given(st.lists(st.floats(0, 4e9)))
def test_every_time_is_rendered_to_the_millisecond_whatever_came_before(times: list[float]) -> None:
    clock = Clock()
    for each in times:
        whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(int(each)))
        assert re.fullmatch(rf"{whole}\.\d{{3}}Z", clock.render(each))


def test_a_line_tells_time_level_and_message_and_a_fault_its_traceback() -> None:
    record = logging.LogRecord("registry", logging.WARNING, "here", 1, "%d of %s", (1, "two"), None)
    record.created = 1767225600.25
    assert Formatter().format(record) == "2026-01-01T00:00:00.250Z warning 1 of two"
    error = RuntimeError("odd")
    record.exc_info = (RuntimeError, error, error.__traceback__)
    assert Formatter().format(record).endswith("RuntimeError: odd")


@pytest.mark.parametrize(
    ("level", "shown"),
    [
        ("debug", "registry.debug registry.info registry.warning access uvicorn.warning"),
        ("info", "registry.info registry.warning access uvicorn.warning"),
        ("warn", "registry.warning uvicorn.warning"),
        ("error", ""),
    ],
)
async def test_the_level_decides_what_is_told(level: str, shown: str) -> None:
    told = io.StringIO()
    with redirect_stderr(told):
        configure(level)
        for name in ("registry", "uvicorn"):
            for each in ("debug", "info", "warning"):
                getattr(logging.getLogger(name), each)(f"{name}.{each}")
        access = AccessLog()
        if access.enabled:
            access.add("access")
            access.flush()
    lines = told.getvalue().splitlines()
    assert all(re.fullmatch(rf"{TIME} (debug|info|warning) \S+", line) for line in lines)
    assert {line.split()[-1] for line in lines} == set(shown.split())


async def test_lines_of_requests_are_told_in_their_order_soon_and_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "registry.access")
    access = AccessLog()
    for number in range(1500):
        access.add(f"line {number}")
    while not caplog.text.rstrip().endswith("line 1499"):
        await asyncio.sleep(0.01)
    access.flush()
    lines = [line for record in caplog.records for line in record.getMessage().split("\n")]
    assert [line.partition(" info ")[2] for line in lines] == [f"line {number}" for number in range(1500)]
    assert len(caplog.records) < 10
