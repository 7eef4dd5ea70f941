"""The log's lines, as an operator's tools read them."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import re
import sys
import time
from collections.abc import Iterator
from contextlib import redirect_stderr
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.config.log import Log
from registry.observing.logs import AccessLog, Clock, Shape, configure, formatter

NAMES = ("", "registry", "registry.access", "uvicorn")
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
PAIR = re.compile(r'([\w.@/-]+)=("(?:[^"\\]|\\.)*"|[^\s"]*)', re.ASCII)
REQUEST = {
    "method": "GET",
    "uri": "/v2/",
    "status": 200,
    "written": 2,
    "seconds": 0.0012345,
    "address": "192.0.2.1:40000",
    "host": "registry.test",
    "agent": "docker/29",
    "request_id": "ab-1",
    "more": {},
}
anything = st.text(st.characters(codec="utf-8"), max_size=40)
sent = st.dictionaries(st.sampled_from(["method", "uri", "address", "host", "agent", "request_id"]), anything)


@pytest.fixture(autouse=True)
def untouched() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in NAMES]
    before = [(each.handlers, each.propagate, each.level) for each in loggers]
    yield
    for logger, (handlers, propagate, level) in zip(loggers, before, strict=True):
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)


def pairs(line: str) -> dict[str, str]:
    """A line of `name=value` pairs, as a reader of logfmt takes it apart; nothing but pairs may stand in it."""
    assert re.fullmatch(rf"{PAIR.pattern}(?: {PAIR.pattern})*", line, re.ASCII), line
    return {name: json.loads(value) if value.startswith('"') else value for name, value in PAIR.findall(line)}


def read(line: str, kind: str) -> dict[str, Any]:
    found: dict[str, Any] = pairs(line) if kind == "text" else json.loads(line)
    if kind == "logstash":
        assert (found.pop("@version"), found.pop("type")) == ("1", "log")
        found["time"], found["msg"] = found.pop("@timestamp"), found.pop("message")
    return found


def told(log: Log, *, error: Exception | None = None, message: str = "%s", args: tuple[Any, ...] = ("one",)) -> str:
    record = logging.LogRecord("registry", logging.WARNING, "here", 1, message, args, None)
    record.created = 1767225600.25
    if error is not None:
        record.exc_info = (type(error), error, error.__traceback__)
    return formatter(Shape.of(log)).format(record)


async def entered(log: Log, **request: Any) -> str:
    """The line of one request, on stderr."""
    out = io.StringIO()
    with redirect_stderr(out):
        configure(log)
        access = AccessLog(log)
        access.add(**{**REQUEST, **request})
        access.flush()
    return out.getvalue().removesuffix("\n")


def failing(text: str) -> Exception:
    with pytest.raises(RuntimeError) as raised:
        raise RuntimeError(text)
    return raised.value


@given(st.lists(st.floats(0, 4e9)))
def test_every_time_is_rendered_to_the_millisecond_whatever_came_before(times: list[float]) -> None:
    clock = Clock()
    for each in times:
        whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(int(each)))
        assert re.fullmatch(rf"{whole}\.\d{{3}}Z", clock.render(each))


def test_the_formats_are_those_that_tools_for_distribution_read() -> None:
    fields = {"env": "a b", "zone": 3}
    at = "2026-01-01T00:00:00.250Z"
    assert told(Log(fields=fields)) == f'time="{at}" level=warning msg=one env="a b" zone=3'
    as_json = {"time": at, "level": "warning", "msg": "one", **fields}
    assert told(Log(formatter="json", fields=fields)) == json.dumps(as_json, separators=(",", ":"))
    logstash = {"@timestamp": at, "@version": "1", "type": "log", "level": "warning", "message": "one", **fields}
    assert json.loads(told(Log(formatter="logstash", fields=fields))) == logstash


@pytest.mark.parametrize("kind", ["text", "json", "logstash"])
async def test_a_request_has_distributions_fields_in_the_chosen_format(kind: str) -> None:
    log = Log(formatter=kind, fields={"env": "100% a", "of%s": [1]})
    line = read(await entered(log, user="ann", more={"err.code": "UNKNOWN"}), kind)
    assert re.fullmatch(TIME, line.pop("time"))
    assert line.pop("of_s" if kind == "text" else "of%s") in ([1], "[1]")
    written = {"http.response.status": 200, "http.response.written": 2}
    assert line == {
        "level": "info",
        "msg": "response completed",
        "env": "100% a",
        "http.request.method": "GET",
        "http.request.uri": "/v2/",
        "http.response.duration": "1.234ms",
        "http.request.remoteaddr": "192.0.2.1:40000",
        "http.request.host": "registry.test",
        "http.request.useragent": "docker/29",
        "http.request.id": "ab-1",
        "auth.user.name": "ann",
        "err.code": "UNKNOWN",
    } | {name: str(value) if kind == "text" else value for name, value in written.items()}


async def test_a_request_that_failed_by_our_fault_is_an_error() -> None:
    levels = [json.loads(await entered(Log(formatter="json"), status=status))["level"] for status in (404, 500, 503)]
    assert levels == ["info", "error", "error"]


@pytest.mark.parametrize("kind", ["text", "json", "logstash"])
@given(sent, anything)
async def test_nobody_writes_a_line_or_a_field_of_his_own(kind: str, said: dict[str, str], name: str) -> None:
    line = await entered(Log(formatter=kind), **said, user=name, more={"err.message": name})
    assert line.isascii()
    assert line.isprintable()
    found = read(line, kind)
    names = {"request_id": "id", "agent": "useragent", "address": "remoteaddr"}
    assert len(found) == 3 + 9 + 2
    assert found["auth.user.name"] == found["err.message"] == name
    assert all(found[f"http.request.{names.get(each, each)}"] == value for each, value in said.items())


@pytest.mark.parametrize("kind", ["text", "json", "logstash"])
@given(anything, st.dictionaries(anything.filter(bool), anything, max_size=3))
def test_a_message_and_the_fields_stay_within_their_line(kind: str, message: str, fields: dict[str, str]) -> None:
    line = told(Log(formatter=kind, fields=fields), args=(message,))
    assert line.isascii()
    assert line.isprintable()
    assert read(line, kind)["msg"] == message


@given(anything)
def test_a_traceback_is_one_field_of_json_and_in_text_stands_behind_tabs(text: str) -> None:
    error = failing(f"odd\n{text}")
    line = told(Log(formatter="json"), error=error)
    assert line.isprintable()
    assert "Traceback" in json.loads(line)["exception"]
    first, *rest = re.split(r"[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]", told(Log(), error=error))
    assert pairs(first)["msg"] == "one"
    assert "Traceback" in rest[0]
    assert all(each.startswith("\t") and each.replace("\t", " ").isprintable() for each in rest)


def test_a_field_of_somebodys_own_takes_no_other_ones_place() -> None:
    line = told(Log(fields={"msg": "mine", "level": "mine", "time": "mine", "message": "free"}))
    assert pairs(line) == {
        "time": "2026-01-01T00:00:00.250Z",
        "level": "warning",
        "msg": "one",
        "fields.msg": "mine",
        "fields.level": "mine",
        "fields.time": "mine",
        "message": "free",
    }


@pytest.mark.parametrize(
    ("level", "shown"),
    [
        ("debug", "registry.debug registry.info registry.warning access uvicorn.warning httpx.warning"),
        ("info", "registry.info registry.warning access uvicorn.warning httpx.warning"),
        ("warn", "registry.warning uvicorn.warning httpx.warning"),
        ("error", ""),
    ],
)
async def test_the_level_decides_what_is_told(level: str, shown: str) -> None:
    out = io.StringIO()
    with redirect_stderr(out):
        log = Log(level=level)
        configure(log)
        for name in ("registry", "uvicorn", "httpx"):
            for each in ("debug", "info", "warning"):
                getattr(logging.getLogger(name), each)(f"{name}.{each}")
        access = AccessLog(log)
        if access.enabled:
            access.add(**REQUEST)
            access.flush()
    said = [pairs(line)["msg"] for line in out.getvalue().splitlines()]
    assert {each.replace("response completed", "access") for each in said} == set(shown.split())


def test_the_access_log_can_be_left_out() -> None:
    configure(Log())
    assert AccessLog(Log()).enabled
    assert not AccessLog(Log.model_validate({"accesslog": {"disabled": True}})).enabled


async def test_lines_of_requests_are_told_in_their_order_soon_and_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "registry.access")
    access = AccessLog(Log())
    for number in range(1500):
        access.add(**{**REQUEST, "request_id": f"n-{number}"})
    while '"n-1499"' not in caplog.text:
        await asyncio.sleep(0.01)
    access.flush()
    lines = [line for record in caplog.records for line in record.getMessage().split("\n")]
    assert [pairs(line)["http.request.id"] for line in lines] == [f"n-{number}" for number in range(1500)]
    assert len(caplog.records) < 10


def test_nothing_of_structlog_is_loaded_until_something_is_logged() -> None:
    import subprocess

    program = "import sys, registry.observing.logs; sys.exit('structlog' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
