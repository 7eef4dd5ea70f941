"""Which images an archive holds, and under which names.

index.json      of an image layout (image-spec, image-layout.md); wins where both stand, as a modern engine writes both
manifest.json   of `docker save` (moby, image/tarexport): a list of config, tags and layers
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TypeAlias

from client.archive import docker
from client.archive.content import ArchiveContent
from ocispec.descriptor import REF_NAME, Descriptor
from ocispec.errors import ArchiveInvalid, LayerhouseError
from ocispec.manifest import Manifest
from ocispec.reference import Reference

CONTAINERD_NAME = "io.containerd.image.name"

Images: TypeAlias = tuple[tuple[str | None, Descriptor], ...]


async def images_in(content: ArchiveContent) -> Images:
    """Returns the images in the order of the archive: name in its normal form, None without one, and what it names.

    Raises:
        ArchiveInvalid: neither index.json nor manifest.json is there, or what is there breaks its specification.
        DigestMismatch: a layer of a docker-archive is not the one its config tells.
    """
    index = await content.document("index.json")
    if index is not None:
        return _entries(index)
    listed = await content.document("manifest.json")
    if listed is None:
        raise ArchiveInvalid("expected index.json of an OCI layout or manifest.json of `docker save`, found neither")
    return await docker.images(content, listed)


def entry_of(reference: Reference, top: Descriptor) -> Descriptor:
    """Returns what index.json tells of an image: the whole name twice, as engines and as skopeo look for it."""
    names = {CONTAINERD_NAME: str(reference), REF_NAME: str(reference)}
    return replace(top, annotations={**top.annotations, **names})


def _entries(raw: bytes) -> Images:
    try:
        index = Manifest.parse(raw)
    except LayerhouseError as error:
        raise ArchiveInvalid(f"index.json: {error.message}") from error
    if not index.is_index:
        raise ArchiveInvalid(f"index.json: expected an index, got {index.media_type}")
    return tuple((_name(each.annotations), _bare(each)) for each in index.manifests)


def _name(annotations: Mapping[str, str]) -> str | None:
    # Engines give the whole name in an annotation of their own and the tag alone in the specification's.
    text = annotations.get(CONTAINERD_NAME) or annotations.get(REF_NAME)
    try:
        return str(Reference.parse(text)) if text else None
    except LayerhouseError:
        # It may be any text (image-spec, annotations.md): one that is no image's name names nothing here.
        return None


def _bare(entry: Descriptor) -> Descriptor:
    kept = {name: text for name, text in entry.annotations.items() if name not in (CONTAINERD_NAME, REF_NAME)}
    return replace(entry, annotations=kept)
