"""Sizes, as the configuration has them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from registry.config.effective import _shown
from registry.config.values import Section, Size, written_size

SIZE: TypeAdapter[int] = TypeAdapter(Size)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1", 1),
        ("100GB", 100 * 10**9),
        ("100 gb", 100 * 10**9),
        ("10GiB", 10 * 2**30),
        ("1.5k", 1500),
        ("0.5KiB", 512),
        ("7B", 7),
        ("3T", 3 * 10**12),
        ("2 pib", 2 * 2**50),
        (12, 12),
    ],
)
def test_a_size_is_read_with_its_unit(text: str | int, expected: int) -> None:
    assert SIZE.validate_python(text) == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x", "expected a size like 100GB, 10GiB or a number of bytes, got 'x'"),
        ("", "expected a size like"),
        ("1ib", "expected a size like"),
        ("1e3", "expected a size like"),
        ("-1", "expected a size like"),
        ("1,5GB", "expected a size like"),
        ("10GBit", "expected a size like"),
        ("٣", "expected a size like"),
        ("0", "expected a size of at least one byte"),
        ("0.1", "expected a size of at least one byte"),
        ("9" * 20, "expected a size that a disk can have"),
        ("9999999PB", "expected a size that a disk can have"),
        ("1" * 1000, "expected a size like"),
    ],
)
def test_what_is_no_size_is_refused(text: str, said: str) -> None:
    with pytest.raises(ValidationError) as met:
        SIZE.validate_python(text)
    assert said in met.value.errors()[0]["msg"]


@given(st.integers(1, 1 << 60) | st.sampled_from([10**9, 2**30, 25 * 10**12, 1024, 1000]))
def test_a_size_is_written_so_that_it_is_read_again(size: int) -> None:
    assert SIZE.validate_python(written_size(size)) == size
    assert len(written_size(size)) <= len(str(size))


def test_a_size_travels_to_the_workers_and_is_shown_with_its_unit() -> None:
    class Space(Section):
        cap: Size | None = None

    given_ = Space.model_validate({"cap": "100GB"})
    assert Space.model_validate_json(given_.model_dump_json()) == given_
    assert _shown(given_.cap, is_hidden=False) == "100GB"
