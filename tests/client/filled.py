"""Images put straight into a cache, or any layout, without a registry."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from client.caching.cache import Cache
from ocispec import mediatypes
from ocispec.descriptor import Descriptor
from ocispec.digest import Digest
from ocispec.platform import Platform


async def put(cache: Cache, data: bytes, media_type: str = mediatypes.OCI_LAYER) -> Descriptor:
    digest = Digest.of(data)
    await cache.layout.add(digest, data)
    return Descriptor(media_type, digest, len(data))


async def image(
    cache: Cache,
    layers: Sequence[bytes],
    *,
    name: str | None = None,
    architecture: str = "amd64",
    history: Sequence[dict[str, Any]] = (),
) -> Descriptor:
    """Stores an image, gives it its name if it has one, and returns what an index says of it."""
    config = {
        "os": "linux",
        "architecture": architecture,
        "rootfs": {"type": "layers", "diff_ids": []},
        "history": list(history),
    }
    members = {
        "schemaVersion": 2,
        "mediaType": mediatypes.OCI_MANIFEST,
        "config": (await put(cache, json.dumps(config).encode(), mediatypes.OCI_CONFIG)).to_json(),
        "layers": [(await put(cache, layer)).to_json() for layer in layers],
    }
    manifest = await put(cache, json.dumps(members).encode(), mediatypes.OCI_MANIFEST)
    if name:
        await cache.layout.set_name(name, manifest)
    return Descriptor(manifest.media_type, manifest.digest, manifest.size, Platform("linux", architecture))


async def index(cache: Cache, name: str, children: Sequence[Descriptor]) -> Descriptor:
    members = {
        "schemaVersion": 2,
        "mediaType": mediatypes.OCI_INDEX,
        "manifests": [each.to_json() for each in children],
    }
    top = await put(cache, json.dumps(members).encode(), mediatypes.OCI_INDEX)
    await cache.layout.set_name(name, top)
    return top


def spoil(cache: Cache, digest: Digest) -> None:
    """Turns one bit of a blob, as a disk does."""
    path = cache.layout.path(digest)
    data = bytearray(path.read_bytes())
    data[0] ^= 1
    path.write_bytes(data)
