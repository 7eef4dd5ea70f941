"""Names alone: which registry is meant, and what its repository is called there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ocispec.errors import NameInvalid, NameUnknown
from ocispec.reference import RepositoryName
from registry.config import ConfigError, Settings
from registry.config.mirror import Mirror, MirroredRegistry
from registry.mirror.checking import check
from registry.mirror.upstream import Upstream
from registry.mirror.upstreams import Place, Upstreams

HUB = {"name": "docker.io", "aliases": ["registry-1.docker.io", "10.0.0.1:5000"], "refuse": "secret/**"}
GHCR = {"name": "ghcr.io", "allow": ["org/**", "one"]}
_PARTS = st.lists(st.from_regex(r"[a-z0-9]{1,8}(\.[a-z0-9]{1,4})?", fullmatch=True), min_size=1, max_size=4)


def upstreams(**members: Any) -> Upstreams:
    return Upstreams(Mirror.model_validate({"upstreams": [HUB, GHCR], **members}))


@pytest.mark.parametrize(
    ("asked", "namespace", "name"),
    [
        ("library/alpine", "docker.io", "docker.io/library/alpine"),
        ("alpine", "docker.io", "docker.io/library/alpine"),
        ("alpine", "Registry-1.Docker.io", "docker.io/library/alpine"),
        ("a/b/c", "10.0.0.1:5000", "docker.io/a/b/c"),
        ("docker.io/alpine", "", "docker.io/library/alpine"),
        ("ghcr.io/org/app", "", "ghcr.io/org/app"),
        ("ghcr.io/one", "", "ghcr.io/one"),
        ("org/app", "ghcr.io", "ghcr.io/org/app"),
        ("alpine", "", "docker.io/library/alpine"),
        ("team/app", "", "team/app"),
        ("quay.io/org/app", "", "docker.io/quay.io/org/app"),
        ("team/app", "docker.io", "docker.io/team/app"),
    ],
)
def test_each_way_of_asking_leads_to_one_name(asked: str, namespace: str, name: str) -> None:
    found = upstreams(default="docker.io", hosted="team/**")
    assert found.canonical(asked, namespace) == name
    assert found.canonical(name) == name


@pytest.mark.parametrize(
    ("asked", "namespace"),
    [
        ("alpine", "quay.io"),
        ("alpine", "169.254.169.254"),
        ("docker.io", ""),
        ("docker.io/secret/app", ""),
        ("secret/app", "docker.io"),
        ("other/app", "ghcr.io"),
        ("ghcr.io/other/app", ""),
    ],
)
def test_what_is_not_mirrored_is_unknown(asked: str, namespace: str) -> None:
    with pytest.raises(NameUnknown):
        upstreams().canonical(asked, namespace)


def test_without_a_default_all_other_names_are_hosted() -> None:
    found = upstreams()
    assert found.canonical("alpine") == "alpine"
    assert found.of(RepositoryName("alpine")) is None
    assert found.of(RepositoryName("docker.io")) is None
    assert found.of(RepositoryName("ghcr.io/org/app")) == Place("ghcr.io", RepositoryName("org/app"))


def test_a_name_that_is_too_long_below_its_registry_is_invalid() -> None:
    with pytest.raises(NameInvalid):
        upstreams().canonical("a" * 250, "docker.io")


@given(parts=_PARTS, namespace=st.sampled_from(["", "docker.io", "ghcr.io"]))
def test_a_canonical_name_stays_and_says_where_it_is(parts: list[str], namespace: str) -> None:
    found = upstreams(default="docker.io", hosted=["a/**", "b*"])
    try:
        name = found.canonical("/".join(parts), namespace)
    except NameUnknown:
        return
    assert found.canonical(name) == name
    place = found.of(name)
    if place:
        assert name == f"{place.upstream}/{place.there}"
    if namespace:
        assert place
        assert place.upstream == namespace


@pytest.mark.parametrize(
    "members",
    [
        {"upstreams": [HUB, HUB]},
        {"upstreams": [{"name": "a", "aliases": "b"}, {"name": "b"}]},
        {"upstreams": [HUB], "default": "quay.io"},
        {"upstreams": [{"name": "Docker.io"}]},
        {"upstreams": [{"name": "a/b"}]},
        {"upstreams": [{"name": "a", "aliases": ["http://b"]}]},
        {"upstreams": [{"name": "a", "url": "b"}]},
        {"upstreams": [{"name": "a", "url": "https://me:hush@b"}]},
        {"upstreams": [{"name": "a", "url": "https://b:x"}]},
        {"upstreams": [{"name": "a", "username": "me"}]},
        {"upstreams": [{"name": "a", "username": "me", "password": "hush", "dockerconfig": "c"}]},
        {"upstreams": [{"name": "a", "allow": "[a"}]},
    ],
)
def test_a_mirror_that_cannot_be_is_refused(members: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as met:
        Mirror.model_validate(members)
    assert "hush" not in "".join(each["msg"] for each in met.value.errors())


def test_a_mirror_and_a_proxy_are_not_both() -> None:
    with pytest.raises(ValidationError, match="not both"):
        Settings.model_validate(
            {"proxy": {"remoteurl": "https://a.example"}, "layerhouse": {"mirror": {"upstreams": [HUB]}}}
        )


@pytest.mark.parametrize(
    ("members", "address", "host"),
    [
        ({"name": "docker.io"}, "https://registry-1.docker.io", "docker.io"),
        ({"name": "ghcr.io"}, "https://ghcr.io", "ghcr.io"),
        ({"name": "near", "url": "http://10.0.0.1:5000/base/"}, "http://10.0.0.1:5000/base", "10.0.0.1:5000"),
    ],
)
def test_where_an_upstream_is(members: dict[str, str], address: str, host: str) -> None:
    settings = MirroredRegistry.model_validate(members)
    upstream = Upstream(settings)
    assert (settings.address, upstream.host, upstream.name) == (address, host, members["name"])


@pytest.mark.parametrize("key", ["ca", "dockerconfig"])
@pytest.mark.parametrize("content", [None, "nonsense"])
def test_a_file_that_cannot_be_used_is_told(tmp_path: Path, key: str, content: str | None) -> None:
    file = tmp_path / "file"
    if content:
        file.write_text(content)
    with pytest.raises(ConfigError, match=rf"layerhouse.mirror.upstreams, a: {key}: .*{file}"):
        Upstream(MirroredRegistry.model_validate({"name": "a", key: str(file)}))


def test_a_mirror_whose_images_lie_in_no_files_is_told_before_anything_listens() -> None:
    check(Settings())
    given = {"storage": {"inmemory": {}}, "proxy": {"remoteurl": "https://a.example"}}
    with pytest.raises(ConfigError, match=r"in files, not in inmemory"):
        check(Settings.model_validate(given))
