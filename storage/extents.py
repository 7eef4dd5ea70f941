"""Which parts of a whole are there: disjoint spans of offsets, in order."""

from __future__ import annotations

from bisect import bisect_left, bisect_right


class Extents:
    """A set of offsets, as spans `[start, end)` that neither overlap nor touch."""

    __slots__ = ("_ends", "_starts")

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []

    @property
    def total(self) -> int:
        """How many offsets are in it."""
        return sum(self._ends) - sum(self._starts)

    def add(self, start: int, end: int) -> None:
        """Adds `[start, end)`, some of which may be in it already."""
        first, last = bisect_left(self._ends, start), bisect_right(self._starts, end)
        if first < last:
            start, end = min(start, self._starts[first]), max(end, self._ends[last - 1])
        self._starts[first:last] = [start]
        self._ends[first:last] = [end]

    def end_of(self, offset: int) -> int:
        """Returns the end of the span that holds `offset`, or `offset` where none does."""
        index = bisect_right(self._starts, offset) - 1
        return max(offset, self._ends[index]) if index >= 0 else offset

    def gaps(self, size: int) -> list[tuple[int, int]]:
        """Returns the spans of `[0, size)` that are not in it, in order."""
        starts, ends = [0, *self._ends], [*self._starts, size]
        return [(start, min(end, size)) for start, end in zip(starts, ends, strict=True) if start < min(end, size)]
