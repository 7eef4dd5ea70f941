"""containerd's hosts.toml (containerd, "docs/hosts.md"): who stands in for a registry, in which order, and how.

`server`, `[host."URL"]` with `capabilities`, `ca`, `client`, `skip_verify`, `header`, `override_path` and `proxy`;
`dial_timeout` is left to the client. A folder without the file holds certificates, as docker has them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from client.hosts import certificates, proxies
from client.hosts.endpoint import Tls
from client.hosts.place import Place
from client.hosts.tables import Table

_CAPABILITIES = frozenset({"pull", "resolve", "push", "referrers"})
_FIELD_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", re.ASCII)
_FIELD_VALUE = re.compile(r"[\t -~\x80-\xff]*")


@dataclass(frozen=True, slots=True)
class Hosts:
    """What is told of one registry.

    Attributes:
        server: the registry's own place.
        mirrors: asked first, in this order.
    """

    server: Place
    mirrors: tuple[Place, ...] = ()


def find(roots: Iterable[Path], host: str) -> Hosts:
    """Reads what is told of `host`: in its folder `host_port_`, else `host:port`, else `_default`.

    Raises:
        ConfigurationError: naming file, key and what was expected.
    """
    name, colon, port = host.rpartition(":")
    names = [*([f"{name}_{port}_"] if colon else []), host, "_default"]
    for folder in (root / each for root in roots for each in names):
        if os.path.isdir(folder):  # noqa: PTH112 - Path.is_dir raises where a folder is closed
            return _read(folder, host)
    return Hosts(Place(host))


def _read(folder: Path, host: str) -> Hosts:
    root = Table.read(folder / "hosts.toml")
    if root is None or not root.members:
        return Hosts(Place(host, tls=certificates.read(folder) or Tls()))
    server, entries = root.text("server"), root.table("host")
    own = _place(root, server, root.where("server")) if server else Place(host)
    return Hosts(
        _told(root, own), tuple(_told(entries.table(url), _place(entries.table(url), url)) for url in entries.members)
    )


def _place(table: Table, url: str, where: str | None = None) -> Place:
    found = Place.parse(url, where or f"{table.file}: {table.name}", whole_path=table.flag("override_path"))
    return replace(found, scheme=found.scheme or "https")


def _told(table: Table, place: Place) -> Place:
    """Returns `place` with everything else that its table tells."""
    capabilities = frozenset(each.lower() for each in table.texts("capabilities")) or _CAPABILITIES
    if not capabilities <= _CAPABILITIES:
        raise table.wrong("capabilities", "pull, resolve, push")
    authorities = tuple(table.file.parent / each for each in table.texts("ca"))
    proxy = table.text("proxy")
    return replace(
        place,
        tls=Tls(authorities, _identities(table), verified=not table.flag("skip_verify")),
        proxy=proxies.parse(proxy, table.where("proxy")) if proxy else None,
        headers=_headers(table.table("header")),
        resolves="resolve" in capabilities,
        serves="pull" in capabilities,
        pushes="push" in capabilities,
    )


def _identities(table: Table) -> tuple[tuple[Path, Path], ...]:
    value: Any = table.members.get("client", [])
    entries = value if isinstance(value, list) else [value]
    return tuple(_identity(table, each) for each in entries)


def _identity(table: Table, entry: Any) -> tuple[Path, Path]:
    match entry:
        case str():
            certificate, key = entry, entry
        case [str(certificate), str(key)]:
            key = key or certificate
        case _:
            raise table.wrong("client", "a file, a list of files, or a list of pairs of certificate and key")
    return table.file.parent / certificate, table.file.parent / key


def _headers(table: Table) -> dict[str, str]:
    # Several values are one field (RFC 9110, section 5.3).
    headers = {name: ", ".join(table.texts(name)) for name in table.members}
    for name, value in headers.items():
        if not _FIELD_NAME.fullmatch(name) or not _FIELD_VALUE.fullmatch(value):
            raise table.wrong(name, "a header's name, and a value on one line")
    return headers
