"""A credential, and how the files of docker and podman name what it is for."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from ocispec.reference import DOCKER_HUB

DOCKER_HUB_KEY = "https://index.docker.io/v1/"
_DOCKER_HUB_HOSTS = frozenset({DOCKER_HUB, "index.docker.io", "registry-1.docker.io"})
_SCHEME = re.compile(r"\Ahttps?://", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Credential:
    """What somebody proves with who they are: a password, an identity token, or a token for the registry itself.

    Attributes:
        username: None beside a token that needs none.
        password: in plain text.
        identity_token: a refresh token of OAuth2, which a token server exchanges.
        registry_token: sent to the registry as it is.
        place: where it is kept, for messages.
    """

    username: str | None = None
    password: str | None = field(default=None, repr=False)
    identity_token: str | None = field(default=None, repr=False)
    registry_token: str | None = field(default=None, repr=False)
    place: str = field(default="", compare=False)

    @property
    def owner(self) -> str:
        """How messages call it."""
        name = self.username or "a token"
        return f"{name} from {self.place}" if self.place else name


def key_of(host: str) -> str:
    """Returns the key under which docker keeps what is for `host`, and by which helpers are asked."""
    return DOCKER_HUB_KEY if host == DOCKER_HUB else host


def normalised(key: str) -> str:
    """Returns what a key stands for: `host` or `host/namespace`.

    A key that is a URL means its whole host, whatever its path, as docker reads it; one without a scheme may name
    a namespace (containers-auth.json(5)). All names of Docker Hub are `docker.io`.
    """
    bare = _SCHEME.sub("", key, count=1)
    host, _, path = bare.partition("/")
    host = host.lower()
    if host in _DOCKER_HUB_HOSTS:
        host = DOCKER_HUB
    if bare != key or path in ("v1/", "v2/"):
        return host
    return f"{host}/{path}".rstrip("/")


def names(host: str, repository: str) -> Iterator[str]:
    """Yields what a credential for a repository may be kept for, the closest first (containers-auth.json(5))."""
    parts = [host, *filter(None, repository.split("/"))]
    for length in range(len(parts), 0, -1):
        yield "/".join(parts[:length])
