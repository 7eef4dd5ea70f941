"""An endpoint: one place where a repository can be reached."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ocispec.reference import RepositoryName


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One place where a repository can be reached: the registry itself, or a mirror of it.

    Attributes:
        api: URL of the API without a slash at its end, like `https://registry-1.docker.io/v2`.
        host: what messages call it, with its port, if any.
        repository: the name the repository has there.
        login: under which host credentials for it are looked up; `docker.io` for Docker Hub.
        namespace: value of the query `ns`, which tells a mirror of many registries which one is meant.
        headers: sent with every request; never shown, since they may hold secrets.
        mirror: whether it only stands in for the registry.
        resolves: whether it may be asked what a tag stands for.
        serves: whether it may be asked for content by digest.
        pushes: whether it takes pushes.
    """

    api: str
    host: str
    repository: RepositoryName
    login: str
    namespace: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict, hash=False, repr=False)
    mirror: bool = False
    resolves: bool = True
    serves: bool = True
    pushes: bool = True


@dataclass(frozen=True, slots=True)
class Tls:
    """How TLS is spoken to a host.

    Attributes:
        authorities: files of certificates that are trusted beside the system's.
        identities: files of client certificates with their keys (the certificate's own file may hold the key).
        verified: whether the host's certificate is checked.
    """

    authorities: tuple[Path, ...] = ()
    identities: tuple[tuple[Path, Path], ...] = ()
    verified: bool = True

    def joined(self, other: Tls) -> Tls:
        """Returns what both tell: the files of both, and unverified where one says so."""
        return Tls(
            tuple(dict.fromkeys((*self.authorities, *other.authorities))),
            tuple(dict.fromkeys((*self.identities, *other.identities))),
            verified=self.verified and other.verified,
        )


@dataclass(frozen=True, slots=True)
class Route:
    """How a connection to a host is made: equal routes may share connections.

    Attributes:
        tls: for https.
        proxy: `http[s]://[user[:password]@]host:port` of the proxy, if any; never shown.
    """

    tls: Tls = Tls()
    proxy: str | None = field(default=None, repr=False)
