import pytest

from ocispec.errors import GrammarError
from ocispec.members import as_list, as_object, as_string, folded, optional_string, shown, string_map

DEEP = []
for _ in range(100_000):
    DEEP = [DEEP]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "nothing"),
        ({}, "an object"),
        (DEEP, "a list"),
        (True, "true"),
        (1.5, "1.5"),
        ("a\nb", '"a\\nb"'),
        ("\x1b[31m\ud800", '"\\u001b[31m\\ud800"'),
        ("x" * 4096, '"' + "x" * 79),
    ],
)
def test_messages_show_any_value_short_and_printable(value, text):
    assert shown(value) == text


@pytest.mark.parametrize(
    ("reader", "value", "message"),
    [
        (as_object, [], "x: expected an object, got a list"),
        (as_object, None, "x: expected an object, got nothing"),
        (as_list, {}, "x: expected a list, got an object"),
        (as_list, "", 'x: expected a list, got ""'),
        (as_string, None, "x: expected a string, got nothing"),
        (as_string, False, "x: expected a string, got false"),
        (optional_string, 1, "x: expected a string, got 1"),
        (string_map, [], "x: expected an object, got a list"),
        (string_map, {"a": 1}, 'x["a"]: expected a string, got 1'),
        (string_map, {"a": None}, 'x["a"]: expected a string, got nothing'),
    ],
)
def test_a_wrong_type_is_named_with_its_place(reader, value, message):
    with pytest.raises(GrammarError) as caught:
        reader(value, "x")
    assert caught.value.message == message


def test_absent_members_read_as_empty():
    assert as_list(None, "x") == []
    assert string_map(None, "x") == {}
    assert optional_string(None, "x") is None
    assert optional_string("", "x") is None


@pytest.mark.parametrize("name", ["Layers", "LAYERS", "layer\u017f"])
def test_a_name_that_go_takes_for_a_known_one_is_refused(name):
    assert as_object({"layers": 1, "other": 2, "Other": 3}, "x", folded("layers")) == {
        "layers": 1, "other": 2, "Other": 3,
    }  # fmt: skip
    with pytest.raises(GrammarError, match=r"x: the name .* differs from a known one in case alone"):
        as_object({"layers": [], name: []}, "x", folded("layers"))
