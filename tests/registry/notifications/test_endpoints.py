"""The keys of an endpoint: what Distribution takes is taken, what cannot work is refused, and no secret is shown."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from registry import config
from registry.config.notifications import Endpoint, Notifications

WHOLE = {"name": "a", "url": "https://user:secret@host:8443/path?query"}


def endpoint(**members: Any) -> Endpoint:
    return Endpoint.model_validate({**WHOLE, **members})


def refused(**members: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        endpoint(**members)
    return str(caught.value.errors()[0]["msg"])


def test_what_is_not_given_is_distributions_default() -> None:
    found = endpoint()
    second = timedelta(seconds=1)
    assert (found.timeout, found.threshold, found.backoff, found.disabled) == (second, 10, second, False)


def test_zero_is_the_default_too_as_in_distribution() -> None:
    assert endpoint(timeout="0s", threshold=0, backoff=0) == endpoint()


def test_a_whole_endpoint_is_read() -> None:
    found = endpoint(
        headers={"Authorization": ["Bearer x"], "X-One": "y"},
        timeout="500ms",
        threshold="5",
        backoff="1m",
        ignoredmediatypes=["application/octet-stream"],
        ignore={"mediatypes": ["a/b"], "actions": ["pull"]},
    )
    assert (found.timeout.total_seconds(), found.threshold, found.backoff.total_seconds()) == (0.5, 5, 60)
    assert [each.get_secret_value() for each in found.headers["X-One"]] == ["y"]


@pytest.mark.parametrize(
    "url", ["", "host/path", "ftp://host/", "http://", "http:///path", "http://[", "http://h:99999"]
)
def test_an_address_that_leads_nowhere_is_refused(url: str) -> None:
    assert refused(url=url) == "Value error, expected an address like https://host/path"


def test_other_values_that_cannot_work_are_refused() -> None:
    assert refused(headers={"not a token": ["x"]}) == "Value error, 'not a token' is no name of a header"
    assert "pull" in refused(ignore={"actions": ["pulls"]})
    assert refused(name="")
    assert refused(threshold=-1)
    assert refused(headers="text")


@given(
    st.text().filter(lambda text: not (text.isascii() and text.isprintable())) | st.sampled_from([" ", "\n", "\r\n"])
)
def test_a_header_that_could_not_be_sent_is_refused_without_showing_it(value: str) -> None:
    assert (
        refused(headers={"X": [f"secret{value}"]})
        == "Value error, X: expected printable ASCII without blanks around it"
    )


def test_names_tell_endpoints_apart() -> None:
    with pytest.raises(ValidationError) as caught:
        Notifications.model_validate({"endpoints": [WHOLE, WHOLE]})
    assert "2 endpoints are named 'a': expected a name of its own for each" in str(caught.value)


def test_headers_of_a_file_are_read_and_shown_nowhere(tmp_path: Path) -> None:
    file = tmp_path / "config.yml"
    file.write_text(
        "version: 0.1\nstorage: {filesystem: {}}\nnotifications:\n  endpoints:\n"
        "    - {name: a, url: 'http://host/', headers: {Authorization: [Bearer hidden]}}\n"
    )
    (found,) = config.load(file).notifications.endpoints
    assert "hidden" not in repr(found)
    assert [each.get_secret_value() for each in found.headers["Authorization"]] == ["Bearer hidden"]
