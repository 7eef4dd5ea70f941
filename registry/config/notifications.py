"""`notifications`: who is told of what happens."""

from __future__ import annotations

import re
from collections import Counter
from datetime import timedelta
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, field_validator

from registry.config.values import Duration, Secret, Section

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, section 5.6.2
_SECOND = timedelta(seconds=1)
_THRESHOLD = 10


class Ignore(Section):
    """Which events an endpoint is not told of."""

    mediatypes: tuple[str, ...] = Field(
        default=(), description="Media types of the target; blobs are application/octet-stream, a delete has none."
    )
    actions: tuple[Literal["pull", "push", "mount", "delete"], ...] = Field(
        default=(), description="What happens: any of pull, push, mount, delete."
    )


class Endpoint(Section):
    """Somebody who is told of what happens."""

    name: Annotated[str, Field(min_length=1)] = Field(
        description="Names the endpoint in the queue, the log and the metrics; its events stay when the URL changes."
    )
    url: str = Field(description="Where events are posted to: http or https.")
    disabled: bool = Field(
        default=False, description="Nothing is queued for the endpoint, and nothing sent; what is queued is kept."
    )
    headers: dict[str, tuple[Secret, ...]] = Field(
        default={}, description="Headers of each request, each name with a list of values. They are never logged."
    )
    timeout: Annotated[Duration, AfterValidator(lambda given: given or _SECOND)] = Field(
        default=_SECOND, description="How long the endpoint may take to answer; 0 is one second."
    )
    threshold: Annotated[int, Field(ge=0), AfterValidator(lambda given: given or _THRESHOLD)] = Field(
        default=_THRESHOLD, description="After how many failures in a row there is a pause before each try; 0 is 10."
    )
    backoff: Annotated[Duration, AfterValidator(lambda given: given or _SECOND)] = Field(
        default=_SECOND, description="How long that pause is; 0 is one second."
    )
    ignoredmediatypes: tuple[str, ...] = Field(default=(), description="As ignore.mediatypes; both count.")
    ignore: Ignore = Field(default=Ignore(), description="Which events the endpoint is not told of.")

    @field_validator("url")
    @classmethod
    def _leads_somewhere(cls, url: str) -> str:
        try:
            parts = urlsplit(url)
            leads = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            leads = False
        if not leads:
            raise ValueError("expected an address like https://host/path")
        return url

    @field_validator("headers", mode="before")
    @classmethod
    def _lists_values(cls, headers: Any) -> Any:
        if not isinstance(headers, dict):
            return headers
        return {name: values if isinstance(values, list | tuple) else [values] for name, values in headers.items()}

    @field_validator("headers")
    @classmethod
    def _are_headers(cls, headers: dict[str, tuple[Secret, ...]]) -> dict[str, tuple[Secret, ...]]:
        for name, values in headers.items():
            if not _TOKEN.fullmatch(name):
                raise ValueError(f"{name!r:.80} is no name of a header")
            for each in values:
                text = each.get_secret_value()
                # What an HTTP library refuses, it shows in its message.
                if not (text.isascii() and text.isprintable() and text == text.strip()):
                    raise ValueError(f"{name}: expected printable ASCII without blanks around it")
        return headers


class EventContent(Section):
    """What events tell."""

    includereferences: bool = Field(
        default=False, description="Whether the events of a manifest list the descriptors that stand in it."
    )


class Notifications(Section):
    """Who is told of what happens (`docs/notifications.md`)."""

    endpoints: tuple[Endpoint, ...] = Field(default=(), description="Whom events are posted to.")
    events: EventContent = Field(default=EventContent(), description="What events tell.")

    @field_validator("endpoints")
    @classmethod
    def _have_names_of_their_own(cls, endpoints: tuple[Endpoint, ...]) -> tuple[Endpoint, ...]:
        name, count = next(iter(Counter(each.name for each in endpoints).most_common(1)), ("", 0))
        if count > 1:
            raise ValueError(f"{count} endpoints are named {name!r:.80}: expected a name of its own for each")
        return endpoints
