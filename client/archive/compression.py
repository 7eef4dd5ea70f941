"""Which compression bytes are in, by their magic, and what they are without it."""

from __future__ import annotations

import sys
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from enum import Enum
from typing import Any, Protocol

from ocispec import mediatypes
from ocispec.errors import ArchiveInvalid
from storage.threads import finish

PIECE = 1024 * 1024


class Compression(Enum):
    """How content is packed; the value is the media type of a layer that is."""

    NONE = mediatypes.OCI_LAYER
    GZIP = mediatypes.OCI_LAYER_GZIP
    ZSTD = mediatypes.OCI_LAYER_ZSTD


_MAGIC = {b"\x1f\x8b\x08": Compression.GZIP, b"\x28\xb5\x2f\xfd": Compression.ZSTD}
MAGIC_LENGTH = max(map(len, _MAGIC))


def compression_of(head: bytes) -> Compression:
    """Tells the compression by the first `MAGIC_LENGTH` bytes."""
    return next((kind for magic, kind in _MAGIC.items() if head.startswith(magic)), Compression.NONE)


class Decoder(Protocol):
    """Unpacks a stream piece by piece; blocks."""

    def decode(self, data: bytes) -> Iterator[bytes]:
        """Yields what the next bytes give, in pieces of at most `PIECE` bytes.

        Raises:
            ArchiveInvalid: they are not of that compression.
        """

    def close(self) -> None:
        """Raises ArchiveInvalid: the stream ended in the middle."""


def decoder(kind: Compression) -> Decoder:
    kinds: dict[Compression, Callable[[], Decoder]] = {Compression.GZIP: _Gzip, Compression.ZSTD: _Zstd}
    return kinds.get(kind, _Plain)()


class _Plain:
    def decode(self, data: bytes) -> Iterator[bytes]:
        yield data

    def close(self) -> None:
        """Plain content may end anywhere."""


class _Gzip:
    """Members one after the other (RFC 1952, section 2.2); zeros may stand between and after them."""

    def __init__(self) -> None:
        self._member: Any = None

    def decode(self, data: bytes) -> Iterator[bytes]:
        while data:
            if self._member is None:
                if not (data := data.lstrip(b"\0")):
                    return
                self._member = zlib.decompressobj(zlib.MAX_WBITS | 16)
            try:
                out = self._member.decompress(data, PIECE)
            except zlib.error as error:
                raise ArchiveInvalid(f"its gzip content is damaged: {error}") from error
            data = self._member.unconsumed_tail
            if self._member.eof:
                data, self._member = self._member.unused_data, None
            yield out

    def close(self) -> None:
        if self._member is not None:
            raise ArchiveInvalid("its gzip content ends early")


class _Zstd:
    """Frames one after the other (RFC 8878, section 3)."""

    def __init__(self) -> None:
        # One library or the other: Python has it since 3.14. Only who meets zstd pays for the import.
        if sys.version_info >= (3, 14):
            from compression import zstd  # noqa: PLC0415 - see above
        else:
            from backports import zstd  # noqa: PLC0415 - see above
        self._zstd: Any = zstd
        self._frame: Any = None

    def decode(self, data: bytes) -> Iterator[bytes]:
        while data or (self._frame and not self._frame.needs_input):
            self._frame = self._frame or self._zstd.ZstdDecompressor()
            try:
                out = self._frame.decompress(data, PIECE)
            except self._zstd.ZstdError as error:
                raise ArchiveInvalid(f"its zstd content is damaged: {error}") from error
            data = b""
            if self._frame.eof:
                data, self._frame = self._frame.unused_data, None
            yield out

    def close(self) -> None:
        if self._frame is not None:
            raise ArchiveInvalid("its zstd content ends early")


async def unpacked(pieces: AsyncIterator[bytes], kind: Compression) -> AsyncGenerator[bytes, None]:
    """Yields what compressed pieces give, in bounded memory.

    Raises:
        ArchiveInvalid: they are not of that compression, or end early.
    """
    running = await finish(decoder, kind)
    async for piece in pieces:
        parts = running.decode(piece)
        while (part := await finish(next, parts, None)) is not None:
            yield part
    running.close()
