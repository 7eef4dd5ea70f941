"""Uploads of a hosted repository: hashed while they arrive, and a blob only if the digest is right."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID, uuid4

from ocispec.digest import CANONICAL, Digest, Hash, new_hash
from ocispec.errors import BlobUploadUnknown, DigestInvalid, PathUnknown, RangeInvalid, SizeInvalid
from ocispec.headers import ChunkRange
from ocispec.reference import RepositoryName
from storage import paths
from storage.blobs import HostedBlobs
from storage.engine import PIECE, Appender, Engine
from storage.threads import finish


@dataclass(slots=True)
class RunningHash:
    """The hash of an upload's first `size` bytes."""

    algorithm: str
    hash: Hash
    size: int = 0

    @classmethod
    def start(cls, algorithm: str) -> RunningHash:
        return cls(algorithm, new_hash(algorithm))


class RunningHashes:
    """Hashes of the uploads this process has seen, the last `limit` of them.

    Only a saving: storage holds the bytes, and what is missing here is hashed again from there.
    """

    def __init__(self, limit: int = 1024) -> None:
        self._limit = limit
        self._running: OrderedDict[UUID, RunningHash] = OrderedDict()

    def take(self, upload_id: UUID) -> RunningHash:
        return self._running.pop(upload_id, None) or RunningHash.start(CANONICAL)

    def keep(self, upload_id: UUID, running: RunningHash) -> None:
        self._running[upload_id] = running
        if len(self._running) > self._limit:
            self._running.popitem(last=False)


class HostedUploads:
    """Implements `storage.repository.Uploads`."""

    def __init__(self, engine: Engine, name: RepositoryName, blobs: HostedBlobs, hashes: RunningHashes) -> None:
        self._engine = engine
        self._name = name
        self._blobs = blobs
        self._hashes = hashes

    async def begin(self, algorithm: str = CANONICAL) -> UUID:
        upload_id, running = uuid4(), RunningHash.start(algorithm)
        started = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ").encode()
        await self._engine.write(paths.upload_started_at(self._name, upload_id), started, durable=False)
        await self._engine.write(paths.upload_data(self._name, upload_id), b"", durable=False)
        self._hashes.keep(upload_id, running)
        return upload_id

    async def size(self, upload_id: UUID) -> int:
        try:
            return (await self._engine.stat(paths.upload_data(self._name, upload_id))).size
        except PathUnknown:
            raise _unknown(upload_id) from None

    async def append(self, upload_id: UUID, chunks: AsyncIterator[bytes], span: ChunkRange | None = None) -> int:
        async with self._appender(upload_id) as appender:
            _require_start(appender, span)
            running = self._hashes.take(upload_id)
            await _receive(appender, running, chunks, span)
            self._hashes.keep(upload_id, running)
            return appender.size

    async def commit(
        self, upload_id: UUID, digest: Digest, chunks: AsyncIterator[bytes], span: ChunkRange | None = None
    ) -> int:
        async with self._appender(upload_id) as appender:
            _require_start(appender, span)
            running = self._hashes.take(upload_id)
            if running.algorithm != digest.algorithm:
                running = RunningHash.start(digest.algorithm)
            await _receive(appender, running, chunks, span)
            actual, size = await _complete(appender, running), appender.size
            if actual == digest:
                await self._engine.move(paths.upload_data(self._name, upload_id), paths.blob_data(digest))
                await self._blobs.link(digest)
        # What a crash brings back of it is purged as a stale upload.
        await self._engine.delete(paths.upload(self._name, upload_id), durable=False)
        if actual != digest:
            raise DigestInvalid(
                f"the content's digest is {actual}, not {digest}",
                detail={"expected": str(digest), "actual": str(actual)},
            )
        return size

    async def cancel(self, upload_id: UUID) -> None:
        await self.size(upload_id)
        await self._engine.delete(paths.upload(self._name, upload_id))

    @asynccontextmanager
    async def _appender(self, upload_id: UUID) -> AsyncIterator[Appender]:
        try:
            async with self._engine.append(paths.upload_data(self._name, upload_id)) as appender:
                yield appender
        except PathUnknown:
            raise _unknown(upload_id) from None


async def stale(engine: Engine, name: RepositoryName, before: float) -> AsyncIterator[str]:
    """Yields the uploads that were begun and last written to before a time (seconds since the epoch)."""
    for each in await engine.children(paths.uploads(name)):
        folder = f"{paths.uploads(name)}/{each}"
        if max([await _modified(engine, f"{folder}/{file}") for file in ("startedat", "data")]) < before:
            yield each


async def _modified(engine: Engine, path: str) -> float:
    try:
        return (await engine.stat(path)).modified
    except PathUnknown:
        return 0.0


def _require_start(appender: Appender, span: ChunkRange | None) -> None:
    if span and span.first != appender.size:
        there = ChunkRange.of_size(appender.size)
        message = f"the chunk begins at {span.first}, the upload ends at {appender.size}"
        raise RangeInvalid(message, headers={"Range": str(there)})


async def _receive(
    appender: Appender, running: RunningHash, chunks: AsyncIterator[bytes], span: ChunkRange | None
) -> None:
    start = appender.size
    async for piece in _pieces(chunks):
        await _write(appender, running, piece)
        if span and appender.size > start + span.length:
            break
    if span and appender.size != start + span.length:
        received = appender.size - start
        await appender.truncate(start)
        raise SizeInvalid(f"the chunk has {received} bytes, its Content-Range says {span.length}")


async def _write(appender: Appender, running: RunningHash, piece: bytes | bytearray) -> None:
    if running.size != appender.size:
        # Another process added bytes that this hash has not seen: `_complete` catches up.
        await appender.write(piece)
        return
    await appender.write(piece, running.hash)
    running.size = appender.size


async def _pieces(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes | bytearray]:
    """Joins small chunks; hands over what has come when `chunks` breaks, then lets the error go on."""
    joined = bytearray()
    try:
        async for chunk in chunks:
            if not joined and len(chunk) >= PIECE:
                yield chunk
                continue
            joined += chunk
            if len(joined) >= PIECE:
                yield joined
                joined = bytearray()
    except Exception:
        if joined:
            yield joined
        raise
    if joined:
        yield joined


async def _complete(appender: Appender, running: RunningHash) -> Digest:
    async for piece in appender.read(running.size):
        await finish(running.hash.update, piece)
    return Digest(running.algorithm, running.hash.hexdigest())


def _unknown(upload_id: UUID) -> BlobUploadUnknown:
    return BlobUploadUnknown(detail={"upload": str(upload_id)})
