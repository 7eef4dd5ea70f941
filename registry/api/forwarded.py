"""What a trusted proxy tells of the request that it hands on: the client's address, and what the client asked for.

`X-Forwarded-For`, `-Proto`, `-Host` and `-Prefix` are read, or, where none of them stands, `Forwarded` (RFC 7239):
a proxy that writes one kind hands the other on as the client sent it, and nearly all write the first. Who is no
trusted proxy tells nothing, and a header that is malformed says nothing: neither is ever an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from starlette.types import ASGIApp, Receive, Scope, Send

from registry import context
from registry.api.urls import HOST
from registry.config.http import normal_prefix

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address

_MOST_HOPS = 16
"""Proxies in a row that are followed; what stands left of them costs nothing."""
_SCHEMES = frozenset({"http", "https"})
_ANY = tuple(b"x-forwarded-" + name for name in (b"for", b"proto", b"host", b"prefix"))
_WORD = r"[!#$%&'*+.^_`|~\w-]+"
# More than a token: not every proxy quotes a port or the brackets of IPv6.
_VALUE = r"[!#$%&'*+.^_`|~\w\[\]:-]+"
_PAIR = rf'[ \t]*({_WORD})=(?:({_VALUE})|"((?:[^"\\]|\\.)*)")[ \t]*(?:;|$)'
_PAIRS = re.compile(_PAIR, re.ASCII | re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_NODE = re.compile(r"\[([0-9A-Fa-f:.]+)\](?::[\w.-]+)?|([0-9.]+)(?::[\w.-]+)?|([0-9A-Fa-f:.]+)", re.ASCII)


class ForwardedRequests:
    """Rewrites `client`, `scheme` and `Host` of a request by what trusted proxies tell; plain ASGI, before all else.

    Args:
        trusted: networks of the proxies. Who comes by a UNIX socket, and has no address, is one of them.
    """

    def __init__(self, app: ASGIApp, trusted: Iterable[Network]) -> None:
        self._app = app
        self._trusted = tuple(trusted)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            peer = scope["client"]
            if peer is None or self._trusts(node(peer[0])):
                self._rewrite(scope)
        await self._app(scope, receive, send)

    def _trusts(self, address: Address | None) -> bool:
        return address is not None and any(address in network for network in self._trusted)

    def _rewrite(self, scope: Scope) -> None:
        told = _told(scope)
        client, hops = self._client(told.clients)
        if client is not None:
            scope["client"] = (str(client), 0)
        scheme = _said(told.schemes, hops).lower()
        if scheme in _SCHEMES:
            scope["scheme"] = scheme
        host = _said(told.hosts, hops)
        if HOST.fullmatch(host):
            others = [(name, value) for name, value in scope["headers"] if name != b"host"]
            scope["headers"] = [(b"host", host.encode()), *others]
        try:
            context.set_taken_off(scope, normal_prefix(told.prefix)[:-1])
        except ValueError:
            return

    def _client(self, clients: Sequence[str]) -> tuple[Address | None, int]:
        """Returns the right-most address that is no trusted proxy's, and how many proxies told of it.

        Each proxy adds whom it was asked by at the right. What stands left of the first stranger is the stranger's
        own invention; where everybody is trusted, the left-most is who asked.
        """
        found: Address | None = None
        for hop, text in enumerate(reversed(clients), 1):
            address = node(text)
            if address is None:
                return found, hop
            found = address
            if not self._trusts(address):
                return found, hop
        return found, max(1, len(clients))


@dataclass(frozen=True, slots=True)
class _Told:
    """What the proxies tell, each at the right of the one before; an empty string where one tells nothing."""

    clients: Sequence[str]
    schemes: Sequence[str]
    hosts: Sequence[str]
    prefix: str = ""


def _told(scope: Scope) -> _Told:
    lines: dict[bytes, list[str]] = {}
    for name, value in scope["headers"]:
        lines.setdefault(name, []).append(value.decode("latin-1"))
    if any(name in lines for name in _ANY):
        clients, schemes, hosts, prefixes = (_listed(lines.get(name, [])) for name in _ANY)
        return _Told(clients, schemes, hosts, prefixes[-1] if prefixes else "")
    elements = [element(each) for each in _listed(lines.get(b"forwarded", []))]
    clients, schemes, hosts = ([each.get(name, "") for each in elements] for name in ("for", "proto", "host"))
    return _Told(clients, schemes, hosts)


def _listed(lines: Sequence[str]) -> list[str]:
    # A comma inside of quotes divides too: none of what is read here has one, and a client that opens a quote, in
    # front of what a proxy adds, would hide what follows.
    return [each.strip() for each in ",".join(lines).rsplit(",", _MOST_HOPS)] if lines else []


def _said(values: Sequence[str], hops: int) -> str:
    """What the outermost proxy said: `hops` from the right, or the left-most where fewer said anything."""
    return values[-min(hops, len(values))] if values else ""


def element(text: str) -> dict[str, str]:
    """Reads one element of `Forwarded` (RFC 7239, section 4), names in lower case; nothing where it is malformed."""
    pairs: dict[str, str] = {}
    position = 0
    while position < len(text):
        match = _PAIRS.match(text, position)
        if not match:
            return {}
        name, token, quoted = match.groups()
        pairs[name.lower()] = token if token is not None else _ESCAPED.sub(r"\1", quoted)
        position = match.end()
    return pairs


def node(text: str) -> Address | None:
    """Reads an address, with a port or without; None for what is none (`unknown`, `_hidden`, RFC 7239, section 6)."""
    match = _NODE.fullmatch(text)
    if not match:
        return None
    try:
        address = ip_address(match[1] or match[2] or match[3])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
