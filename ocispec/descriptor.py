"""Descriptors: a reference to content by type, digest and size (image-spec, descriptor.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ocispec.digest import Digest
from ocispec.errors import DigestInvalid, GrammarError
from ocispec.platform import Platform

REF_NAME = "org.opencontainers.image.ref.name"


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
    annotations: Mapping[str, str] = field(default_factory=dict)
    artifact_type: str | None = None
    urls: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, value: Any, where: str = "descriptor") -> Descriptor:
        """Reads a decoded descriptor; members that the specification does not know are left out.

        Args:
            value: decoded JSON.
            where: how messages call the place, like `layers[2]`.

        Raises:
            GrammarError: a required member is missing or of another type, or the digest is none.
        """
        fields = _object(value, where)
        size = fields.get("size")
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            raise GrammarError(f"{where}.size: expected a whole number of bytes, got {size!r:.80}")
        platform = fields.get("platform")
        return cls(
            media_type=_string(fields.get("mediaType"), f"{where}.mediaType"),
            digest=_digest(fields.get("digest"), f"{where}.digest"),
            size=size,
            platform=Platform.from_json(platform) if platform is not None else None,
            annotations=string_map(fields.get("annotations"), f"{where}.annotations"),
            artifact_type=_optional_string(fields.get("artifactType"), f"{where}.artifactType"),
            urls=tuple(_string(url, f"{where}.urls") for url in _list(fields.get("urls"), f"{where}.urls")),
        )

    def to_json(self) -> dict[str, Any]:
        """Returns the members that stand, in the specification's order."""
        members: dict[str, Any] = {"mediaType": self.media_type, "digest": str(self.digest), "size": self.size}
        if self.urls:
            members["urls"] = list(self.urls)
        if self.annotations:
            members["annotations"] = dict(self.annotations)
        if self.platform:
            members["platform"] = _platform_json(self.platform)
        if self.artifact_type:
            members["artifactType"] = self.artifact_type
        return members


def string_map(value: Any, where: str) -> dict[str, str]:
    """Reads an optional object whose values are strings (image-spec, annotations.md); raises GrammarError."""
    fields = {} if value is None else _object(value, where)
    return {name: _string(text, f"{where}[{name!r:.80}]") for name, text in fields.items()}


def _platform_json(platform: Platform) -> dict[str, str]:
    named = {"architecture": platform.architecture, "os": platform.os, "os.version": platform.os_version}
    return {name: text for name, text in {**named, "variant": platform.variant}.items() if text}


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise GrammarError(f"{where}: expected an object, got {type(value).__name__}")
    return value


def _list(value: Any, where: str) -> list[Any]:
    if value is not None and not isinstance(value, list):
        raise GrammarError(f"{where}: expected a list, got {type(value).__name__}")
    return value or []


def _string(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise GrammarError(f"{where}: expected a string, got {type(value).__name__}")
    return value


def _optional_string(value: Any, where: str) -> str | None:
    return None if value is None else _string(value, where)


def _digest(value: Any, where: str) -> Digest:
    try:
        return Digest.parse(_string(value, where))
    except DigestInvalid as error:
        raise GrammarError(f"{where}: {error.message}") from error
