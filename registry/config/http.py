"""`http`: where the registry listens, and how it is spoken to."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator

from registry.config.tls import LetsEncrypt, Tls
from registry.config.values import Duration, Secret, Section, Unserved, lower

__all__ = ["Debug", "H2c", "Http", "Http2", "LetsEncrypt", "Prometheus", "Tls"]

_ADDRESS = re.compile(r"(\[[^\[\]]+\]|[^:\[\]]*):(\d{1,5})", re.ASCII)
_SEGMENTS = re.compile(r"(?:/(?!\.{1,2}(?:/|$))[\w.~!$&'()*+,;=:@-]+)*/?", re.ASCII)
_HEADER = re.compile(r"[!#$%&'*+.^_`|~\w-]+", re.ASCII)
_VALUE = re.compile(r"[\t\x20-\x7e\xa0-\xff]*")
# They tell where an answer ends, and when it was made: nobody else may.
_OURS = frozenset({"connection", "content-length", "date", "keep-alive", "trailer", "transfer-encoding", "upgrade"})


class Prometheus(Section):
    enabled: bool = Field(default=False, description="Whether Prometheus finds metrics at the debug address.")
    path: str = Field(default="/metrics", description="At which path.")


class Debug(Section):
    addr: str | None = Field(
        default=None,
        description="A second address, `HOST:PORT`, for operators alone: `/debug/health`, and metrics where enabled.",
    )
    prometheus: Prometheus = Prometheus()

    @field_validator("addr")
    @classmethod
    def _is_an_address(cls, addr: str | None) -> str | None:
        return host_and_port(addr) if addr else None


class Http2(Section):
    disabled: bool = Field(default=False, description="HTTP/2 is not spoken, whatever is said here.")


class H2c(Section):
    enabled: Annotated[bool, Unserved("HTTP/1.1 is spoken")] = Field(
        default=False, description="Whether HTTP/2 is spoken without TLS."
    )


class Http(Section):
    net: Annotated[Literal["tcp", "unix"], BeforeValidator(lower)] = Field(
        default="tcp",
        description="`unix`: `addr` is the path of a socket, made with the rights that the umask leaves, in place of "
        "one that nobody listens on any more, and removed at the end.",
    )
    addr: str = Field(
        default=":5000",
        validate_default=True,
        description="Where to listen, `HOST:PORT`. Without a host, or with `0.0.0.0` or `[::]`: on all addresses, "
        "IPv6 and IPv4, as Go does. Port 0 takes a free one, which the log tells.",
    )
    host: str | None = Field(
        default=None,
        description="The registry's address as its clients know it, like `https://registry.example.com`: what "
        "`Location` and `Link` begin with. With a path, it stands in place of `prefix`.",
    )
    prefix: str = Field(
        default="/", description="The path that everything is served below, like `/my/registry/`; all else is 404."
    )
    secret: Secret | None = Field(
        default=None,
        description="Distribution signs the state of uploads with it, and several instances have to share it. Here "
        "the state lies in storage, so nothing is signed: it may be given or not.",
    )
    relativeurls: bool | None = Field(
        default=None,
        description="Whether `Location` and `Link` are relative: `true` relative, `false` absolute, from the request's "
        "`Host` or what a trusted proxy tells. Where nothing is said they are relative, which holds behind every "
        "proxy; Distribution's are absolute then. `host` stands above either.",
    )
    draintimeout: Duration = Field(
        default=timedelta(seconds=30),
        description="How long running requests may take to end after SIGTERM or SIGINT; then they are cut. `0` cuts "
        "them at once, which Distribution does where nothing is said.",
    )
    tls: Tls = Tls()
    headers: dict[str, tuple[str, ...]] = Field(
        default={},
        description="Headers that every answer carries beside its own; one that an answer has itself is not doubled.",
    )
    debug: Debug = Debug()
    http2: Http2 = Http2()
    h2c: H2c = H2c()

    @field_validator("addr")
    @classmethod
    def _is_an_address(cls, addr: str, info: ValidationInfo) -> str:
        if info.data.get("net") != "unix":
            return host_and_port(addr)
        if not addr or "\0" in addr or ("/" not in addr and _ADDRESS.fullmatch(addr)):
            raise ValueError(f"expected the path of a socket, since http.net is unix, got {addr!r:.120}")
        return addr

    @field_validator("host")
    @classmethod
    def _is_an_url(cls, host: str | None) -> str | None:
        if not host:
            return None
        shown = f", got {host!r:.120}" if "@" not in host else ""  # or a password would stand in the message
        expected = f"expected a URL like https://registry.example.com{shown}"
        try:
            url = urlsplit(host)
            usable = url.scheme in ("http", "https") and url.hostname and url.port != 0
        except ValueError as error:
            raise ValueError(expected) from error
        if not usable or not _VALUE.fullmatch(host) or " " in host or url.query or url.fragment or "@" in url.netloc:
            raise ValueError(expected)
        return f"{url.scheme}://{url.netloc}{normal_prefix(url.path)[:-1]}"

    @field_validator("prefix")
    @classmethod
    def _is_a_path(cls, prefix: str) -> str:
        return normal_prefix(prefix)

    @field_validator("headers", mode="before")
    @classmethod
    def _lists_values(cls, headers: Any) -> Any:
        if not isinstance(headers, dict):
            return headers
        return {name: values if isinstance(values, list | tuple) else [values] for name, values in headers.items()}

    @field_validator("headers")
    @classmethod
    def _are_headers(cls, headers: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        for name, values in headers.items():
            if not _HEADER.fullmatch(name):
                raise ValueError(f"{name!r:.80} is no name of a header")
            if name.lower() in _OURS:
                raise ValueError(f"{name} is the server's own: expected another header")
            if not all(_VALUE.fullmatch(value) for value in values):
                raise ValueError(f"{name}: expected a value without control characters, in Latin-1")
        return headers

    @property
    def bound_host(self) -> str:
        """All interfaces where Go's `:5000` names none."""
        return self.addr.rpartition(":")[0].strip("[]") or "0.0.0.0"  # noqa: S104 - what Distribution does with :5000

    @property
    def bound_port(self) -> int:
        return int(self.addr.rpartition(":")[2])


def normal_prefix(path: str) -> str:
    """Returns a path of clean segments with a slash at both ends; `/` for none.

    Raises:
        ValueError: any other path.
    """
    if not _SEGMENTS.fullmatch(path):
        raise ValueError(f"expected a path like /my/registry/, got {path!r:.120}")
    return f"/{path.strip('/')}/" if path.strip("/") else "/"


def host_and_port(addr: str) -> str:
    """Returns the address as it is.

    Raises:
        ValueError: it is not `HOST:PORT`.
    """
    match = _ADDRESS.fullmatch(addr)
    if not match or int(match[2]) > 65535:
        raise ValueError(f"expected HOST:PORT, like 127.0.0.1:5000, got {addr!r:.120}")
    return addr
