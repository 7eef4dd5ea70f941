"""Bytes taken in other portions than they come in."""

from __future__ import annotations

from collections.abc import Iterator

from ocispec.errors import LayerInvalid


class Source:
    """Pieces, read one after the other; at most one is held.

    Attributes:
        position: how many bytes were taken.
    """

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self.position = 0
        self._pieces = pieces
        self._piece = memoryview(b"")

    def take(self, count: int) -> bytes:
        """Returns the next bytes; fewer than `count` only at the end."""
        piece = self._next(count)
        if len(piece) == count:
            return bytes(piece)
        taken = bytearray(piece)
        while len(taken) < count and (piece := self._next(count - len(taken))):
            taken += piece
        return bytes(taken)

    def body(self, size: int) -> Iterator[memoryview]:
        """Yields the next `size` bytes as they come.

        Raises:
            LayerInvalid: they end before.
        """
        left = size
        while left:
            piece = self._next(left)
            if not piece:
                raise LayerInvalid(f"expected {size} bytes of content, it ends after {size - left}")
            left -= len(piece)
            yield piece

    def skip(self, size: int) -> None:
        """Passes over bytes; see `body` for errors."""
        for _ in self.body(size):
            pass

    def drain(self) -> None:
        """Passes over all that is left."""
        while self._next(1 << 30):
            pass

    def _next(self, limit: int) -> memoryview:
        while not self._piece:
            piece = next(self._pieces, None)
            if piece is None:
                break
            self._piece = memoryview(piece)
        taken, self._piece = self._piece[:limit], self._piece[limit:]
        self.position += len(taken)
        return taken
