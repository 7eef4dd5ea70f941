"""`notifications`: who is told of what happens."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from pydantic import Field

from registry.config.values import Duration, Interval, Secret, Section


class Ignore(Section):
    mediatypes: tuple[str, ...] = ()
    actions: tuple[str, ...] = ()


class Endpoint(Section):
    """Somebody who is told of what happens."""

    name: str
    url: str
    disabled: bool = False
    headers: dict[str, tuple[Secret, ...]] = Field(default={})
    timeout: Interval = timedelta(seconds=1)
    threshold: Annotated[int, Field(gt=0)] = 10
    backoff: Duration = timedelta(seconds=1)
    ignoredmediatypes: tuple[str, ...] = ()
    ignore: Ignore = Ignore()


class EventContent(Section):
    includereferences: bool = False


class Notifications(Section):
    endpoints: tuple[Endpoint, ...] = ()
    events: EventContent = EventContent()
