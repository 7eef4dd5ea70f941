"""Save: images out of the cache into a docker-archive, an oci-archive or an OCI layout.

A docker-archive is what a modern `docker save` writes: an oci-archive with manifest.json beside index.json, so that
engines old and new, skopeo and podman read it; its layers keep their bytes (`client.archive.plain` tells when not).
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Collection
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from client.archive import docker, folder
from client.archive.choosing import Chosen, choose, named
from client.archive.formats import Format, checked
from client.archive.images import entry_of
from client.archive.plain import for_docker
from client.archive.writing import TarWriter, Write, flowing, written
from client.caching.cache import Cache
from ocispec.descriptor import Descriptor
from ocispec.digest import Digest, Verifier
from ocispec.errors import StorageError
from ocispec.mediatypes import OCI_INDEX
from ocispec.platform import Platform
from ocispec.reference import Reference
from storage.threads import finish

_VERSION = b'{"imageLayoutVersion":"1.0.0"}'


async def save(
    cache: Cache,
    references: Collection[str | Reference],
    target: str | os.PathLike[str] | int,
    *,
    format: Format | str = Format.DOCKER_ARCHIVE,  # noqa: A002 - the option's name
    platform: str | Platform | None = None,
    all_platforms: bool = False,
) -> None:
    """Writes images of the cache, each blob once and verified; the same images give the same bytes.

    A file or a folder appears whole or not at all, and what it replaces stays until then; into an OCI layout that is
    there already, images are added. Cancelled at any point, nothing half is left; a pipe has got what went into it.

    Args:
        cache: where the images are.
        references: their names there.
        target: a file's path, or an open file descriptor that need not seek; for `Format.OCI` a folder's path.
        format: what is written.
        platform: which image of an index; this machine's, or the only one that is there, unless told.
        all_platforms: the whole index of each; not into a docker-archive, which has one image per name.

    Raises:
        ConfigurationError: the arguments contradict each other.
        CacheError: an image is not in the cache, or not whole.
        PlatformUnknown: an image is there for other platforms only.
        ArchiveInvalid: the format cannot hold the image.
        StorageError: the target cannot be written, or the cache is damaged.
    """
    kind = checked(format, stream=isinstance(target, int), platform=bool(platform), all_platforms=all_platforms)
    names = list(dict.fromkeys(Reference.parse(each) if isinstance(each, str) else each for each in references))
    wanted = Platform.parse(platform) if isinstance(platform, str) else platform
    # Before the lock, which makes the cache's folder.
    for each in names:
        await named(cache, each)
    async with cache.layout.in_use():
        await save_chosen([await choose(cache, each, wanted, everything=all_platforms) for each in names], target, kind)


async def save_chosen(images: list[Chosen], target: str | os.PathLike[str] | int, kind: Format) -> None:
    """Writes images that may lie anywhere; see `save`."""
    if kind is Format.OCI and not isinstance(target, int):
        await folder.save(images, Path(target))
        return
    images = [await for_docker(each) for each in images] if kind is Format.DOCKER_ARCHIVE else images
    async with _opened(target) as write:
        await _archive(TarWriter(write), images, docker_too=kind is Format.DOCKER_ARCHIVE)


def _opened(target: str | os.PathLike[str] | int) -> AbstractAsyncContextManager[Write]:
    if isinstance(target, int):
        return flowing(target, Path("standard output" if target == 1 else f"file descriptor {target}"))
    return written(Path(target))


async def _archive(tar: TarWriter, images: list[Chosen], *, docker_too: bool) -> None:
    await tar.file("oci-layout", _VERSION)
    entries = [entry_of(each.reference, each.top.descriptor).to_json() for each in images]
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}
    await tar.file("index.json", _json(index))
    if docker_too:
        listed = [(image.reference, image.top.manifest) for image in images]
        await tar.file("manifest.json", _json(docker.listed(listed)))
    blobs = {blob.digest: (blob, image.content) for image in images for blob in image.blobs}
    made = {node.descriptor.digest: node.manifest.raw for image in images for node in image.nodes}
    await tar.folder("blobs")
    for algorithm in sorted({each.algorithm for each in (*blobs, *made)}):
        await tar.folder(f"blobs/{algorithm}")
    for digest, raw in made.items():
        await tar.file(_place(digest), raw)
    for digest, (blob, content) in blobs.items():
        async with content.stream(blob) as pieces:
            await tar.stream(_place(digest), blob.size, _verified(blob, pieces))
    await tar.close()


async def _verified(blob: Descriptor, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    running = Verifier(blob.digest)
    async for piece in pieces:
        await finish(running.update, piece)
        yield piece
    if not running.verified():
        raise StorageError(f"damaged in storage: expected {blob.digest}, its content hashes to {running.actual}")


def _place(digest: Digest) -> str:
    return f"blobs/{digest.algorithm}/{digest.hex}"


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
