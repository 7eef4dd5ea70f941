"""Logging through the standard library, at a cost that is small beside that of a request.

One record is one line, in each of Distribution's formats: `text` (`time="…" level=info msg="…" name=value`), `json`
(the same names) and `logstash` (`@timestamp`, `@version`, `level`, `message`, `type`). structlog renders what is
logged here and there; a request's line is put together by hand in the same shape, because it is one for each request.
Names of fields are Distribution's. What a client sends is quoted: nobody writes a line or a field of his own. A
traceback is one field of JSON, and in text the lines after its record, each behind a tab.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from functools import partial
from json.encoder import encode_basestring_ascii as quoted
from typing import Any

from registry.config.log import Log

_LEVELS = {"error": logging.ERROR, "warn": logging.WARNING, "info": logging.INFO, "debug": logging.DEBUG}
_GATHER_SECONDS = 0.05
_GATHER_LINES = 512
_PLAIN = re.compile(r"[\w.@/^+-]+", re.ASCII)
_NO_NAME = re.compile(r"[^\w.@/-]", re.ASCII)
_CONTROL = re.compile(r"[^\t -~]")
_REQUEST = (
    "http.request.method",
    "http.request.uri",
    "http.response.status",
    "http.response.written",
    "http.response.duration",
    "http.request.remoteaddr",
    "http.request.host",
    "http.request.useragent",
    "http.request.id",
)
_USER = "auth.user.name"

_Event = MutableMapping[str, Any]


class Clock:
    """Renders times as `2026-01-31T12:00:00.123Z`, each second once."""

    def __init__(self) -> None:
        self._second = -1
        self._text = ""

    def render(self, now: float) -> str:
        second = int(now)
        if second != self._second:
            self._text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
            self._second = second
        return f"{self._text}.{int((now - second) * 1000):03}Z"


@dataclass(frozen=True, slots=True)
class Shape:
    """How a line looks.

    Attributes:
        time, message: the names that these fields have.
        fields: what stands in every line.
        is_json: whether a line is a JSON object; else `name=value` pairs.
    """

    time: str
    message: str
    fields: Mapping[str, Any]
    is_json: bool

    @classmethod
    def of(cls, log: Log) -> Shape:
        shape = cls("time", "msg", {}, is_json=log.formatter != "text")
        if log.formatter == "logstash":
            shape = cls("@timestamp", "message", {"@version": "1", "type": "log"}, is_json=True)
        # As logrus has it, a field of somebody's own does not take the place of one of these.
        taken = {shape.time, shape.message, "level", "exception"}
        own = {f"fields.{name}" if name in taken else name: value for name, value in log.fields.items()}
        return cls(shape.time, shape.message, {**shape.fields, **own}, shape.is_json)

    def join(self, fields: Mapping[str, str]) -> str:
        """Puts fields together whose values are rendered."""
        if self.is_json:
            return f"{{{','.join(f'{quoted(name)}:{value}' for name, value in fields.items())}}}"
        return " ".join(f"{_NO_NAME.sub('_', name)}={value}" for name, value in fields.items())

    def value(self, value: Any) -> str:
        """Renders the value of a field; quoted where it is a text, but for plain words in the format `text`."""
        if isinstance(value, str) and not self.is_json and _PLAIN.fullmatch(value):
            return value
        rendered = json.dumps(value, default=str)
        return quoted(rendered) if isinstance(value, dict | list | tuple) and not self.is_json else rendered


def formatter(shape: Shape) -> logging.Formatter:
    """Returns what renders the records of the standard library in `shape`."""
    import structlog  # noqa: PLC0415 - a tenth of a second, for those who only ask for help

    clock = Clock()

    def ordered(_logger: Any, _name: str, event: _Event) -> _Event:
        record = event.pop("_record")
        event.pop("_from_structlog")
        said = {shape.time: clock.render(record.created), "level": record.levelname.lower()}
        return {**said, shape.message: event.pop("event"), **shape.fields, **event}

    as_json = structlog.processors.JSONRenderer(separators=(",", ":"), default=str)
    chain = (structlog.processors.format_exc_info, ordered, as_json if shape.is_json else partial(_text, shape))
    return structlog.stdlib.ProcessorFormatter(processors=chain)


def _text(shape: Shape, _logger: Any, _name: str, event: _Event) -> str:
    trace = event.pop("exception", "")
    line = shape.join({name: shape.value(value) for name, value in event.items()})
    return "\n\t".join([line, *(_CONTROL.sub(_escaped, each) for each in trace.splitlines())])


def _escaped(match: re.Match[str]) -> str:
    return quoted(match[0])[1:-1]


class AccessLog:
    """One line a request, handed on together with those of the next 50 ms.

    A record of the standard library's costs as much as answering a manifest: here many lines share one. `kill -9` may
    take the last 50 ms of lines away; `flush` hands on what is left.
    """

    def __init__(self, log: Log) -> None:
        self._logger = logging.getLogger("registry.access")
        self._disabled = log.accesslog.disabled
        self._clock = Clock()
        self._lines: list[str] = []
        self._shape = Shape.of(log)
        self._template = _template(self._shape)
        self._template_of_users = _template(self._shape, _USER)

    @property
    def enabled(self) -> bool:
        return not self._disabled and self._logger.isEnabledFor(logging.INFO)

    def add(
        self,
        *,
        method: str,
        uri: str,
        status: int,
        written: int,
        seconds: float,
        address: str,
        host: str,
        agent: str,
        request_id: str,
        user: str | None = None,
        more: Mapping[str, str],
    ) -> None:
        """Adds a request's line, on the event loop's thread.

        `uri` holds nothing secret; a `status` of 0 says that the client left before there was one; `written` are the
        bytes of the answer's body; `address` is `host:port`; `user` is who asked, where that is known; `more` are
        fields of few lines only.
        """
        if not self._lines:
            asyncio.get_running_loop().call_later(_GATHER_SECONDS, self.flush)
        said = (
            self._clock.render(time.time()),
            "error" if status >= 500 else "info",
            quoted(method),
            quoted(uri),
            status,
            written,
            f'"{seconds * 1000:.3f}ms"',
            quoted(address),
            quoted(host),
            quoted(agent),
            quoted(request_id),
        )
        line = self._template % said if user is None else self._template_of_users % (*said, quoted(user))
        self._lines.append(self._with(line, more) if more else line)
        if len(self._lines) >= _GATHER_LINES:
            self.flush()

    def flush(self) -> None:
        lines, self._lines = self._lines, []
        if lines:
            self._logger.info("%s", "\n".join(lines))

    def _with(self, line: str, more: Mapping[str, str]) -> str:
        fields = self._shape.join({name: quoted(value) for name, value in more.items()})
        return f"{line[:-1]},{fields[1:]}" if self._shape.is_json else f"{line} {fields}"


def _template(shape: Shape, *more: str) -> str:
    """The line of a request, with a `%s` for each value."""
    # In text, a name loses its `%` anyhow.
    names = {name: name.replace("%", "%%" if shape.is_json else "_") for name in shape.fields}
    fixed = {names[name]: shape.value(value).replace("%", "%%") for name, value in shape.fields.items()}
    said = {shape.time: '"%s"', "level": '"%s"' if shape.is_json else "%s", shape.message: '"response completed"'}
    return shape.join({**said, **fixed, **dict.fromkeys((*_REQUEST, *more), "%s")})


def configure(log: Log) -> None:
    """Sends the records of this process to stderr, as `log` says."""
    rendering, level = formatter(Shape.of(log)), _LEVELS[log.level]
    # Of libraries, what went wrong: at their lower levels they tell of each request, or that something is tried again.
    lowest = {"registry": logging.DEBUG, "uvicorn": logging.WARNING, "stamina": logging.ERROR, "": logging.WARNING}
    for name, least in lowest.items():
        _send(name, rendering, max(least, level))
    _send("registry.access", logging.Formatter("%(message)s"), level)


def _send(name: str, rendering: logging.Formatter, level: int) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(rendering)
    logger = logging.getLogger(name)
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(level)
