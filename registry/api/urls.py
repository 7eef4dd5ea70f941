"""What stands in `Location` and `Link`: addresses of this registry as the client reaches it."""

from __future__ import annotations

from starlette.requests import HTTPConnection


def location(_connection: HTTPConnection, path: str) -> str:
    """Returns the address of `path` (`/v2/…`): relative, which holds behind every proxy (RFC 9110, section 10.2.2)."""
    return path
