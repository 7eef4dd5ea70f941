"""A blob that cannot be kept here, straight from upstream to one reader: a full disk keeps nobody from his bytes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing

from client.registries.remote import Remote
from ocispec.digest import Digest, Verifier
from ocispec.errors import ContentTruncated, DigestMismatch, HostUnreachable, Unavailable
from ocispec.headers import ByteRange
from registry.mirror.upstream import answered
from storage.engine import PIECE
from storage.threads import finish

# Readers that are served so at once: each has a connection of its own to upstream. More wait for their turn.
READERS = 16
# How often the stream may break without bringing so many bytes, and what is waited before it goes on, in seconds.
_TRIES, _PROGRESS, _PAUSE = 3, 64 * 1024, 0.25


class Straight:
    """Implements `storage.engine.Content`: each stream is one of upstream's, which goes on where it broke.

    Nothing is held but the piece that is on its way. The last byte of the blob follows once the whole is verified: for
    that a stream that ends with it begins at the blob's first byte.

    Args:
        remote: the repository upstream.
        digest: the blob.
        size: its length in bytes.
        readers: bounds how many are served at once.
    """

    data = None

    def __init__(self, remote: Remote, digest: Digest, size: int, readers: asyncio.Semaphore) -> None:
        self.size = size
        self._remote = remote
        self._digest = digest
        self._readers = readers

    def detach(self) -> int | None:
        """None: there is no file."""

    def stream(self, offset: int, count: int) -> AsyncGenerator[bytes, None]:
        return self.rest(None, offset, offset, offset + count)

    async def close(self) -> None:
        """Nothing is open between two streams."""

    async def rest(self, fd: int | None, start: int, offset: int, end: int) -> AsyncGenerator[bytes, None]:
        """Yields the bytes from `offset` up to `end`, to a reader who was given those from `start` to `offset`.

        Args:
            fd: where those lie that he was given, if any; it stays the caller's.
            start: where he began.
            offset: the first byte that he lacks.
            end: behind the last one.

        Raises:
            Unavailable: upstream fails, or what he was given and what came now is not the blob.
            RegistryError: see `answered`.
        """
        async with self._readers:
            if end < self.size:
                async with aclosing(self._pieces(offset, end)) as pieces:
                    async for piece in pieces:
                        yield piece
                return
            verifier = Verifier(self._digest)
            async with aclosing(self._pieces(0, start)) as pieces:
                async for piece in pieces:
                    await finish(verifier.update, piece)
            if fd is not None:
                await finish(_hash, verifier, fd, start, offset)
            async with aclosing(self._pieces(offset, end)) as pieces:
                async for piece in pieces:
                    await finish(verifier.update, piece)
                    yield piece if verifier.size < self.size else piece[:-1]
            self._verify(verifier)
            yield piece[-1:]

    def _verify(self, verifier: Verifier) -> None:
        with answered():
            if not verifier.verified():
                place = self._remote.place(self._digest)
                raise DigestMismatch(f"{place}: expected {self._digest}, its content hashes to {verifier.actual}")

    async def _pieces(self, at: int, end: int) -> AsyncGenerator[bytes, None]:
        """Yields a span of upstream's bytes, in as many tries as make progress."""
        tries = _TRIES
        while at < end:
            began, failed = at, ContentTruncated("upstream sent no more")
            try:
                async with aclosing(self._once(at, end)) as pieces:
                    async for piece in pieces:
                        at += len(piece)
                        yield piece
            except (HostUnreachable, ContentTruncated) as error:
                failed = ContentTruncated(error.message)
            if at < end:
                tries = _TRIES if at >= began + _PROGRESS else tries - 1
                if not tries:
                    with answered():
                        raise failed
                await asyncio.sleep(_PAUSE)

    async def _once(self, at: int, end: int) -> AsyncGenerator[bytes, None]:
        span = None if (at, end) == (0, self.size) else ByteRange(at, end - 1)
        async with AsyncExitStack() as opened:
            with answered():
                part = self._remote.part(self._digest, span, mirrors=False, again=True)
                body = await opened.enter_async_context(part)
            # A host that serves no ranges sends all of it.
            skipped = at - body.offset
            async for piece in body.response.pieces():
                wanted = piece[skipped : skipped + end - at]
                skipped = max(0, skipped - len(piece))
                at += len(wanted)
                if wanted:
                    yield wanted
                if at == end:
                    return


def _hash(verifier: Verifier, fd: int, start: int, end: int) -> None:
    while start < end:
        piece = os.pread(fd, min(PIECE, end - start), start)
        if not piece:
            raise Unavailable(f"the bytes from {start} on are gone")
        verifier.update(piece)
        start += len(piece)
