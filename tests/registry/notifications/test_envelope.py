"""What an endpoint reads: Distribution's members, and the same where the same happened."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocispec import mediatypes
from ocispec.digest import Digest
from ocispec.reference import RepositoryName, Tag
from registry.events import Event, Target, What
from registry.notifications.envelope import Envelopes, Source, media_type
from storage.repository import StoredManifest
from tests.support.api import image, index
from tests.support.images import INDEX, MANIFEST, sha256

REPOSITORY, TAG = RepositoryName.parse("a/b"), Tag.parse("v1")
BLOB = Digest.of(b"layer")
SOURCE = Source("host:5000", "instance")


def stored(raw: Any, kind: str = MANIFEST) -> StoredManifest:
    data = raw if isinstance(raw, bytes) else json.dumps(raw).encode()
    return StoredManifest(Digest.of(data), kind, data)


def event(what: What, target: Target, **members: Any) -> Event:
    given = {
        "actor": None,
        "address": "192.0.2.1:40000",
        "host": "h",
        "method": "PUT",
        "useragent": "docker/27",
        "request_id": "id-1",
        "base": "https://registry.example",
        "time": 1764000000.25,
        "id": "event",
        **members,
    }
    return Event(what, target, **given)


def read(told: Event, *, references: bool = False) -> Any:
    (found,) = json.loads(Envelopes(SOURCE, references).render(told))["events"]
    return found


def test_an_event_has_the_members_of_distributions() -> None:
    manifest = stored(image(sha256(b"{}"), {sha256(b"layer"): 5}))
    assert read(event(What.PUSH, Target(REPOSITORY, manifest.digest, TAG, manifest), actor="alice")) == {
        "id": "event",
        "timestamp": "2025-11-24T16:00:00.250000Z",
        "action": "push",
        "target": {
            "mediaType": MANIFEST,
            "digest": str(manifest.digest),
            "size": len(manifest.raw),
            "length": len(manifest.raw),
            "repository": "a/b",
            "url": f"https://registry.example/v2/a/b/manifests/{manifest.digest}",
            "tag": "v1",
        },
        "request": {
            "id": "id-1",
            "addr": "192.0.2.1:40000",
            "host": "h",
            "method": "PUT",
            "useragent": "docker/27",
        },
        "actor": {"name": "alice"},
        "source": {"addr": "host:5000", "instanceID": "instance"},
    }


@pytest.mark.parametrize(
    ("what", "target", "expected"),
    [
        (
            What.PULL,
            Target(REPOSITORY, BLOB, size=5),
            {"mediaType": "application/octet-stream", "digest": str(BLOB), "size": 5, "length": 5, "url": "blob"},
        ),
        (
            What.PUSH,
            Target(REPOSITORY, BLOB, size=0),
            {"mediaType": "application/octet-stream", "digest": str(BLOB), "size": 0, "url": "blob"},
        ),
        (
            What.MOUNT,
            Target(REPOSITORY, BLOB, size=5, source=RepositoryName.parse("from")),
            {
                "mediaType": "application/octet-stream",
                "digest": str(BLOB),
                "size": 5,
                "length": 5,
                "fromRepository": "from",
                "url": "blob",
            },
        ),
        (What.DELETE, Target(REPOSITORY, BLOB), {"mediaType": "", "digest": str(BLOB), "size": 0}),
        (What.DELETE, Target(REPOSITORY, tag=TAG), {"mediaType": "", "digest": "", "size": 0, "tag": "v1"}),
        (What.DELETE, Target(REPOSITORY), {"mediaType": "", "digest": "", "size": 0}),
    ],
    ids=["pull", "push of nothing", "mount", "delete", "delete of a tag", "delete of a repository"],
)
def test_a_target_has_what_distribution_tells_of_it(what: What, target: Target, expected: dict[str, Any]) -> None:
    if expected.get("url") == "blob":
        expected = {**expected, "url": f"https://registry.example/v2/a/b/blobs/{BLOB}"}
    assert read(event(what, target))["target"] == {**expected, "repository": "a/b"}


def test_references_are_the_descriptors_that_stand_in_a_manifest() -> None:
    one = stored(image(sha256(b"{}"), {sha256(b"layer"): 5}))
    child = {
        "mediaType": MANIFEST,
        "digest": str(one.digest),
        "size": len(one.raw),
        "platform": {"architecture": "arm64", "os": "linux"},
        "annotations": {"a": "b"},
    }
    many = stored(index(child), INDEX)
    of_image = read(event(What.PULL, Target(REPOSITORY, one.digest, manifest=one)), references=True)
    of_index = read(event(What.PULL, Target(REPOSITORY, many.digest, manifest=many)), references=True)
    document = json.loads(one.raw)
    assert of_image["target"]["references"] == [document["config"], *document["layers"]]
    assert of_index["target"]["references"] == [child]
    assert "references" not in read(event(What.PULL, Target(REPOSITORY, BLOB, size=5)), references=True)["target"]


def test_a_manifest_that_only_another_registry_would_take_has_no_references() -> None:
    odd = stored(b'{"schemaVersion": 2, "layers": 5}')
    assert "references" not in read(event(What.PULL, Target(REPOSITORY, odd.digest, manifest=odd)), references=True)


def test_media_types_are_those_that_filters_see() -> None:
    manifest = stored({})
    assert media_type(event(What.PULL, Target(REPOSITORY, BLOB, size=1))) == mediatypes.OCTET_STREAM
    assert media_type(event(What.PUSH, Target(REPOSITORY, BLOB, manifest=manifest))) == MANIFEST
    assert media_type(event(What.DELETE, Target(REPOSITORY, BLOB))) == ""


@given(st.text(max_size=3000), st.text(max_size=3000))
def test_whatever_a_client_says_of_itself_is_json_and_no_more_than_a_kilobyte(agent: str, host: str) -> None:
    found = read(event(What.PULL, Target(REPOSITORY, BLOB, size=1), useragent=agent, host=host))
    assert len(found["request"]["useragent"]) <= 1024
    assert len(found["request"]["host"]) <= 1024


def test_a_source_names_this_host_and_the_port() -> None:
    assert Source.here("127.0.0.1:5001").addr.endswith(":5001")
    assert ":" not in Source.here("/run/registry.sock").addr
    assert Source.here(":5000").instance != Source.here(":5000").instance
