"""Names of mirrored images, as people write them."""

from __future__ import annotations

import pytest

from ocispec.errors import LayerhouseError
from registry.config.mirror import Mirror
from registry.config.pins import Pin
from registry.mirror.naming import Names
from registry.mirror.upstreams import Upstreams

HUB = {"name": "docker.io", "aliases": "registry-1.docker.io"}
GHCR = {"name": "ghcr.io"}
SETTINGS = Mirror.model_validate({"upstreams": [HUB, GHCR], "default": "docker.io", "hosted": "team/**"})
MANY = Names(Upstreams(SETTINGS), "")
NO_DEFAULT = Names(Upstreams(Mirror.model_validate({"upstreams": [HUB]})), "")
DOCKER = Names(None, "registry-1.docker.io")
OTHER = Names(None, "registry.example:5000")
DIGEST = f"sha256:{'a' * 64}"


@pytest.mark.parametrize(
    ("names", "text", "image"),
    [
        (MANY, "alpine", "docker.io/library/alpine"),
        (MANY, "alpine:3", "docker.io/library/alpine:3"),
        (MANY, "org/app:3", "docker.io/org/app:3"),
        (MANY, "docker.io/alpine", "docker.io/library/alpine"),
        (MANY, "registry-1.docker.io/library/alpine:3", "docker.io/library/alpine:3"),
        (MANY, f"ghcr.io/org/app@{DIGEST}", f"ghcr.io/org/app@{DIGEST}"),
        (MANY, f"ghcr.io/org/app:3@{DIGEST}", f"ghcr.io/org/app@{DIGEST}"),
        (DOCKER, "alpine", "library/alpine"),
        (DOCKER, "docker.io/alpine:3", "library/alpine:3"),
        (DOCKER, "registry-1.docker.io/org/app", "org/app"),
        (OTHER, "app:1", "app:1"),
        (OTHER, "registry.example:5000/team/app:1", "team/app:1"),
    ],
)
def test_a_name_means_what_a_client_would_get(names: Names, text: str, image: str) -> None:
    assert str(names.parse(text)) == image


@pytest.mark.parametrize(
    ("names", "text", "said"),
    [
        (MANY, "quay.io/org/app", "quay.io/org/app: quay.io is not mirrored here"),
        (MANY, "team/app", "team/app is hosted here, and mirrored from nowhere"),
        (NO_DEFAULT, "alpine", "alpine is hosted here, and mirrored from nowhere"),
        (OTHER, "ghcr.io/org/app", "ghcr.io/org/app: ghcr.io is not mirrored here"),
        (MANY, "alpine:", "invalid tag ''"),
        (MANY, "Alpine", "invalid repository name 'Alpine'"),
        (MANY, "alpine@sha256:1", "sha256:1"),
    ],
)
def test_what_is_mirrored_from_nowhere_is_told(names: Names, text: str, said: str) -> None:
    with pytest.raises(LayerhouseError) as met:
        names.parse(text)
    assert said in met.value.message


def test_what_is_said_without_a_tag_is_latest_where_one_image_is_wanted() -> None:
    assert str(MANY.parse("alpine").wanted) == "latest"


@pytest.mark.parametrize("text", ["", "UPPER", "a:b c", "a@b", "a@sha256:1", "/a", "a:", "a:b:c", "a***"])
def test_what_is_no_pin_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected an image like"):
        Pin.parse(text)
