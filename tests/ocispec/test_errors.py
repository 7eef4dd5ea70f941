import copy
import inspect
import pickle
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocispec import errors
from ocispec.errors import LayerhouseError, RegistryError, RequestInvalid, UnknownError, envelope, from_envelope


def descendants(base):
    for each in base.__subclasses__():
        if each.__module__ == errors.__name__:
            yield each
            yield from descendants(each)


TREE = [LayerhouseError, *descendants(LayerhouseError)]
CODED = list(descendants(RegistryError))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=7), inner, max_size=3),
)
BODIES = JSON | st.fixed_dictionaries(
    {"errors": JSON | st.lists(st.fixed_dictionaries({}, optional=dict.fromkeys(("code", "message", "detail"), JSON)))}
)


def test_the_tree_that_is_drawn_is_the_tree_that_is():
    drawn, path = {}, []
    for line in inspect.getdoc(errors).splitlines()[2:]:
        lead, name, rest = re.fullmatch(r"([│├└─ ]*)(\w+)(.*)", line).groups()
        del path[len(lead) // 4 :]
        drawn[name] = (path[-1] if path else None, rest.split())
        path.append(name)
    assert drawn.keys() == {each.__name__ for each in TREE}
    for each in TREE[1:]:
        parent, words = drawn[each.__name__]
        assert parent == each.__base__.__name__
        if words[0].isdecimal():
            assert int(words[0]) == each.status
            assert words[1:] == [each.code] or (not words[1:] and each.code == each.__base__.code)


@pytest.mark.parametrize("kind", TREE)
def test_every_error_says_something_and_has_a_status(kind):
    error = kind()
    assert str(error) == error.message == kind.summary
    assert re.fullmatch(r"[A-Z][A-Z_]+", kind.code)
    assert 400 <= kind.status < 600
    assert error.detail is None
    assert error.headers == {}
    assert inspect.isclass(kind)


@pytest.mark.parametrize("kind", TREE)
def test_an_error_can_be_copied_to_another_process(kind):
    error = kind("why", detail={"a": [1]}, headers={"Retry-After": "3"})
    for same in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert (type(same), same.message, same.detail, same.headers) == (kind, "why", error.detail, error.headers)


@pytest.mark.parametrize("kind", CODED)
@given(message=st.text(min_size=1), detail=JSON)
def test_a_client_meets_the_error_that_the_registry_raised(kind, message, detail):
    rebuilt = from_envelope(envelope(kind(message, detail=detail)), kind.status)
    assert type(rebuilt) is kind
    assert (rebuilt.code, rebuilt.message, rebuilt.detail) == (kind.code, message, detail)


def test_a_bare_registry_error_is_met_as_an_unknown_one():
    assert type(from_envelope(envelope(RegistryError("why")), 500)) is UnknownError


def test_the_envelope_is_the_specifications():
    both = envelope(errors.TagInvalid("no"), errors.NameInvalid(detail={"name": "X"}))
    assert both == {
        "errors": [
            {"code": "TAG_INVALID", "message": "no"},
            {"code": "NAME_INVALID", "message": "invalid repository name", "detail": {"name": "X"}},
        ]
    }
    assert type(from_envelope(both, 400)) is errors.TagInvalid


@given(BODIES, st.integers())
def test_no_answer_is_too_odd_to_be_an_error(body, status):
    error = from_envelope(body, status)
    assert isinstance(error, RegistryError)
    assert isinstance(error.message, str)


def test_a_deeply_nested_answer_is_an_error_too():
    deep = []
    for _ in range(100_000):
        deep = [deep]
    entry = {"code": deep, "message": deep, "detail": "kept"}
    error = from_envelope({"errors": [entry]}, 404)
    assert (type(error), error.message, error.detail) == (RequestInvalid, RequestInvalid.summary, "kept")


@pytest.mark.parametrize(
    ("body", "status", "kind"),
    [
        (None, 401, errors.Unauthorized),
        ("<html>", 403, errors.Denied),
        ({}, 405, errors.Unsupported),
        (b"", 416, errors.RangeInvalid),
        ({"errors": []}, 429, errors.TooManyRequests),
        ({"errors": [None]}, 503, errors.Unavailable),
        ({"errors": [{"code": "NEW_CODE"}]}, 429, errors.TooManyRequests),
        ({"errors": [{"code": "NEW_CODE"}]}, 404, RequestInvalid),
        (b"junk", 500, UnknownError),
        ({"errors": [{"code": "MANIFEST_INVALID"}]}, 413, errors.ManifestTooLarge),
        ({"errors": [{"code": "MANIFEST_INVALID"}]}, 422, errors.ManifestInvalid),
        ({"errors": [{"code": "BLOB_UPLOAD_INVALID"}]}, 416, errors.BlobUploadInvalid),
        ({"errors": [{"code": "UNAUTHORIZED"}]}, 403, errors.Unauthorized),
    ],
)
def test_the_status_decides_where_the_body_does_not(body, status, kind):
    assert type(from_envelope(body, status)) is kind
