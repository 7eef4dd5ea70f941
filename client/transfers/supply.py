"""Where the blobs that are pushed come from."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from typing import Protocol

from client.transfers.content import Content
from ocispec.descriptor import Descriptor


class Source(Protocol):
    """Gives blobs, from any byte on."""

    def stream(self, wanted: Descriptor, offset: int = 0) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Opens a blob, to be read piece by piece and verified by whoever reads it.

        Raises:
            LayerhouseError: it is not there, or reading fails.
        """


class Local:
    """What lies on this machine, as a `Source`: going to a byte by reading up to it costs nothing that matters."""

    def __init__(self, content: Content) -> None:
        self._content = content

    @asynccontextmanager
    async def stream(self, wanted: Descriptor, offset: int = 0) -> AsyncIterator[AsyncIterator[bytes]]:
        async with self._content.stream(wanted) as pieces, aclosing(beyond(pieces, offset)) as rest:
            yield rest


async def beyond(pieces: AsyncIterator[bytes], offset: int) -> AsyncGenerator[bytes, None]:
    """Yields pieces without their first `offset` bytes."""
    async for piece in pieces:
        if offset < len(piece):
            yield piece[offset:]
        offset = max(0, offset - len(piece))
