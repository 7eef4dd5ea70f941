"""How things are put into words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.wording import counted, listed, one_line, seconds, shortened
from ocispec.errors import GrammarError


@given(st.text())
def test_a_foreign_text_is_one_line_that_moves_nothing_on_a_terminal(text: str):
    shown = one_line(text)
    assert shown.isprintable()
    assert len(shown.splitlines()) <= 1


def test_a_text_is_cut_where_it_is_too_long():
    assert shortened("abcdef", 6) == "abcdef"
    assert shortened("abcdef", 5) == "abcd…"


def test_numbers_and_names():
    assert [counted(n, "layer") for n in (0, 1, 2)] == ["0 layers", "1 layer", "2 layers"]
    assert counted(2, "leaf", "leaves") == "2 leaves"
    assert listed(["a", "b"]) == "a, b"
    assert listed(["a", "b", "c", "d", "e"]) == "a, b, c and 2 more"


@pytest.mark.parametrize(
    ("text", "age"), [("0s", 0), ("90s", 90), ("30m", 1800), ("12h", 43200), ("7d", 604800), ("2w", 1209600)]
)
def test_ages(text: str, age: float):
    assert seconds(text) == age


@pytest.mark.parametrize("text", ["", "7", "d", "-1d", "1.5h", "7 d", "7d ", "\u0667d", "9999999d"])
def test_what_is_no_age(text: str):
    with pytest.raises(GrammarError, match="expected a number with s, m, h, d or w"):
        seconds(text)
