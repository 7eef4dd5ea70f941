"""Spans of offsets, against a plain set of them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from storage.extents import Extents

SIZE = 40
OFFSETS = st.integers(0, SIZE)
SPANS = st.lists(st.tuples(OFFSETS, st.integers(1, SIZE)), max_size=12)


def made(spans: list[tuple[int, int]]) -> tuple[Extents, set[int]]:
    extents, model = Extents(), set()
    for start, length in spans:
        extents.add(start, start + length)
        model.update(range(start, start + length))
    return extents, model


def runs(offsets: list[int]) -> list[tuple[int, int]]:
    """Maximal runs of consecutive offsets, as spans."""
    found: list[tuple[int, int]] = []
    for each in offsets:
        if found and found[-1][1] == each:
            found[-1] = (found[-1][0], each + 1)
        else:
            found.append((each, each + 1))
    return found


@given(SPANS)
def test_the_total_counts_every_offset_once(spans: list[tuple[int, int]]):
    extents, model = made(spans)
    assert extents.total == len(model)


@given(SPANS, OFFSETS)
def test_gaps_are_the_longest_runs_of_what_is_not_there(spans: list[tuple[int, int]], size: int):
    extents, model = made(spans)
    assert extents.gaps(size) == runs([each for each in range(size) if each not in model])


@given(SPANS, OFFSETS)
def test_the_end_of_an_offset_is_the_first_one_behind_it_that_is_not_there(spans: list[tuple[int, int]], offset: int):
    extents, model = made(spans)
    assert extents.end_of(offset) == next(each for each in range(offset, 10 * SIZE) if each not in model)


@given(SPANS, SPANS)
def test_the_order_in_which_spans_come_is_of_no_account(some: list[tuple[int, int]], others: list[tuple[int, int]]):
    assert made(some + others)[0].gaps(SIZE) == made(others + some)[0].gaps(SIZE)


@given(SPANS)
def test_nothing_is_missing_once_the_gaps_were_filled(spans: list[tuple[int, int]]):
    extents, _ = made(spans)
    for start, end in extents.gaps(SIZE):
        extents.add(start, end)
    assert extents.gaps(SIZE) == []
    assert extents.end_of(0) >= SIZE
