"""Where a registry's repositories are reached, and over which connections.

Endpoints are asked in this order, each place once:
1. `--mirror`, as given;
2. `[host]` of containerd's hosts.toml, in the file's order;
3. `[[registry.mirror]]` of containers' registries.conf, in the file's order;
4. the registry itself: where registries.conf says its location is, else hosts.toml's `server`, else its own host.

Mirrors of 1 and 2, and a `server` elsewhere, are told in `ns` which registry is meant, as containerd does; those of
registries.conf are not, as their location says it all.

https is spoken, save to this machine (localhost, 127.0.0.0/8, [::1]), where certificates or hosts.toml may call for it.
`plain_http` is for the registry itself, and for mirrors of 1 that come without a scheme. `insecure`, of the call or of
registries.conf, takes any certificate, and where nobody named a scheme adds an endpoint that speaks http, behind the
one that speaks https.

What TLS to a host takes, its authorities and client certificates, stands in the host's own folder of certificates and
in hosts.toml. As with docker, skopeo and containerd, where a registry leads to (a redirect, a token server) its
authorities and its `insecure` hold too, unless that host has settings of its own; but its client certificates, and
its proxy, are for the registry alone.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from client.hosts import certificates, containerd, proxies, registries
from client.hosts.endpoint import Endpoint, Route, Tls
from client.hosts.place import Place, dialled, folder_names, local
from ocispec.reference import RepositoryName
from storage.threads import finish

_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Folders:
    """Where the files of other programs are looked for.

    Attributes:
        user: the user's folder of settings, which comes first.
        system: the machine's.
    """

    user: Path
    system: Path = Path("/etc")

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Folders:
        home = environ.get("XDG_CONFIG_HOME") or os.path.join(environ.get("HOME") or "~", ".config")  # noqa: PTH118
        return cls(Path(os.path.expanduser(home)))  # noqa: PTH111 - Path.expanduser raises where there is no home

    @property
    def hosts(self) -> tuple[Path, ...]:
        """Folders of containerd's folders, one a registry."""
        return self.user / "containerd/certs.d", self.system / "containerd/certs.d"

    @property
    def certificates(self) -> tuple[Path, ...]:
        """Folders of folders with certificates, one a host, of containers and docker."""
        return tuple(each / name / "certs.d" for name in ("containers", "docker") for each in (self.user, self.system))

    @property
    def registries(self) -> tuple[Path, ...]:
        """Folders of registries.conf and registries.conf.d."""
        return self.user / "containers", self.system / "containers"


