"""Load: images out of an archive into the cache, every byte verified, the names last."""

from __future__ import annotations

import os
import stat
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from client.archive import sources
from client.archive.compression import Compression
from client.archive.content import naming
from client.archive.flow import pieces_of
from client.archive.images import Images
from client.archive.sources import Source
from client.archive.spooling import spooled
from client.caching.cache import Cache
from client.transfers.content import MAX_DEPTH
from ocispec.descriptor import Descriptor
from ocispec.digest import Digest
from ocispec.errors import ArchiveInvalid, DigestMismatch, ManifestInvalid
from ocispec.manifest import Manifest
from ocispec.mediatypes import is_foreign
from ocispec.reference import Reference
from storage.ingest import storage_errors
from storage.layout import ImageLayout
from storage.threads import acquire, finish


@dataclass(frozen=True, slots=True)
class Loaded:
    """An image that is in the cache now.

    Attributes:
        name: under which it is there, in normal form.
        digest: of what the name points at, an index or an image.
        media_type: of the same.
    """

    name: str
    digest: Digest
    media_type: str


async def load(
    cache: Cache, source: str | os.PathLike[str] | int, *, name: str | Reference | None = None
) -> list[Loaded]:
    """Puts the images of an archive into the cache: all of them, or no name at all.

    Blobs that the cache has are not read again. Cancelled at any point, it leaves blobs that are whole and verified.

    Args:
        cache: where they go.
        source: an OCI layout's folder; a file, plain, gzip or zstd, that is an oci-archive or a docker-archive; or an
            open file descriptor that gives such a file and need not seek.
        name: for the one image in the archive, in place of the names it has there.

    Returns:
        A value for each name, in the order of the archive.

    Raises:
        ArchiveInvalid: no archive, one of its parts is missing or not what its digest names, or an image has no name.
        DigestMismatch: a layer of a docker-archive is not the one its config tells.
        StorageError: the archive cannot be read, or the cache not be written.
    """
    layout, label = cache.layout, _label(source)
    given = Reference.parse(name) if isinstance(name, str) else name
    async with layout.in_use(), _opened(source, layout) as found:
        with naming(label):
            images = _named(found.images, given)
            taker = _Taker(found, layout)
            for _, top in images:
                await taker.take(top)
        for each, top in images:
            await layout.set_name(each, top)
    return [Loaded(each, top.digest, top.media_type) for each, top in images]


def _label(source: str | os.PathLike[str] | int) -> str:
    if isinstance(source, int):
        return "standard input" if source == 0 else f"file descriptor {source}"
    return os.fspath(source)


@asynccontextmanager
async def _opened(source: str | os.PathLike[str] | int, layout: ImageLayout) -> AsyncIterator[Source]:
    if isinstance(source, int):
        async with _streamed(_label(source), source, layout) as found:
            yield found
    elif await _lies_open(Path(source)):
        async with sources.opened(Path(source)) as found:
            yield found
    else:
        fd = await acquire(os.close, _open, Path(source))
        try:
            async with _streamed(_label(source), fd, layout) as found:
                yield found
        finally:
            os.close(fd)


@asynccontextmanager
async def _streamed(label: str, fd: int, layout: ImageLayout) -> AsyncIterator[Source]:
    async with aclosing(pieces_of(fd, Path(label))) as pieces, spooled(label, pieces, layout) as found:
        yield found


async def _lies_open(path: Path) -> bool:
    """Whether its members can be read where they lie: in a folder or a plain tar."""
    with storage_errors(path):
        mode = (await finish(path.stat)).st_mode
    if stat.S_ISREG(mode):
        return await sources.compression_at(path) is Compression.NONE
    return stat.S_ISDIR(mode)


def _open(path: Path) -> int:
    # A pipe without a writer would else be waited for in a thread, which nothing can stop.
    with storage_errors(path):
        return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)


def _named(images: Images, given: Reference | None) -> list[tuple[str, Descriptor]]:
    if not images:
        raise ArchiveInvalid("expected an image, it holds none")
    if given:
        if len({top.digest for _, top in images}) > 1:
            raise ArchiveInvalid(f"a name is given for one image, it holds {len(images)}")
        return [(str(given), images[0][1])]
    names: dict[str, Descriptor] = {}
    for name, top in images:
        if name is None:
            raise ArchiveInvalid(f"the image {top.digest} has no name in it: give it one with --name")
        if names.setdefault(name, top).digest != top.digest:
            raise ArchiveInvalid(f"{name} names two images in it, {names[name].digest} and {top.digest}")
    return list(names.items())


class _Taker:
    """Takes manifests in, each after what it names, so that no manifest in the layout lacks its parts."""

    def __init__(self, source: Source, layout: ImageLayout) -> None:
        self._content = source.content
        self._layout = layout
        self._taken: set[Digest] = set()

    async def take(self, wanted: Descriptor, depth: int = 0) -> None:
        if wanted.digest in self._taken:
            return
        if depth > MAX_DEPTH:
            raise ArchiveInvalid(f"{self._content.name(wanted)}: indexes lie more than {MAX_DEPTH} deep in each other")
        manifest = await self._manifest(wanted)
        if manifest.is_index:
            await self._children(wanted, manifest, depth)
        for blob in await self._layout.missing(manifest.blobs):
            await self._blob(blob)
        await self._layout.add(wanted.digest, manifest.raw)
        self._taken.add(wanted.digest)

    async def _manifest(self, wanted: Descriptor) -> Manifest:
        raw = await self._content.read(wanted)
        try:
            return Manifest.parse(raw, wanted.media_type)
        except ManifestInvalid as error:
            raise ArchiveInvalid(f"{self._content.name(wanted)}: {error.message}") from error

    async def _children(self, wanted: Descriptor, index: Manifest, depth: int) -> None:
        # An engine saves the whole index, with the platforms that it has.
        there = [each for each in index.manifests if self._content.holds(each)]
        if not there:
            raise ArchiveInvalid(f"{self._content.name(wanted)}: expected an image of this index, none is there")
        for child in there:
            await self.take(child, depth + 1)

    async def _blob(self, blob: Descriptor) -> None:
        content = self._content
        if is_foreign(blob.media_type) and blob.urls and not content.holds(blob):
            return
        async with content.stream(blob) as pieces, self._layout.ingest(blob.digest, blob.size) as incoming:
            async for piece in pieces:
                await incoming.write(piece)
            try:
                await incoming.commit()
            except DigestMismatch as error:
                kind = DigestMismatch if content.told(blob) else ArchiveInvalid
                raise kind(f"{content.name(blob)}: {error.message}") from error
