"""An archive that comes as a stream: blobs go straight into the layout, the rest waits on disk beside it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from uuid import uuid4

from client.archive import headers
from client.archive.compression import MAGIC_LENGTH, compression_of, unpacked
from client.archive.content import naming
from client.archive.flow import Flow
from client.archive.headers import Entry, Kind
from client.archive.members import Extent, Members, digest_in, normal
from client.archive.sources import Source, source_of
from ocispec.descriptor import Descriptor
from ocispec.digest import Digest
from ocispec.errors import ArchiveInvalid, DigestMismatch
from ocispec.mediatypes import OCTET_STREAM
from storage import durable
from storage.ingest import storage_errors
from storage.layout import ImageLayout
from storage.leftovers import SCRATCH
from storage.threads import finish


@asynccontextmanager
async def spooled(label: str, pieces: AsyncIterator[bytes], layout: ImageLayout) -> AsyncIterator[Source]:
    """Reads an archive to its end, plain or compressed, its members in any order; what waited goes with the context.

    Members that lie at a blob's place in an image layout are whole and verified in `layout` afterwards.

    Raises:
        ArchiveInvalid: no archive; as `sources.opened`, and a blob is not what its name tells.
        StorageError: the stream cannot be read, or the layout not be written.
    """
    folder = layout.root / SCRATCH / uuid4().hex
    try:
        with naming(label):
            packed = Flow(pieces)
            kind = compression_of(await packed.peek(MAGIC_LENGTH))
            async with aclosing(packed.rest()) as rest, aclosing(unpacked(rest, kind)) as plain:
                members = await _Spool(layout, folder).members(Flow(plain))
        yield await source_of(label, members)
    finally:
        await finish(durable.remove, folder)


class _Spool:
    def __init__(self, layout: ImageLayout, folder: Path) -> None:
        self._layout = layout
        self._folder = folder
        self._members = Members()
        self._waiting = 0

    async def members(self, flow: Flow) -> Members:
        with storage_errors(self._folder):
            await finish(self._make)
        reader = headers.entries()
        wanted = next(reader)
        while True:
            answer = b""
            if isinstance(wanted, Entry):
                async with aclosing(flow.body(wanted.size)) as body:
                    await self._member(wanted, body)
            else:
                answer = await flow.take(wanted)
            try:
                wanted = reader.send(answer)
            except StopIteration:
                await flow.drain()
                return self._members

    def _make(self) -> None:
        self._folder.mkdir(parents=True)

    async def _member(self, entry: Entry, body: AsyncGenerator[bytes, None]) -> None:
        if entry.kind is Kind.FILE:
            name = normal(entry.name)
            try:
                await self._file(name, entry.size, body)
            except (ArchiveInvalid, DigestMismatch) as error:
                raise ArchiveInvalid(f"{name[:200]}: {error.message}") from error
            return
        if entry.kind is not Kind.OTHER:
            self._members.add_link(entry)
        await _skip(body)

    async def _file(self, name: str, size: int, body: AsyncGenerator[bytes, None]) -> None:
        digest = digest_in(name)
        if digest is None:
            self._waiting += 1
            path = self._folder / str(self._waiting)
            self._members.add_file(name, Extent(path, 0, size))
            await _write(path, body)
        else:
            self._members.add_file(name, Extent(self._layout.path(digest), 0, size))
            await self._blob(digest, size, body)

    async def _blob(self, digest: Digest, size: int, body: AsyncGenerator[bytes, None]) -> None:
        if not await self._layout.missing([Descriptor(OCTET_STREAM, digest, size)]):
            return await _skip(body)
        async with self._layout.ingest(digest, size) as blob:
            async for piece in body:
                await blob.write(piece)
            await blob.commit()
        return None


async def _write(path: Path, body: AsyncGenerator[bytes, None]) -> None:
    with storage_errors(path), path.open("xb") as file:
        async for piece in body:
            await finish(file.write, piece)


async def _skip(body: AsyncGenerator[bytes, None]) -> None:
    async for _ in body:
        pass
