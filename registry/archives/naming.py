"""How images are called in a registry, and in an archive."""

from __future__ import annotations

from dataclasses import dataclass

from ocispec.digest import Digest
from ocispec.errors import ConfigurationError, NameInvalid
from ocispec.reference import DEFAULT_TAG, Reference, RepositoryName, Tag

LOCALHOST = "localhost"


@dataclass(frozen=True, slots=True)
class Name:
    """An image's name in a registry: no host, and no `library/` that nobody wrote.

    Attributes:
        tag: None only where a digest stands.
        digest: wins over the tag where both stand.
    """

    repository: RepositoryName
    tag: Tag | None = None
    digest: Digest | None = None

    @classmethod
    def parse(cls, text: str) -> Name:
        """Reads `repository[:tag][@digest]`; neither tag nor digest means `latest`.

        Raises:
            NameInvalid, TagInvalid, DigestInvalid: naming the part that is wrong.
        """
        rest, at, digest = text.partition("@")
        name, colon, tag = rest.rpartition(":")
        if not colon:
            name = rest
        elif "/" in tag or ":" in name:
            raise NameInvalid(f"invalid name {text[:300]!r}: expected repository:tag, without the host of a registry")
        untagged = None if at else Tag(DEFAULT_TAG)
        return cls(
            RepositoryName.parse(name),
            Tag.parse(tag) if colon else untagged,
            Digest.parse(digest) if at else None,
        )

    @classmethod
    def of(cls, reference: Reference) -> Name:
        """Returns what an image is called here: its name in an archive without the host."""
        return cls(reference.repository, reference.tag, reference.digest)

    def at(self, host: str) -> Reference:
        """Returns what an image is called in an archive, where every name has a host.

        Raises:
            ConfigurationError: that is no host of a registry.
        """
        try:
            reference = Reference.parse(f"{host}/{self}")
        except NameInvalid:
            reference = None
        if reference is None or (reference.host, reference.repository) != (host, self.repository):
            raise ConfigurationError(f"{host[:300]!r}: expected a registry's host, like registry.example or host:5000")
        return reference

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"{self.repository}{tag}{f'@{self.digest}' if self.digest else ''}"
