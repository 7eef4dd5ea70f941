"""A place that an option or a file names as a registry's own, or as a mirror."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import SplitResult, urlsplit

from client.hosts.endpoint import Endpoint, Tls
from ocispec.errors import ConfigurationError
from ocispec.reference import DOCKER_HUB, RepositoryName

_HUB_API = "registry-1.docker.io"
_HUB_NAMES = frozenset({DOCKER_HUB, "index.docker.io", _HUB_API})


@dataclass(frozen=True, slots=True)
class Place:
    """Where requests for a registry may go, before it is known how.

    Attributes:
        host: with its port, if any; any of Docker Hub's names.
        scheme: http or https; None where nobody said which.
        path: of the API's root, without a slash at its end.
        repository: the name the repository has there; None where it keeps its own.
        tls: what the source tells of it.
        proxy: what the source tells of it.
        headers: sent with every request.
        insecure: whether any certificate will do, and plain http where `scheme` is None.
        told: whether requests tell in `ns` which registry they mean, where this is another.
        resolves: see `Endpoint`.
        serves: see `Endpoint`.
        pushes: see `Endpoint`.
    """

    host: str
    scheme: str | None = None
    path: str = "/v2"
    repository: RepositoryName | None = None
    tls: Tls = field(default_factory=Tls)
    proxy: str | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, hash=False, repr=False)
    insecure: bool = False
    told: bool = True
    resolves: bool = True
    serves: bool = True
    pushes: bool = True

    @classmethod
    def parse(cls, text: str, where: str, *, whole_path: bool = False) -> Place:
        """Reads `[http[s]://]host[:port][/path]`; the path gets `/v2` at its end, unless it has it or is the whole.

        Args:
            text: the URL.
            where: what messages call its source.
            whole_path: whether the path is the API's root as it stands.

        Raises:
            ConfigurationError: it is none; one that holds credentials is not shown.
        """
        if "@" in text:
            raise ConfigurationError(f"{where}: expected a URL without credentials")
        parts = _split(text)
        if parts is None:
            raise ConfigurationError(f"{where}: expected https://host[:port][/path], not {text[:200]!r}")
        path = parts.path.rstrip("/")
        path = path if whole_path or path.endswith("/v2") else f"{path}/v2"
        return cls(parts.netloc.lower(), parts.scheme or None, path)

    def endpoint(self, scheme: str, host: str, repository: RepositoryName, *, mirror: bool) -> Endpoint:
        """Returns the endpoint that this place is, over `scheme`, for a repository of the registry `host`."""
        reached = dialled(self.host)
        return Endpoint(
            api=f"{scheme}://{reached}{self.path}",
            host=reached,
            repository=self.repository or repository,
            login=DOCKER_HUB if reached == _HUB_API else reached,
            namespace=host if self.told and reached != dialled(host) else None,
            headers=self.headers,
            mirror=mirror,
            resolves=self.resolves,
            serves=self.serves,
            pushes=self.pushes,
        )


def _split(text: str) -> SplitResult | None:
    """Takes a URL of an API's root apart; None where it is none."""
    try:
        parts = urlsplit(text if "://" in text else f"//{text}")
        named = bool(parts.hostname) and parts.port != 0 and not parts.netloc.endswith(":")
    except ValueError:
        return None
    plain = text.isascii() and text.isprintable() and not set(text) & set(" ?#")
    return parts if named and plain and parts.scheme in ("", "http", "https") else None


def dialled(host: str) -> str:
    """Returns the host whose API is asked for `host`: Docker Hub's is not at docker.io."""
    return _HUB_API if host in _HUB_NAMES else host


def folder_names(host: str, port: int) -> tuple[str, ...]:
    """Returns how folders for an https host may be called, as people write it: a default port, or none."""
    bracketed = f"[{host}]" if ":" in host else host
    if port != 443:
        return (f"{bracketed}:{port}",)
    return (bracketed, f"{bracketed}:443", *((DOCKER_HUB,) if host == _HUB_API else ()))


def local(host: str) -> bool:
    """Whether a host, with its port, if any, is this machine: localhost, 127.0.0.0/8 or [::1]."""
    name = urlsplit(f"//{host}").hostname or ""
    return name in ("localhost", "::1") or _is_loopback_ipv4(name)


def _is_loopback_ipv4(name: str) -> bool:
    parts = name.split(".")
    return parts[0] == "127" and len(parts) == 4 and all(each.isdecimal() and int(each) < 256 for each in parts)
