"""`log`: what is written of each request and of what goes wrong."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from registry.config.values import Section, Unserved, lower


class AccessLog(Section):
    disabled: bool = Field(default=False, description="Whether the line that each request leaves is left out.")


class Log(Section):
    level: Annotated[Literal["error", "warn", "info", "debug"], BeforeValidator(lower)] = Field(
        default="info", description="The least severity that is written; requests are `info`."
    )
    formatter: Literal["text", "json", "logstash"] = Field(
        default="text",
        description="How a line looks: `key=value` pairs, a JSON object, or a JSON object as Logstash reads it.",
    )
    fields: dict[str, Any] = Field(default={}, description="Names and values that stand in every line.")
    accesslog: AccessLog = AccessLog()
    hooks: Annotated[tuple[Any, ...], Unserved("no mail is sent: collect the log where it goes")] = Field(
        default=(), description="Mails that Distribution sends of serious lines."
    )
    reportcaller: Annotated[bool, Unserved("lines do not tell which code wrote them")] = Field(
        default=False, description="Whether a line names the code that wrote it."
    )
