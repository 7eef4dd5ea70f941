"""Descriptors: a reference to content by type, digest and size (image-spec, descriptor.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ocispec.digest import Digest
from ocispec.errors import DigestInvalid, GrammarError
from ocispec.members import as_list, as_object, as_string, folded, optional_string, shown, string_map
from ocispec.platform import Platform

REF_NAME = "org.opencontainers.image.ref.name"

# What a signed 64-bit integer holds; readers in other languages fail above.
_MAX_SIZE = 2**63 - 1
_KNOWN = folded("mediaType", "digest", "size", "urls", "annotations", "data", "artifactType", "platform")


@dataclass(frozen=True, slots=True)
class Descriptor:
    """Names content that lies elsewhere.

    Attributes:
        media_type: what the content is.
        digest: what the content's bytes must hash to.
        size: length of the content in bytes.
        platform: of an image in an index, None where the index does not say.
        annotations: free text by key.
        artifact_type: type of the artifact that a manifest describes.
        urls: where foreign content can be had.
    """

    media_type: str
    digest: Digest
    size: int
    platform: Platform | None = None
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)
    artifact_type: str | None = None
    urls: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, value: Any, where: str = "descriptor") -> Descriptor:
        """Reads a decoded descriptor; members that the specification does not know are left out.

        Args:
            value: decoded JSON.
            where: how messages call the place, like `layers[2]`.

        Raises:
            GrammarError: a required member is missing or of another type, the digest is none, or a name stands in
                another case.
        """
        fields = as_object(value, where, _KNOWN)
        platform = fields.get("platform")
        return cls(
            media_type=as_string(fields.get("mediaType"), f"{where}.mediaType"),
            digest=as_digest(fields.get("digest"), f"{where}.digest"),
            size=_size(fields.get("size"), f"{where}.size"),
            platform=Platform.from_json(platform, f"{where}.platform") if platform is not None else None,
            annotations=string_map(fields.get("annotations"), f"{where}.annotations"),
            artifact_type=optional_string(fields.get("artifactType"), f"{where}.artifactType"),
            urls=tuple(as_string(url, f"{where}.urls") for url in as_list(fields.get("urls"), f"{where}.urls")),
        )

    def to_json(self) -> dict[str, Any]:
        """Returns the members that stand, in the specification's order."""
        members: dict[str, Any] = {"mediaType": self.media_type, "digest": str(self.digest), "size": self.size}
        if self.urls:
            members["urls"] = list(self.urls)
        if self.annotations:
            members["annotations"] = dict(self.annotations)
        if self.platform:
            members["platform"] = self.platform.to_json()
        if self.artifact_type:
            members["artifactType"] = self.artifact_type
        return members


def as_digest(value: Any, where: str) -> Digest:
    """Reads a digest; raises GrammarError naming the place."""
    try:
        return Digest.parse(as_string(value, where))
    except DigestInvalid as error:
        raise GrammarError(f"{where}: {error.message}") from error


def _size(value: Any, where: str) -> int:
    if type(value) is not int or not 0 <= value <= _MAX_SIZE:
        raise GrammarError(f"{where}: expected a whole number of bytes, got {shown(value)}")
    return value
