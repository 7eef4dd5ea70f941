"""`log`: what is written of each request and of what goes wrong."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from registry.config.values import Section, Unserved, lower


class AccessLog(Section):
    disabled: bool = False


class Log(Section):
    level: Annotated[Literal["error", "warn", "info", "debug"], BeforeValidator(lower)] = "info"
    formatter: Literal["text", "json", "logstash"] = "text"
    fields: dict[str, Any] = Field(default={})
    accesslog: AccessLog = AccessLog()
    hooks: Annotated[tuple[Any, ...], Unserved("no mail is sent: collect the log where it goes")] = ()
    reportcaller: Annotated[bool, Unserved("lines do not tell which code wrote them")] = False
