"""`http`: where the registry listens, and how it is spoken to."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator

from registry.config.values import Duration, Secret, Section, Unserved, lower

_ADDRESS = re.compile(r"(\[[^\[\]]+\]|[^:\[\]]*):(\d{1,5})", re.ASCII)


class LetsEncrypt(Section):
    cachefile: str | None = None
    email: str | None = None
    hosts: tuple[str, ...] = ()
    directoryurl: str | None = None


class Tls(Section):
    certificate: Path | None = None
    key: Path | None = None
    clientcas: tuple[Path, ...] = ()
    clientauth: Literal[
        "request-client-cert",
        "require-any-client-cert",
        "verify-client-cert-if-given",
        "require-and-verify-client-cert",
    ] = "require-and-verify-client-cert"
    minimumtls: Literal["tls1.0", "tls1.1", "tls1.2", "tls1.3"] = "tls1.2"
    ciphersuites: tuple[str, ...] = ()
    letsencrypt: LetsEncrypt | None = None


class Prometheus(Section):
    enabled: bool = False
    path: str = "/metrics"


class Debug(Section):
    addr: str | None = None
    prometheus: Prometheus = Prometheus()


class Http2(Section):
    disabled: bool = False


class H2c(Section):
    enabled: Annotated[bool, Unserved("HTTP/1.1 is spoken")] = False


class Http(Section):
    addr: str = ":5000"
    net: Annotated[Literal["tcp", "unix"], BeforeValidator(lower)] = "tcp"
    host: str | None = None
    prefix: str = "/"
    secret: Secret | None = None
    relativeurls: bool | None = None
    draintimeout: Duration = timedelta(seconds=30)
    tls: Tls = Tls()
    headers: dict[str, tuple[str, ...]] = Field(default={})
    debug: Debug = Debug()
    http2: Http2 = Http2()
    h2c: H2c = H2c()

    @field_validator("addr")
    @classmethod
    def _is_an_address(cls, addr: str) -> str:
        match = _ADDRESS.fullmatch(addr)
        if not match or int(match[2]) > 65535:
            raise ValueError(f"expected HOST:PORT, like 127.0.0.1:5000, got {addr!r:.120}")
        return addr

    @property
    def bound_host(self) -> str:
        """All interfaces where Go's `:5000` names none."""
        return self.addr.rpartition(":")[0].strip("[]") or "0.0.0.0"  # noqa: S104 - what Distribution does with :5000

    @property
    def bound_port(self) -> int:
        return int(self.addr.rpartition(":")[2])

    @field_validator("headers", mode="before")
    @classmethod
    def _lists_values(cls, headers: Any) -> Any:
        if not isinstance(headers, dict):
            return headers
        return {name: values if isinstance(values, list | tuple) else [values] for name, values in headers.items()}
