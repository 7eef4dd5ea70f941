"""Layers that an old engine cannot unpack, unpacked.

`docker load` before 23.0 knows gzip but not zstd ("archive/tar: invalid tar header"), while it, skopeo and podman all
take gzip layers as they are. So a zstd layer goes into a docker-archive as the tar it packs, whose digest the config
tells as its diff id, and the manifest is made anew for it; everything else stays as it is, byte by byte.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace

from client.archive.choosing import Chosen
from client.archive.compression import MAGIC_LENGTH, Compression, compression_of, unpacked
from client.transfers.content import Content, Node
from client.wording import one_line
from ocispec.descriptor import Descriptor
from ocispec.digest import Digest
from ocispec.errors import ArchiveInvalid
from ocispec.manifest import ImageConfig, Manifest
from ocispec.mediatypes import IMAGE_CONFIGS, OCI_LAYER


async def for_docker(image: Chosen) -> Chosen:
    """Returns the image as a docker-archive has it.

    Raises:
        ArchiveInvalid: it is no container image, or lacks a foreign layer.
        LayerhouseError: see `Content`.
    """
    node = image.top
    config = node.manifest.config
    if config is None or config.media_type not in IMAGE_CONFIGS:
        kind = one_line(node.manifest.artifact_type or "")
        raise ArchiveInvalid(f"{image.reference} is no container image but {kind}: save it as oci-archive or oci")
    here = {each.digest for each in image.blobs}
    if lacking := [each for each in node.manifest.layers if each.digest not in here]:
        raise ArchiveInvalid(f"{image.reference}: the foreign layer {lacking[0].digest} is not here")
    return await _unpacked(image, node, config)


async def _unpacked(image: Chosen, node: Node, config: Descriptor) -> Chosen:
    ids = ImageConfig.parse(await image.content.read(config)).diff_ids
    layers = node.manifest.layers
    if len(ids) != len(layers):
        raise ArchiveInvalid(f"{image.reference}: its config tells {len(ids)} layers, its manifest {len(layers)}")
    packed: dict[Digest, Descriptor] = {}
    plain: dict[Digest, Descriptor] = {}
    for layer, diff_id in zip(layers, ids, strict=True):
        if layer.digest not in plain and await _is_zstd(image.content, layer):
            packed[diff_id] = layer
            plain[layer.digest] = Descriptor(OCI_LAYER, diff_id, await _size(image.content, layer))
    if not plain:
        return image
    made = _made(node.manifest, plain)
    blobs = {each.digest: each for each in (plain.get(each.digest, each) for each in image.blobs)}
    top = Node(replace(node.descriptor, digest=made.digest(), size=len(made.raw)), made)
    return replace(image, nodes=(top,), blobs=tuple(blobs.values()), content=_Unpacking(image.content, packed))


def _made(manifest: Manifest, plain: dict[Digest, Descriptor]) -> Manifest:
    members = json.loads(manifest.raw)
    members["layers"] = [plain.get(each.digest, each).to_json() for each in manifest.layers]
    return Manifest.parse(json.dumps(members, separators=(",", ":")).encode(), manifest.media_type)


async def _is_zstd(content: Content, layer: Descriptor) -> bool:
    async with content.stream(layer) as pieces:
        head = await anext(aiter(pieces), b"")
    return compression_of(head[:MAGIC_LENGTH]) is Compression.ZSTD


async def _size(content: Content, layer: Descriptor) -> int:
    async with _plain(content, layer) as pieces:
        return sum([len(each) async for each in pieces])


@asynccontextmanager
async def _plain(content: Content, layer: Descriptor) -> AsyncIterator[AsyncGenerator[bytes, None]]:
    async with content.stream(layer) as packed, aclosing(unpacked(packed, Compression.ZSTD)) as pieces:
        yield pieces


class _Unpacking:
    """`Content` that gives some layers unpacked; whoever reads them verifies them, as always."""

    def __init__(self, content: Content, packed: dict[Digest, Descriptor]) -> None:
        self._content = content
        self._packed = packed

    async def read(self, wanted: Descriptor) -> bytes:
        return await self._content.read(wanted)

    @asynccontextmanager
    async def stream(self, wanted: Descriptor) -> AsyncIterator[AsyncIterator[bytes]]:
        layer = self._packed.get(wanted.digest)
        async with self._content.stream(wanted) if layer is None else _plain(self._content, layer) as pieces:
            yield pieces
