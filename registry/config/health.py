"""`health`: what is watched, and from when on the registry calls itself unwell."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated

from pydantic import Field

from registry.config.values import Duration, Interval, Secret, Section


class StorageDriverHealth(Section):
    enabled: bool = False
    interval: Interval = timedelta(seconds=10)
    threshold: Annotated[int, Field(ge=0)] = 3


class FileHealth(Section):
    """Unhealthy while the file is there."""

    file: Path
    interval: Interval = timedelta(seconds=10)
    threshold: Annotated[int, Field(ge=0)] = 0


class HttpHealth(Section):
    uri: str
    headers: dict[str, tuple[Secret, ...]] = Field(default={})
    statuscode: int = 200
    timeout: Duration = timedelta(0)
    interval: Interval = timedelta(seconds=10)
    threshold: Annotated[int, Field(ge=0)] = 0


class TcpHealth(Section):
    addr: str
    timeout: Duration = timedelta(0)
    interval: Interval = timedelta(seconds=10)
    threshold: Annotated[int, Field(ge=0)] = 0


class Health(Section):
    storagedriver: StorageDriverHealth = StorageDriverHealth()
    file: tuple[FileHealth, ...] = ()
    http: tuple[HttpHealth, ...] = ()
    tcp: tuple[TcpHealth, ...] = ()
