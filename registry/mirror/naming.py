"""Names of mirrored images as people write them, and the one name that each has here."""

from __future__ import annotations

from dataclasses import dataclass

from ocispec.digest import Digest
from ocispec.errors import NameUnknown
from ocispec.reference import DEFAULT_TAG, RepositoryName, Tag
from registry.config.mirror import DOCKER_HUB
from registry.mirror.upstreams import Upstreams

_HUB = "registry-1.docker.io"


@dataclass(frozen=True, slots=True)
class Image:
    """An image, or all images of a repository.

    Attributes:
        name: the repository's name here.
        reference: None where nothing was said.
    """

    name: RepositoryName
    reference: Tag | Digest | None = None

    @property
    def wanted(self) -> Tag | Digest:
        """What a client asks for."""
        return self.reference or Tag(DEFAULT_TAG)

    def __str__(self) -> str:
        if self.reference is None:
            return str(self.name)
        return f"{self.name}{'@' if isinstance(self.reference, Digest) else ':'}{self.reference}"


class Names:
    """What names mean.

    Args:
        upstreams: the registries that are mirrored; None where it is one alone, under its own names.
        host: of that one.
    """

    def __init__(self, upstreams: Upstreams | None, host: str) -> None:
        self._upstreams = upstreams
        self._hosts = {host, DOCKER_HUB} if host == _HUB else {host}

    def parse(self, text: str) -> Image:
        """Reads `alpine`, `alpine:3`, `docker.io/library/alpine`, `ghcr.io/org/app@sha256:…`.

        Raises:
            NameInvalid, TagInvalid, DigestInvalid: it is none.
            NameUnknown: it is not mirrored here.
        """
        rest, at, digest = text.partition("@")
        above, slash, last = rest.rpartition("/")
        last, colon, tag = last.partition(":")
        reference = Digest.parse(digest) if at else Tag.parse(tag) if colon else None
        return Image(self._name(f"{above}{slash}{last}"), reference)

    def _name(self, text: str) -> RepositoryName:
        first, _, rest = text.partition("/")
        is_host = bool(rest) and ("." in first or ":" in first or first == "localhost")
        if self._upstreams is None:
            return self._only(text, first, rest, is_host=is_host)
        named = self._upstreams.is_named(first)
        if is_host and not named:
            raise NameUnknown(f"{text[:255]}: {first[:255]} is not mirrored here")
        name = self._upstreams.canonical(rest, first) if named and rest else self._upstreams.canonical(text)
        if self._upstreams.of(name) is None:
            raise NameUnknown(f"{name} is hosted here, and mirrored from nowhere")
        return name

    def _only(self, text: str, first: str, rest: str, *, is_host: bool) -> RepositoryName:
        if first in self._hosts and rest:
            text = rest
        elif is_host:
            raise NameUnknown(f"{text[:255]}: {first[:255]} is not mirrored here")
        if DOCKER_HUB in self._hosts and "/" not in text:
            text = f"library/{text}"
        return RepositoryName.parse(text)
