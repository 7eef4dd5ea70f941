"""Archives as tests want them, made by Python's own tarfile and json."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import tarfile
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any
from unittest.mock import patch

from backports import zstd

from client.caching.cache import Cache
from ocispec.descriptor import Descriptor
from ocispec.digest import Digest
from ocispec.mediatypes import OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_LAYER_GZIP, OCI_LAYER_ZSTD, OCI_MANIFEST

PACKED = {
    "plain": (OCI_LAYER, bytes),
    "gzip": (OCI_LAYER_GZIP, lambda data: gzip.compress(data, mtime=0)),
    "zstd": (OCI_LAYER_ZSTD, zstd.compress),
}


def tar(members: Iterable[tuple[str, bytes] | tarfile.TarInfo], form: int = tarfile.PAX_FORMAT) -> bytes:
    """An archive of files, and of members as they are told."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=form) as archive:
        for each in members:
            if isinstance(each, tarfile.TarInfo):
                archive.addfile(each)
            else:
                info = tarfile.TarInfo(each[0])
                info.size = len(each[1])
                archive.addfile(info, io.BytesIO(each[1]))
    return made.getvalue()


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def sized(name: str, size: int) -> tarfile.TarInfo:
    """A header that promises a body."""
    info = tarfile.TarInfo(name)
    info.size = size
    return info


def blob(data: bytes) -> tuple[str, bytes]:
    """A member at a blob's place."""
    return f"blobs/sha256/{Digest.of(data).hex}", data


def described(data: bytes, media_type: str, **members: Any) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": str(Digest.of(data)), "size": len(data), **members}


def to_json(value: Any) -> bytes:
    return json.dumps(value).encode()


@dataclass(frozen=True, slots=True)
class Image:
    """A small image: its manifest, and everything that it needs by digest."""

    manifest: bytes
    config: bytes
    layers: tuple[bytes, ...]
    plain: tuple[bytes, ...]
    described: dict[str, Any] = field(repr=False)

    @property
    def blobs(self) -> tuple[bytes, ...]:
        return (self.config, *self.layers)

    @property
    def digest(self) -> Digest:
        return Digest.of(self.manifest)


def image(*files: str, packed: str = "gzip", architecture: str = "amd64", **members: Any) -> Image:
    """An image of a layer for each name, which is its one file and its content."""
    media_type, pack = PACKED[packed]
    plain = tuple(tar([(name, name.encode() * 2000)]) for name in files)
    layers = tuple(pack(each) for each in plain)
    ids = [str(Digest.of(each)) for each in plain]
    config = to_json({"os": "linux", "architecture": architecture, "rootfs": {"type": "layers", "diff_ids": ids}})
    manifest = to_json(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": described(config, OCI_CONFIG),
            "layers": [described(each, media_type) for each in layers],
            **members,
        }
    )
    platform = {"os": "linux", "architecture": architecture}
    return Image(manifest, config, layers, plain, described(manifest, OCI_MANIFEST, platform=platform))


def index_of(*images: Image) -> bytes:
    return to_json({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [each.described for each in images]})


def top(
    data: bytes, *names: str, media_type: str = OCI_MANIFEST, key: str = "org.opencontainers.image.ref.name"
) -> bytes:
    """index.json of a layout that holds one manifest or index, under each name."""
    found = [described(data, media_type, annotations={key: name}) for name in names] or [described(data, media_type)]
    return to_json({"schemaVersion": 2, "manifests": found})


def oci(image: Image, *names: str) -> list[tuple[str, bytes]]:
    """Members of an oci-archive of one image."""
    parts = (image.manifest, *image.blobs)
    return [
        ("oci-layout", b'{"imageLayoutVersion":"1.0.0"}'),
        ("index.json", top(image.manifest, *names)),
        *map(blob, parts),
    ]


def docker(image: Image, *tags: str) -> list[tuple[str, bytes]]:
    """Members of a docker-archive as skopeo and podman lay it out."""
    layers = [(f"{Digest.of(each).hex}.tar", each) for each in image.layers]
    config = f"{Digest.of(image.config).hex}.json"
    listed = [{"Config": config, "RepoTags": list(tags) or None, "Layers": [name for name, _ in layers]}]
    return [*layers, (config, image.config), ("manifest.json", to_json(listed))]


async def keep(cache: Cache, name: str, found: Image) -> Descriptor:
    """Put an image into a cache."""
    for each in (*found.blobs, found.manifest):
        await cache.layout.add(Digest.of(each), each)
    made = Descriptor(OCI_MANIFEST, found.digest, len(found.manifest))
    await cache.layout.set_name(name, made)
    return made


async def keep_index(cache: Cache, name: str, raw: bytes, *images: Image) -> Descriptor:
    """Put an index into a cache, with these of its images."""
    for each in images:
        for part in (*each.blobs, each.manifest):
            await cache.layout.add(Digest.of(part), part)
    await cache.layout.add(Digest.of(raw), raw)
    made = Descriptor(OCI_INDEX, Digest.of(raw), len(raw))
    await cache.layout.set_name(name, made)
    return made


async def cancelled_everywhere(work: Callable[[], Coroutine[Any, Any, Any]]) -> AsyncIterator[tuple[int, bool]]:
    """Run work again and again, cancelled when it goes to a thread for the first time, the second, … until it ends.

    Yields the number of that visit, and whether the cancellation came through.
    """
    for moment in count(1):
        running = asyncio.create_task(work())
        with patch("asyncio.to_thread", _cancelling(running, moment)):
            (outcome,) = await asyncio.gather(running, return_exceptions=True)
        cancelled = isinstance(outcome, asyncio.CancelledError)
        assert cancelled or not isinstance(outcome, BaseException), outcome
        yield moment, cancelled
        if not cancelled:
            return


def _cancelling(running: asyncio.Task[Any], moment: int) -> Callable[..., Any]:
    visits, real = count(1), asyncio.to_thread

    async def to_thread(*work: Any) -> Any:
        if next(visits) == moment:
            running.cancel()
        return await real(*work)

    return to_thread


def blobs_in(cache: Cache) -> dict[str, bytes]:
    """Every blob in a cache by its hex, each checked."""
    found = {each.name: each.read_bytes() for each in cache.root.glob("blobs/*/*")}
    assert all(Digest.of(data).hex == name for name, data in found.items())
    return found


def files_in(archive: bytes) -> Mapping[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        return {each.name: opened.extractfile(each).read() for each in opened if each.isfile()}
