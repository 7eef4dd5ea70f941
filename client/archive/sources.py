"""Images in an archive on disk, to be read where they lie: OCI layout, oci-archive, docker-archive.

async with sources.opened(path) as source:
    for name, top in source.images:
        nodes = await descend(source.content, top)
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from client.archive import members
from client.archive.compression import MAGIC_LENGTH, Compression, compression_of, unpacked
from client.archive.content import ArchiveContent, Folder, Places, naming
from client.archive.images import Images, images_in
from client.archive.members import Extent
from storage.ingest import storage_errors
from storage.threads import acquire, finish


@dataclass(frozen=True, slots=True)
class Source:
    """What an archive holds.

    Attributes:
        content: gives manifests and blobs; whoever streams a blob verifies it.
        images: name in its normal form, or None, and the manifest or index it names, in the order of the archive.
    """

    content: ArchiveContent
    images: Images


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[Source]:
    """Opens an OCI layout's folder, or a tar (plain, gzip or zstd) that is an oci-archive or a docker-archive.

    A plain tar is read where it lies, by the offsets of its members; a compressed one is unpacked into a temporary
    folder first. Cancelled at any point, nothing of that stays.

    Raises:
        ArchiveInvalid: no such archive; one line with file, member, and what was expected. Reading its content raises
            the same.
        DigestMismatch: a compressed layer of a docker-archive is not the one its config tells.
        StorageError: the file cannot be read (`PathUnknown`: it is not there), or not be unpacked.
    """
    with storage_errors(path):
        folder = await finish(path.is_dir)
    if folder:
        yield await source_of(str(path), Folder(path))
    elif (kind := await compression_at(path)) is Compression.NONE:
        yield await _tar(path, path)
    else:
        scratch = Path(await acquire(shutil.rmtree, _scratch))
        try:
            await _unpack(path, kind, scratch / "tar")
            yield await _tar(path, scratch / "tar")
        finally:
            await finish(shutil.rmtree, scratch)


async def source_of(label: str, places: Places) -> Source:
    """Finds the images among members; see `opened` for errors, which begin with `label`."""
    content = ArchiveContent(label, places)
    with naming(label):
        return Source(content, await images_in(content))


async def compression_at(path: Path) -> Compression:
    """Tells how a file is packed; raises StorageError: it cannot be read."""

    def head() -> bytes:
        with storage_errors(path), path.open("rb", buffering=0) as file:
            return file.read(MAGIC_LENGTH)

    return compression_of(await finish(head))


def _scratch() -> str:
    return tempfile.mkdtemp(prefix="pullclient-")


async def _tar(path: Path, plain: Path) -> Source:
    with naming(str(path)):
        places = await finish(members.scan, plain)
    return await source_of(str(path), places)


async def _unpack(path: Path, kind: Compression, target: Path) -> None:
    size = (await finish(path.stat)).st_size
    with naming(str(path)), storage_errors(target), await finish(target.open, "xb") as file:
        async with aclosing(Extent(path, 0, size).pieces()) as packed, aclosing(unpacked(packed, kind)) as pieces:
            async for piece in pieces:
                await finish(file.write, piece)
