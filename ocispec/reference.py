"""Names of images (distribution-spec, "Pulling manifests"; Docker's short forms as every client reads them).

reference  = [host "/"] repository [":" tag] ["@" digest]
host       = name or address (IPv6 in brackets) [":" port]; has a dot, a colon or a capital, or is localhost
repository = component *("/" component), host and repository together at most 255 characters
component  = [a-z0-9]+ *(("." / "_" / "__" / 1*"-") [a-z0-9]+)
tag        = [a-zA-Z0-9_] [a-zA-Z0-9._-]{0,127}
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import lru_cache

from ocispec.digest import PARSED, Digest
from ocispec.errors import NameInvalid, TagInvalid

DOCKER_HUB = "docker.io"
_OLD_DOCKER_HUB = "index.docker.io"
DEFAULT_TAG = "latest"
MAX_NAME = 255

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_NAME = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*", re.ASCII)
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}", re.ASCII)
_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_IMAGE_ID = re.compile(r"[a-f0-9]{64}")
_HOST = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]{{1,5}})?", re.ASCII)


class RepositoryName(str):
    """A repository's name that follows the grammar, so that it can become a path."""

    __slots__ = ()

    @classmethod
    @lru_cache(PARSED)
    def parse(cls, text: str) -> RepositoryName:
        """Raises NameInvalid: not the grammar above, or longer than 255 characters."""
        if len(text) > MAX_NAME or not _NAME.fullmatch(text):
            expected = "expected lower-case letters, digits and separators, at most 255 characters"
            raise NameInvalid(f"invalid repository name {text[:MAX_NAME]!r}: {expected}", detail={"name": text[:256]})
        return cls(text)


class Tag(str):
    """A tag that follows the grammar, so that it can become a path."""

    __slots__ = ()

    @classmethod
    @lru_cache(PARSED)
    def parse(cls, text: str) -> Tag:
        """Raises TagInvalid: not the grammar above."""
        if not _TAG.fullmatch(text):
            expected = "expected at most 128 letters, digits, '_', '.', '-', the first neither '.' nor '-'"
            raise TagInvalid(f"invalid tag {text[:130]!r}: {expected}", detail={"tag": text[:130]})
        return cls(text)


def parse_tag_or_digest(text: str) -> Tag | Digest:
    """Reads the `<reference>` of a manifest's URL: a digest where it holds a colon, else a tag.

    Raises:
        DigestInvalid, TagInvalid: neither.
    """
    return Digest.parse(text) if ":" in text else Tag.parse(text)


@dataclass(frozen=True, slots=True)
class Reference:
    """A whole image name: `str()` gives its normal form, which parses to the same value.

    Attributes:
        host: registry's host with its port, if any; `docker.io` for Docker Hub.
        repository: name inside that registry; `library/node` for Docker Hub's `node`.
        tag: None only where a digest stands.
        digest: wins over the tag where both stand.
    """

    host: str
    repository: RepositoryName
    tag: Tag | None = None
    digest: Digest | None = None

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Reads an image name the way docker does; neither tag nor digest means `latest`.

        Raises:
            NameInvalid, TagInvalid, DigestInvalid: naming the part that is wrong.
        """
        if _IMAGE_ID.fullmatch(text):
            raise NameInvalid(
                f"invalid reference {text!r}: an image's id is no name; expected name@sha256:{text[:12]}…"
            )
        rest, at, digest = text.partition("@")
        rest, colon, tag = _split_tag(rest)
        host, repository = _split_host(rest)
        return cls(
            host,
            _repository(host, repository),
            Tag.parse(tag) if colon else None if at else Tag(DEFAULT_TAG),
            Digest.parse(digest) if at else None,
        )

    @property
    def name(self) -> str:
        """Host and repository."""
        return f"{self.host}/{self.repository}"

    @property
    def target(self) -> Tag | Digest:
        """What a manifest's URL asks for."""
        return self.digest or self.tag or Tag(DEFAULT_TAG)

    @property
    def familiar(self) -> str:
        """The short form docker shows, without Docker Hub's host and `library/`; parses to the same value."""
        whole = str(self)
        short = whole.removeprefix(f"{DOCKER_HUB}/")
        if self.host != DOCKER_HUB or _split_host(short) != (DOCKER_HUB, short):
            return whole
        return short.removeprefix("library/") if short.count("/") == 1 else short

    def with_digest(self, digest: Digest) -> Reference:
        return replace(self, digest=digest)

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.name}{tag}{digest}"


def _split_tag(text: str) -> tuple[str, str, str]:
    head, colon, tail = text.rpartition(":")
    # A colon before the last slash belongs to the host's port.
    return (head, colon, tail) if "/" not in tail and colon else (text, "", "")


def _split_host(text: str) -> tuple[str, str]:
    first, slash, rest = text.partition("/")
    if not slash or not ({".", ":"} & set(first) or first == "localhost" or first != first.lower()):
        return DOCKER_HUB, text
    return DOCKER_HUB if first == _OLD_DOCKER_HUB else first, rest


def _repository(host: str, text: str) -> RepositoryName:
    if not _HOST.fullmatch(host):
        raise NameInvalid(f"invalid reference: {host[:MAX_NAME]!r} is not a host name")
    official = host == DOCKER_HUB and "/" not in text
    name = RepositoryName.parse(f"library/{RepositoryName.parse(text)}" if official else text)
    if len(host) + 1 + len(name) > MAX_NAME:
        raise NameInvalid(
            f"invalid reference {f'{host}/{name}'[:MAX_NAME]!r}: host and repository exceed {MAX_NAME} characters"
        )
    return name
