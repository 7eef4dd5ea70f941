"""What the keys of credential files stand for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.access.credential import key_of, names, normalised

hosts = st.from_regex(r"[a-z0-9]{1,8}(\.[a-z0-9]{1,8}){0,2}(:[0-9]{1,5})?", fullmatch=True)
paths = st.lists(st.from_regex(r"[a-z0-9]{1,8}", fullmatch=True), max_size=3).map("/".join)


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("https://index.docker.io/v1/", "docker.io"),
        ("https://index.docker.io/v1/access-token", "docker.io"),
        ("index.docker.io", "docker.io"),
        ("index.docker.io/v1/", "docker.io"),
        ("registry-1.docker.io", "docker.io"),
        ("docker.io", "docker.io"),
        ("docker.io/library/node", "docker.io/library/node"),
        ("https://ghcr.io", "ghcr.io"),
        ("HTTPS://GHCR.io/v2/", "ghcr.io"),
        ("http://localhost:5000/v1/", "localhost:5000"),
        ("localhost:5000", "localhost:5000"),
        ("Quay.io/Org", "quay.io/Org"),
        ("quay.io/org/", "quay.io/org"),
        ("quay.io/v2", "quay.io/v2"),
        ("[::1]:5000/a", "[::1]:5000/a"),
        ("", ""),
        ("https://", ""),
    ],
)
def test_every_form_of_key_is_understood(key: str, meant: str):
    assert normalised(key) == meant


@given(hosts, paths, st.sampled_from(["http://", "https://", "HTTPS://"]))
def test_a_url_means_its_host_and_a_bare_key_its_namespace(host: str, path: str, scheme: str):
    assert normalised(f"{scheme}{host}/{path}") == normalised(host)
    assert normalised(f"{host}/{path}") == f"{normalised(host)}/{path}".rstrip("/")


@given(hosts)
def test_what_we_write_is_what_we_read(host: str):
    assert normalised(key_of(normalised(host))) == normalised(host)


@given(st.text() | st.text("htps:/v12. AaÄİ"))
def test_what_is_normalised_stays_as_it_is(key: str):
    once = normalised(key)
    if not once.startswith(("http://", "https://")) and not once.endswith(("/v1", "/v2")):
        assert normalised(once) == once


def test_the_closest_name_comes_first():
    assert list(names("h:5000", "a/b/c")) == ["h:5000/a/b/c", "h:5000/a/b", "h:5000/a", "h:5000"]
    assert list(names("docker.io", "library/node")) == ["docker.io/library/node", "docker.io/library", "docker.io"]
    assert list(names("h", "")) == ["h"]
