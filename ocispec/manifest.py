"""Manifests, indexes and image configs that keep their raw bytes (image-spec, manifest.md, image-index.md, config.md).

The digest of a manifest is that of its bytes as they came, so nothing here is ever serialised again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ocispec import mediatypes, strictjson
from ocispec.descriptor import Descriptor, string_map
from ocispec.digest import CANONICAL, Digest
from ocispec.errors import GrammarError, ManifestInvalid
from ocispec.platform import Platform


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
            fields = _fields(raw)
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
            fields = _fields(raw)
            rootfs = fields.get("rootfs") or {}
            ids = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
            settings = fields.get("config") or {}
            return cls(
                raw,
                Platform.from_json(fields),
                tuple(Digest.parse(str(each)) for each in ids or ()),
                tuple(_history(each) for each in fields.get("history") or ()),
                settings if isinstance(settings, dict) else {},
                fields.get("created"),
            )
        except (GrammarError, strictjson.AmbiguousJSON) as error:
            raise ManifestInvalid(f"image config invalid: {error}") from error


def _history(value: Any) -> HistoryEntry:
    entry = value if isinstance(value, dict) else {}
    return HistoryEntry(str(entry.get("created_by", "")), bool(entry.get("empty_layer")), entry.get("created"))


def _fields(raw: bytes) -> dict[str, Any]:
    fields = strictjson.loads(raw)
    if not isinstance(fields, dict):
        raise GrammarError(f"expected a JSON object, got {type(fields).__name__}")
    return fields


def _media_type(fields: Mapping[str, Any], content_type: str) -> str:
    declared = fields.get("mediaType")
    if fields.get("schemaVersion") == 1 or {declared, content_type} & mediatypes.SCHEMA_1:
        raise GrammarError("schema 1 is not supported: push the image again with a docker newer than 1.10")
    if fields.get("schemaVersion") != 2:
        raise GrammarError(f"schemaVersion: expected 2, got {fields.get('schemaVersion')!r:.80}")
    given = content_type if content_type in mediatypes.MANIFESTS else None
    if declared and content_type and declared != content_type:
        raise GrammarError(f"mediaType {declared!r:.120} differs from the Content-Type {content_type!r:.120}")
    media_type = declared or given or _guess(fields)
    if media_type not in mediatypes.MANIFESTS:
        raise GrammarError(
            f"unknown media type {media_type!r:.120}: expected an OCI or Docker schema 2 manifest or index"
        )
    return str(media_type)


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
    subject, declared = fields.get("subject"), fields.get("artifactType")
    common = {
        "subject": Descriptor.from_json(subject, "subject") if subject is not None else None,
        "annotations": string_map(fields.get("annotations"), "annotations"),
    }
    if declared is not None and not isinstance(declared, str):
        raise GrammarError("artifactType: expected a string")
    if is_index:
        return {**common, "manifests": _descriptors(fields, "manifests"), "artifact_type": declared}
    config = Descriptor.from_json(fields.get("config"), "config")
    layers = _descriptors(fields, "layers")
    return {**common, "config": config, "layers": layers, "artifact_type": declared or config.media_type}


def _descriptors(fields: Mapping[str, Any], name: str) -> tuple[Descriptor, ...]:
    values = fields.get(name)
    if not isinstance(values, list):
        raise GrammarError(f"{name}: expected a list, got {type(values).__name__}")
    return tuple(Descriptor.from_json(value, f"{name}[{n}]") for n, value in enumerate(values))
