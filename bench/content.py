"""What every registry holds while it is measured: the same bytes, from the same seeds."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from bench.load import Connection, pieces
from bench.load import push as push_blob

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
REPOSITORY = "bench/image"
IMAGES = 16
_LAYERS = 5
_SMALL = 5 * 1024


@dataclass(frozen=True, slots=True)
class Image:
    """An image of small layers, with a manifest of about 1.5 KB; `small` is the digest of its first layer."""

    tag: str
    digest: str
    small: str


@dataclass(frozen=True, slots=True)
class Content:
    """Some images, and the digest of a large blob of `large_size` bytes beside them."""

    images: list[Image]
    large: str
    large_size: int


def push(port: int, large_size: int) -> Content:
    """Gives a registry the content over HTTP."""
    connection = Connection(port)
    images = [_push_image(connection, f"v{number}", number * (_LAYERS + 1)) for number in range(IMAGES)]
    return Content(images, _push_blob(connection, IMAGES * (_LAYERS + 1), large_size), large_size)


def _push_blob(connection: Connection, seed: int, size: int) -> str:
    running = hashlib.sha256()
    for piece in pieces(seed, size):
        running.update(piece)
    digest = f"sha256:{running.hexdigest()}"
    push_blob(connection, REPOSITORY, digest, size, pieces(seed, size))
    return digest


def _push_image(connection: Connection, tag: str, seed: int) -> Image:
    config, *layers = [_push_blob(connection, seed + number, _SMALL) for number in range(_LAYERS + 1)]
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": _descriptor("config.v1+json", config),
        "layers": [_descriptor("layer.v1.tar+gzip", layer) for layer in layers],
    }
    raw = json.dumps(manifest, indent=3).encode()
    path = f"/v2/{REPOSITORY}/manifests/{tag}"
    status, _, told = connection.ask("PUT", path, [("Content-Type", MANIFEST)], raw)
    if status != 201:
        raise ConnectionError(f"the manifest was answered with {status}: {told!r}")
    return Image(tag, f"sha256:{hashlib.sha256(raw).hexdigest()}", layers[0])


def _descriptor(kind: str, digest: str) -> dict[str, object]:
    return {"mediaType": f"application/vnd.oci.image.{kind}", "size": _SMALL, "digest": digest}
