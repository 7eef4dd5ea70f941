"""Addresses of this registry as the client reaches it: what stands in `Location` and `Link`, and in events."""

from __future__ import annotations

import re
from dataclasses import dataclass

from starlette.requests import HTTPConnection

from registry import context
from registry.config.http import Http

HOST = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?", re.ASCII)
"""What a client may give as `Host`: a name, an IPv4 address, or an IPv6 address in brackets, and a port."""


@dataclass(frozen=True, slots=True)
class Urls:
    """How addresses are written.

    Attributes:
        base: scheme, host and path that all of them begin with; None to write what the request tells.
        prefix: the path that everything is served below, with a slash at both ends.
        relative: whether they are a path only where `base` says nothing. RFC 9110, section 10.2.2, allows it, and it
            holds behind every proxy that does not tell how it was asked.
    """

    base: str | None
    prefix: str
    relative: bool

    @classmethod
    def of(cls, http: Http) -> Urls:
        base = http.host
        if base and base.count("/") == 2:
            base += http.prefix.rstrip("/")
        return cls(base, http.prefix, http.relativeurls is not False)

    def location(self, scope: context.Scope, path: str) -> str:
        """Returns the address of `path` (`/v2/…`) as `http.host` and `http.relativeurls` ask for it."""
        if self.base or not self.relative:
            return self.absolute(scope, path)
        return self._below(scope, path)

    def absolute(self, scope: context.Scope, path: str) -> str:
        """Returns it with scheme and host; without, where the client gave no host that is one."""
        if self.base:
            return self.base + path
        host = context.header(scope, b"host")
        path = self._below(scope, path)
        return f"{scope['scheme']}://{host}{path}" if HOST.fullmatch(host) else path

    def _below(self, scope: context.Scope, path: str) -> str:
        return context.taken_off(scope) + self.prefix[:-1] + path


def location(connection: HTTPConnection, path: str) -> str:
    """Returns the address of `path` (`/v2/…`) for the answer to a request."""
    urls: Urls = connection.app.state.urls
    return urls.location(connection.scope, path)
