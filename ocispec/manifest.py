"""Manifests, indexes and image configs that keep their raw bytes (image-spec, manifest.md, image-index.md, config.md).

The digest of a manifest is that of its bytes as they came, so nothing here is ever serialised again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ocispec import mediatypes, strictjson
from ocispec.descriptor import Descriptor, as_digest
from ocispec.digest import CANONICAL, Digest
from ocispec.errors import GrammarError, ManifestInvalid
from ocispec.members import as_list, as_object, folded, optional_object, optional_string, shown, string_map
from ocispec.platform import Platform

_KNOWN = folded(
    "schemaVersion", "mediaType", "artifactType", "config", "layers", "manifests", "subject", "annotations", "fsLayers"
)
# Types that say nothing of what the bytes are, as a file server gives them.
_UNTYPED = frozenset({"", "application/json", mediatypes.OCTET_STREAM})


@dataclass(frozen=True, slots=True)
class Manifest:
    """An image manifest or an index.

    Attributes:
        raw: the bytes as they came.
        media_type: one of `mediatypes.MANIFESTS`.
        config: descriptor of an image's config; None in an index.
        layers: descriptors of an image's layers, the base first.
        manifests: descriptors of an index's children.
        subject: the manifest this one refers to, if any.
        artifact_type: declared type, else the config's media type (as the referrers API shows it).
        annotations: free text by key.
    """

    raw: bytes = field(repr=False)
    media_type: str
    config: Descriptor | None = None
    layers: tuple[Descriptor, ...] = ()
    manifests: tuple[Descriptor, ...] = ()
    subject: Descriptor | None = None
    artifact_type: str | None = None
    annotations: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, raw: bytes, content_type: str | None = None) -> Manifest:
        """Reads a manifest, and refuses one that two readers could take for two things (CVE-2021-41190).

        Args:
            raw: the bytes as they came.
            content_type: the `Content-Type` they came with; must agree with `mediaType` inside, where both stand.

        Raises:
            ManifestInvalid: no JSON object, an unknown or schema 1 type, or a member that breaks the specification.
        """
        try:
            fields = as_object(strictjson.loads(raw), "manifest", _KNOWN)
            media_type = _media_type(fields, mediatypes.essence(content_type or ""))
            return cls(raw, media_type, **_members(fields, media_type))
        except (GrammarError, strictjson.AmbiguousJSON) as error:
            raise ManifestInvalid(f"manifest invalid: {error}") from error

    @property
    def is_index(self) -> bool:
        return self.media_type in mediatypes.INDEXES

    @property
    def blobs(self) -> tuple[Descriptor, ...]:
        """Descriptors of all blobs an image needs, config first; empty for an index."""
        return (*((self.config,) if self.config else ()), *self.layers)

    def digest(self, algorithm: str = CANONICAL) -> Digest:
        return Digest.of(self.raw, algorithm)

    def descriptor(self, digest: Digest | None = None) -> Descriptor:
        """Returns what the referrers API and an image layout's index say of this manifest."""
        return Descriptor(
            self.media_type,
            digest or self.digest(),
            len(self.raw),
            annotations=self.annotations,
            artifact_type=self.artifact_type,
        )


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """One step of an image's making.

    Attributes:
        created_by: the instruction.
        empty_layer: whether it made no layer.
        created: RFC 3339 time, as it stands.
    """

    created_by: str = ""
    empty_layer: bool = False
    created: str | None = None


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """An image's config (image-spec, config.md).

    Attributes:
        raw: the bytes as they came.
        platform: what the image runs on.
        diff_ids: digests of the unpacked layers, the base first.
        history: how it was made.
        settings: the member `config` as it stands: Env, Cmd, WorkingDir, …
        created: RFC 3339 time, as it stands.
    """

    raw: bytes = field(repr=False)
    platform: Platform
    diff_ids: tuple[Digest, ...] = ()
    history: tuple[HistoryEntry, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    created: str | None = None

    @classmethod
    def parse(cls, raw: bytes) -> ImageConfig:
        """Raises ManifestInvalid: no JSON object, or a member that breaks the specification."""
        try:
            fields = as_object(strictjson.loads(raw), "image config")
            rootfs = optional_object(fields.get("rootfs"), "rootfs")
            ids = as_list(rootfs.get("diff_ids"), "rootfs.diff_ids")
            return cls(
                raw,
                Platform.from_json(fields),
                tuple(as_digest(each, f"rootfs.diff_ids[{n}]") for n, each in enumerate(ids)),
                tuple(
                    _history(each, f"history[{n}]") for n, each in enumerate(as_list(fields.get("history"), "history"))
                ),
                optional_object(fields.get("config"), "config"),
                optional_string(fields.get("created"), "created"),
            )
        except (GrammarError, strictjson.AmbiguousJSON) as error:
            raise ManifestInvalid(f"image config invalid: {error}") from error


def _history(value: Any, where: str) -> HistoryEntry:
    entry = as_object(value, where)
    return HistoryEntry(
        optional_string(entry.get("created_by"), f"{where}.created_by") or "",
        bool(entry.get("empty_layer")),
        optional_string(entry.get("created"), f"{where}.created"),
    )


def _media_type(fields: Mapping[str, Any], content_type: str) -> str:
    version, declared = fields.get("schemaVersion"), optional_string(fields.get("mediaType"), "mediaType")
    if version == 1 or {declared, content_type} & mediatypes.SCHEMA_1:
        raise GrammarError("schema 1 is not supported: push the image again with docker 1.10 or newer")
    if type(version) is not int or version != 2:
        raise GrammarError(f"schemaVersion: expected 2, got {shown(version)}")
    if declared and content_type and declared != content_type:
        raise GrammarError(f"mediaType {shown(declared)} differs from the Content-Type {shown(content_type)}")
    media_type = declared or (_guess(fields) if content_type in _UNTYPED else content_type)
    if media_type not in mediatypes.MANIFESTS:
        raise GrammarError(
            f"unknown media type {shown(media_type)}: expected an OCI or Docker schema 2 manifest or index"
        )
    return media_type


def _guess(fields: Mapping[str, Any]) -> str:
    # An OCI manifest need not say what it is (image-spec 1.0), and old trees hold such manifests.
    return mediatypes.OCI_INDEX if "manifests" in fields else mediatypes.OCI_MANIFEST


def _members(fields: Mapping[str, Any], media_type: str) -> dict[str, Any]:
    is_index = media_type in mediatypes.INDEXES
    foreign = ("config", "layers") if is_index else ("manifests",)
    # Docker's schema 1 members in a schema 2 manifest are the other half of CVE-2021-41190.
    for name in (*foreign, "fsLayers"):
        if name in fields:
            raise GrammarError(f"the member {name!r} does not belong into {media_type}")
    subject, declared = fields.get("subject"), optional_string(fields.get("artifactType"), "artifactType")
    common = {
        "subject": Descriptor.from_json(subject, "subject") if subject is not None else None,
        "annotations": string_map(fields.get("annotations"), "annotations"),
    }
    if is_index:
        return {**common, "manifests": _descriptors(fields, "manifests"), "artifact_type": declared}
    config = Descriptor.from_json(fields.get("config"), "config")
    layers = _descriptors(fields, "layers")
    return {**common, "config": config, "layers": layers, "artifact_type": declared or config.media_type}


def _descriptors(fields: Mapping[str, Any], name: str) -> tuple[Descriptor, ...]:
    if name not in fields:
        raise GrammarError(f"{name}: expected a list, got nothing")
    return tuple(Descriptor.from_json(each, f"{name}[{n}]") for n, each in enumerate(as_list(fields[name], name)))
