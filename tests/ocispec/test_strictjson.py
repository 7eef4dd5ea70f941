import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocispec.strictjson import AmbiguousJSON, loads

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
)  # fmt: skip


@given(JSON)
def test_plain_json_reads_as_it_was_written(value):
    assert loads(json.dumps(value).encode()) == value


@given(st.binary())
def test_junk_is_refused_and_nothing_else(raw):
    with suppress(AmbiguousJSON):
        loads(raw)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "not valid JSON"),
        (b"\xff\xfe{}", "not valid JSON"),
        (b"\xef\xbb\xbf{}", "not valid JSON"),
        (b"{} {}", "not valid JSON"),
        (b"{'a': 1}", "not valid JSON"),
        (b'{"a": 1,}', "not valid JSON"),
        (b'{"a": NaN}', "NaN is not a JSON number"),
        (b"[Infinity]", "Infinity is not a JSON number"),
        (b"[-Infinity]", "-Infinity is not a JSON number"),
        (b"9" * 5000, "not valid JSON"),
        (b'{"a": 1, "a": 1}', "the name 'a' stands twice"),
        (b'{"b": 0, "a": {"c": [{"d": 1, "\\u0064": 2}]}}', "the name 'd' stands twice"),
        (b'{"' + b"n" * 4096 + b'": 1, "' + b"n" * 4096 + b'": 2}', "the name 'nnn"),
        (b'"\\ud800"', "not valid JSON"),
        (b'{"\\uDC00": 1}', "not valid JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b"[" * 100_000 + b"]" * 100_000, "nested too deeply"),
    ],
)
def test_what_two_readers_could_read_differently_is_refused(raw, reason):
    with pytest.raises(AmbiguousJSON, match=reason) as caught:
        loads(raw)
    assert len(str(caught.value)) < 300


def test_a_whole_surrogate_pair_is_one_character():
    assert loads(b'"\\ud83d\\ude00"') == "\U0001f600"


@pytest.mark.timeout(20)  # a guard against quadratic search, which would take hours
def test_four_megabytes_of_names_with_one_doubled_are_refused():
    names = ",".join(f'"{n}":0' for n in [*range(400_000), 399_999])
    with pytest.raises(AmbiguousJSON, match="'399999' stands twice"):
        loads(f"{{{names}}}".encode())