class Hosts:
    """Reads other programs' files when they are first needed, in a thread, each once.

    Args:
        mirrors: URLs, `[http[s]://]host[:port][/path]`, asked first for any image.
        plain_http: speak http to the registry itself, and to `mirrors` without a scheme.
        insecure: take any certificate, and http from a host that speaks no https.
        environ: the variables that count.
        folders: where files are looked for.
    """

    def __init__(
        self,
        *,
        mirrors: tuple[str, ...] = (),
        plain_http: bool = False,
        insecure: bool = False,
        environ: Mapping[str, str] = os.environ,
        folders: Folders | None = None,
    ) -> None:
        self._mirrors = mirrors
        self._plain_http = plain_http
        self._insecure = insecure
        self._environ = environ
        self._folders = folders or Folders.of(environ)
        self._reading = asyncio.Lock()
        self._registries: registries.Registries | None = None
        self._hosts: dict[str, containerd.Hosts] = {}
        self._tls: dict[tuple[str, int], Tls] = {}
        self._named: dict[tuple[str, int], Route] = {}

    async def endpoints(self, host: str, repository: RepositoryName) -> tuple[Endpoint, ...]:
        """Returns the endpoints of a repository in the order in which they are asked; see the head of this file.

        Raises:
            ConfigurationError: a file or an option is wrong, or blocks the repository.
        """
        async with self._reading:
            return await finish(self._endpoints, host, repository)

    async def route(self, scheme: str, host: str, port: int | None, *, behind: str | None = None) -> Route:
        """Returns how connections to a host are made; equal routes may share connections.

        Args:
            scheme: http or https.
            host: as in a URL, IPv6 with brackets or without.
            port: None for the scheme's own.
            behind: URL at the registry that led here, where this is another host.

        Raises:
            ConfigurationError: a file or a variable is wrong.
        """
        key = (host.strip("[]").lower(), port or _PORTS[scheme])
        named = self._named.get(key, Route())
        proxy = named.proxy or proxies.choose(self._environ, scheme, *key)
        return Route(await self._tls_for(key, behind) if scheme == "https" else Tls(), proxy)

    async def _tls_for(self, key: tuple[str, int], behind: str | None) -> Tls:
        if key in self._named:
            return self._named[key].tls
        if key not in self._tls:
            async with self._reading:
                await finish(self._certificates, key)
        if behind and self._tls[key] == Tls():
            return replace(self._named.get(_key(behind), Route()).tls, identities=())
        return self._tls[key]

    def _certificates(self, key: tuple[str, int]) -> Tls:
        if key not in self._tls:
            self._tls[key] = certificates.find(self._folders.certificates, folder_names(*key))
        return self._tls[key]

    def _endpoints(self, host: str, repository: RepositoryName) -> tuple[Endpoint, ...]:
        hosts = self._told_by_containerd(host)
        found = self._told_by_containers().find(host, repository)
        moved = (found.own.host, found.own.repository) != (host, repository)
        own = found.own if moved else replace(hosts.server, insecure=found.own.insecure)
        reached = partial(self._reached, host, repository)
        last = reached(replace(own, scheme="http") if self._plain_http else own, mirror=False)
        taken = {(each.api, each.repository) for each in last}
        first: dict[tuple[str, RepositoryName], Endpoint] = {}
        for place in (*self._given(), *hosts.mirrors, *found.mirrors):
            for each in reached(place, mirror=True):
                first.setdefault((each.api, each.repository), each)
        return (*(each for key, each in first.items() if key not in taken), *last)

    def _given(self) -> list[Place]:
        given = [Place.parse(each, "--mirror") for each in self._mirrors]
        return [replace(each, scheme=each.scheme or "http") for each in given] if self._plain_http else given

    def _told_by_containerd(self, host: str) -> containerd.Hosts:
        if host not in self._hosts:
            self._hosts[host] = containerd.find(self._folders.hosts, host)
        return self._hosts[host]

    def _told_by_containers(self) -> registries.Registries:
        if self._registries is None:
            chosen = self._environ.get("CONTAINERS_REGISTRIES_CONF")
            self._registries = registries.Registries(registries.files(chosen, self._folders.registries))
        return self._registries

    def _reached(self, host: str, repository: RepositoryName, place: Place, *, mirror: bool) -> list[Endpoint]:
        """Returns the endpoints that a place is, and keeps how they are reached."""
        insecure = place.insecure or self._insecure
        tls = place.tls
        if place.scheme != "http":
            tls = tls.joined(self._certificates(_key(f"https://{dialled(place.host)}")))
        if insecure:
            tls = replace(tls, verified=False)
        schemes = [place.scheme] if place.scheme else _schemes(place.host, tls, insecure=insecure)
        endpoints = [place.endpoint(each, host, repository, mirror=mirror) for each in schemes]
        for key in {_key(each.api) for each in endpoints}:
            known = self._named.get(key, Route())
            self._named[key] = Route(known.tls.joined(tls), known.proxy or place.proxy)
        return endpoints


def _schemes(host: str, tls: Tls, *, insecure: bool) -> list[str]:
    if insecure:
        return ["https", "http"]
    return ["http"] if local(host) and tls == Tls() else ["https"]


def _key(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or _PORTS[parts.scheme]
