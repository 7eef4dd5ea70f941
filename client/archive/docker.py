"""manifest.json of a docker-archive: read, with a manifest made for each image, and written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from client.archive.compression import MAGIC_LENGTH, Compression, compression_of, unpacked
from client.archive.content import ArchiveContent
from client.archive.members import Extent, normal
from ocispec import strictjson
from ocispec.descriptor import Descriptor
from ocispec.digest import Digest, Verifier
from ocispec.errors import ArchiveInvalid, DigestMismatch, LayerhouseError
from ocispec.manifest import ImageConfig, Manifest
from ocispec.mediatypes import OCI_CONFIG, OCI_MANIFEST
from ocispec.members import as_list, as_object, as_string, folded
from ocispec.reference import Reference
from storage.threads import finish

_KNOWN = folded("Config", "RepoTags", "Layers", "Parent", "LayerSources")
# A damaged image is noticed in small steps, which a cancellation can come between.
_STEP = 256 * 1024


@dataclass(frozen=True, slots=True)
class Saved:
    """One image in manifest.json.

    Attributes:
        config: member that holds its config.
        names: its tags, in normal form.
        layers: members that hold its layers, the base first.
    """

    config: str
    names: tuple[str, ...]
    layers: tuple[str, ...]

    @classmethod
    def from_json(cls, value: Any, where: str) -> Saved:
        fields = as_object(value, where, _KNOWN)
        tags, layers = (as_list(fields.get(each), f"{where}.{each}") for each in ("RepoTags", "Layers"))
        return cls(
            normal(as_string(fields.get("Config"), f"{where}.Config")),
            tuple(str(Reference.parse(as_string(each, f"{where}.RepoTags"))) for each in tags),
            tuple(normal(as_string(each, f"{where}.Layers")) for each in layers),
        )


async def images(content: ArchiveContent, listed: bytes) -> tuple[tuple[str | None, Descriptor], ...]:
    """Makes an OCI manifest for each image in manifest.json, and gives it and the blobs it names to `content`.

    A compressed layer is read once to know its digest; of a plain one the config tells it, and who reads it verifies.

    Raises:
        ArchiveInvalid: manifest.json or a config breaks its grammar, or a member is missing.
        DigestMismatch: a compressed layer is not the one that the config's diff id names.
    """
    maker, found = _Maker(content), list[tuple[str | None, Descriptor]]()
    for saved in _read(listed):
        made = await maker.manifest(saved)
        found += [(name, made) for name in saved.names or (None,)]
    return tuple(found)


def listed(images: Iterable[tuple[Reference, Manifest]]) -> list[dict[str, Any]]:
    """Returns what manifest.json tells of images whose blobs lie as in an image layout: each image once, all its tags.

    Names are whole: podman takes docker's short `busybox:1` for `localhost/busybox:1`.
    """
    found: dict[bytes, dict[str, Any]] = {}
    for reference, manifest in images:
        config, *layers = (f"blobs/{each.digest.algorithm}/{each.digest.hex}" for each in manifest.blobs)
        entry = found.setdefault(manifest.raw, {"Config": config, "RepoTags": [], "Layers": layers})
        if reference.tag:
            entry["RepoTags"].append(f"{reference.name}:{reference.tag}")
    return list(found.values())


def _read(listed: bytes) -> list[Saved]:
    try:
        entries = as_list(strictjson.loads(listed), "the whole")
        return [Saved.from_json(each, f"[{n}]") for n, each in enumerate(entries)]
    except (LayerhouseError, strictjson.AmbiguousJSON) as error:
        raise ArchiveInvalid(f"manifest.json: {error}") from error


class _Maker:
    def __init__(self, content: ArchiveContent) -> None:
        self._content = content
        self._layers: dict[tuple[Extent, Digest], Descriptor] = {}

    async def manifest(self, saved: Saved) -> Descriptor:
        raw, config = await self._config(saved.config)
        if len(config.diff_ids) != len(saved.layers):
            expected = f"expected {len(config.diff_ids)} layers as its config {saved.config} tells"
            raise ArchiveInvalid(f"manifest.json: {expected}, got {len(saved.layers)}")
        layers = [await self._layer(*each) for each in zip(saved.layers, config.diff_ids, strict=True)]
        described = Descriptor(OCI_CONFIG, Digest.of(raw), len(raw))
        made = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": OCI_MANIFEST,
                "config": described.to_json(),
                "layers": [each.to_json() for each in layers],
            },
            separators=(",", ":"),
        ).encode()
        digest = Digest.of(made)
        self._content.make(digest, made)
        return Descriptor(OCI_MANIFEST, digest, len(made))

    async def _config(self, name: str) -> tuple[bytes, ImageConfig]:
        raw, place = await self._content.document(name), self._content.member(name)
        if raw is None or place is None:
            raise ArchiveInvalid(f"{name}: expected an image's config, it is missing")
        try:
            config = ImageConfig.parse(raw)
        except LayerhouseError as error:
            raise ArchiveInvalid(f"{name}: {error.message}") from error
        self._content.know(Digest.of(raw), name, place)
        return raw, config

    async def _layer(self, name: str, diff_id: Digest) -> Descriptor:
        place = self._content.member(name)
        if place is None:
            raise ArchiveInvalid(f"{name}: expected a layer, it is missing")
        if (place, diff_id) not in self._layers:
            self._layers[place, diff_id] = await self._described(name, place, diff_id)
        return self._layers[place, diff_id]

    async def _described(self, name: str, place: Extent, diff_id: Digest) -> Descriptor:
        head = await Extent(place.path, place.offset, min(place.size, MAGIC_LENGTH)).read()
        kind = compression_of(head)
        digest = diff_id if kind is Compression.NONE else await _measured(name, place, kind, diff_id)
        self._content.know(digest, name, place)
        return Descriptor(kind.value, digest, place.size)


async def _measured(name: str, place: Extent, kind: Compression, diff_id: Digest) -> Digest:
    """Returns the digest of a compressed layer whose unpacked content has the digest `diff_id`."""
    packed, plain = hashlib.sha256(), Verifier(diff_id)

    async def hashed() -> AsyncGenerator[bytes, None]:
        async with aclosing(place.pieces(_STEP)) as pieces:
            async for piece in pieces:
                await finish(packed.update, piece)
                yield piece

    async with aclosing(hashed()) as read, aclosing(unpacked(read, kind)) as pieces:
        async for piece in pieces:
            await finish(plain.update, piece)
    if not plain.verified():
        raise DigestMismatch(f"{name}: expected the diff id {diff_id}, its content hashes to {plain.actual}")
    return Digest("sha256", packed.hexdigest())
