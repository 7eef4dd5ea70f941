"""`health`: what is watched, and from when on the registry calls itself unwell."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, field_validator

from registry.config.http import host_and_port
from registry.config.values import Duration, Secret, Section

_TEN_SECONDS = timedelta(seconds=10)
_Interval = Annotated[Duration, AfterValidator(lambda given: given or _TEN_SECONDS)]
_INTERVAL = Field(default=_TEN_SECONDS, description="How long until the next look; `0`: 10 seconds.")
_THRESHOLD = Field(
    default=0, description="How many looks in a row have to fail until the registry is unwell; 0 and 1: the first does."
)
_TIMEOUT = Field(default=timedelta(0), description="How long an answer may take; `0`: 30 seconds.")


class StorageDriverHealth(Section):
    enabled: bool = Field(
        default=False,
        description="Whether to look if storage can be written to and read; read only, where the registry is. "
        "A disk without space is no failure: what is there can be pulled.",
    )
    interval: _Interval = _INTERVAL
    threshold: Annotated[int, Field(ge=0)] = _THRESHOLD


class FileHealth(Section):
    """Unhealthy while the file is there."""

    file: Path = Field(description="The file; make it to take the registry out of service.")
    interval: _Interval = _INTERVAL
    threshold: Annotated[int, Field(ge=0)] = _THRESHOLD


class HttpHealth(Section):
    uri: str = Field(description="What `HEAD` is asked of, following redirects.")
    headers: dict[str, tuple[Secret, ...]] = Field(default={}, description="Headers of the request.")
    statuscode: Annotated[int, Field(ge=100, le=599)] = Field(default=200, description="The status that is expected.")
    timeout: Duration = _TIMEOUT
    interval: _Interval = _INTERVAL
    threshold: Annotated[int, Field(ge=0)] = _THRESHOLD


class TcpHealth(Section):
    addr: str = Field(description="The address that has to take a connection, `HOST:PORT`.")
    timeout: Duration = _TIMEOUT
    interval: _Interval = _INTERVAL
    threshold: Annotated[int, Field(ge=0)] = _THRESHOLD

    @field_validator("addr")
    @classmethod
    def _is_an_address(cls, addr: str) -> str:
        return host_and_port(addr)


class Health(Section):
    storagedriver: StorageDriverHealth = StorageDriverHealth()
    file: tuple[FileHealth, ...] = ()
    http: tuple[HttpHealth, ...] = ()
    tcp: tuple[TcpHealth, ...] = ()
