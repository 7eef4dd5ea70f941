"""Images whose layers are what every client takes: gzip'd tar archives of bytes that do not compress."""

from __future__ import annotations

import hashlib
import json
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bench.content import MANIFEST
from bench.load import Connection, pieces
from bench.load import push as push_blob

REPOSITORY = "bench/pulled"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
_BLOCK = 512
_GZIP = 31  # zlib's window bits for a gzip header and trailer


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer as its manifest and its configuration name it; `size` is that of the gzip'd bytes."""

    digest: str
    diff_id: str
    size: int

    @classmethod
    def of(cls, seed: int, size: int) -> Layer:
        plain, packed, length = hashlib.sha256(), hashlib.sha256(), 0
        for piece in _packed(_seen(plain, _archive(seed, size))):
            packed.update(piece)
            length += len(piece)
        return cls(f"sha256:{packed.hexdigest()}", f"sha256:{plain.hexdigest()}", length)


@dataclass(frozen=True, slots=True)
class Image:
    """An image that was pushed; `size` is that of its layers, gzip'd."""

    tag: str
    layers: tuple[Layer, ...]

    @property
    def size(self) -> int:
        return sum(layer.size for layer in self.layers)

    def reference(self, port: int) -> str:
        return f"127.0.0.1:{port}/{REPOSITORY}:{self.tag}"


def push(port: int, tag: str, sizes: Sequence[int], seed: int) -> Image:
    """Gives a registry an image whose layers hold one file each, of the given sizes."""
    layers = []
    with Connection(port) as connection:
        for number, size in enumerate(sizes, seed):
            # Made twice: that needs neither memory nor disk.
            layer = Layer.of(number, size)
            push_blob(connection, REPOSITORY, layer.digest, layer.size, _packed(_archive(number, size)))
            layers.append(layer)
        image = Image(tag, tuple(layers))
        _push_manifest(connection, image)
    return image


def _push_manifest(connection: Connection, image: Image) -> None:
    diff_ids = [layer.diff_id for layer in image.layers]
    platform = {"architecture": "amd64", "os": "linux"}
    config = json.dumps({**platform, "config": {}, "rootfs": {"type": "layers", "diff_ids": diff_ids}}).encode()
    named = f"sha256:{hashlib.sha256(config).hexdigest()}"
    push_blob(connection, REPOSITORY, named, len(config), iter([config]))
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": _CONFIG, "size": len(config), "digest": named},
        "layers": [{"mediaType": _LAYER, "size": layer.size, "digest": layer.digest} for layer in image.layers],
    }
    path = f"/v2/{REPOSITORY}/manifests/{image.tag}"
    status, _, told = connection.ask("PUT", path, [("Content-Type", MANIFEST)], json.dumps(manifest).encode())
    if status != 201:
        raise ConnectionError(f"the manifest was answered with {status}: {told!r}")


def _archive(seed: int, size: int) -> Iterator[bytes | bytearray]:
    """Gives a tar archive with one file of `size` bytes."""
    member = tarfile.TarInfo(f"file-{seed}")
    member.size = size
    yield member.tobuf(tarfile.USTAR_FORMAT)
    yield from pieces(seed, size)
    yield bytes(-size % _BLOCK + 2 * _BLOCK)


def _packed(plain: Iterator[bytes | bytearray]) -> Iterator[bytes]:
    """Gives it gzip'd, in stored blocks: the content does not compress, and trying to takes minutes."""
    squeeze = zlib.compressobj(0, wbits=_GZIP)
    for piece in plain:
        yield squeeze.compress(piece)
    yield squeeze.flush()


def _seen(running: hashlib._Hash, plain: Iterator[bytes | bytearray]) -> Iterator[bytes | bytearray]:
    for piece in plain:
        running.update(piece)
        yield piece
