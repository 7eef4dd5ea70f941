"""Who may write into a repository writes what nobody honest would: whoever reads or lists it, or is told, is safe."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from registry.config import Settings
from storage.files import FilesEngine
from tests.support.api import Api, image, index, serving
from tests.support.images import CONFIG, INDEX, LAYER, MANIFEST, sha256
from tests.support.recording import faults

EMPTY, IMAGE = sha256(b"{}"), "team/app"
TEXTS = ["", "a", "\u202e", "\ud800", "\U0010ffff", "a\nb", "\r\nX-Evil: yes", "\0", "<script>", "../..", "a" * 9000]
TEXTS += ["text/html", "a/b\r\nX-Evil: yes", "é/è", MANIFEST, INDEX, CONFIG, EMPTY, "http://127.0.0.1:1/", "linux"]
texts = st.sampled_from(TEXTS) | st.text(max_size=20)
numbers = st.sampled_from([0, -1, 2, 2.0, 1e308, 2**63 - 1, 2**63, 10**4000, True, None]) | st.integers() | st.floats()
values = st.recursive(
    texts | numbers,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
annotations = st.dictionaries(texts, texts, max_size=3)
described = st.fixed_dictionaries(
    {"mediaType": texts | values, "digest": st.just(EMPTY), "size": st.sampled_from([2, 0, 2**63 - 1])},
    optional={
        "urls": st.lists(texts, max_size=2) | values,
        "platform": st.dictionaries(st.sampled_from(["os", "architecture", "variant", "os.version"]), texts | values),
        "annotations": annotations | values,
        "data": texts,
        "artifactType": texts | values,
    },
)
members = st.fixed_dictionaries(
    {},
    optional={
        "subject": st.just({"mediaType": MANIFEST, "digest": EMPTY, "size": 2}) | described,
        "annotations": annotations | values,
        "artifactType": texts | values,
        "config": described,
        "layers": st.lists(described, max_size=2),
        "manifests": st.lists(described, max_size=2),
        "x": values,
    },
)
manifests = st.builds(lambda more: image(EMPTY) | more, members) | st.builds(lambda more: index() | more, members)
# As a signature or a bill of materials is: with a subject, and texts of its maker's choice.
referrers = st.builds(
    lambda kind, told, named: index(artifactType=kind, annotations=told, subject=_subject(named)),
    texts.filter(bool),
    annotations,
    texts,
)


def _subject(media_type: str) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": EMPTY, "size": 2}


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    """A registry that tells somebody of everything, and writes down who did it."""
    told: Any = {
        "storage": {"filesystem": {"rootdirectory": tmp_path}},
        "notifications": {
            "endpoints": [{"name": "x", "url": "http://127.0.0.1:1/"}],
            "events": {"includereferences": 1},
        },
        "layerhouse": {"audit": {"file": str(tmp_path / "audit"), "actions": ["pull", "push", "mount", "refused"]}},
    }
    async with serving(FilesEngine(tmp_path), Settings.model_validate(told)) as api:
        await api.push_blob(IMAGE, b"{}")
        yield api


def raw(manifest: Any) -> bytes:
    return json.dumps(manifest).encode()


@given(manifests | referrers)
@example(index(annotations={"a": "\ud800"}))
@example(index(artifactType="é\r\nX-Evil: yes", subject=_subject("\0")))
@example(
    image(EMPTY) | {"config": {"mediaType": "a\r\nX-Evil: b", "digest": EMPTY, "size": 2}, "subject": _subject("a")}
)
@example(image(EMPTY) | {"layers": [{"mediaType": LAYER, "digest": EMPTY, "size": 10**4000}]})
@settings(deadline=None, max_examples=100, suppress_health_check=list(HealthCheck))
async def test_whatever_is_pushed_is_refused_or_can_be_read_by_all(api: Api, manifest: Any) -> None:
    body = raw(manifest)
    with faults() as found:
        answer = await api.push_manifest(IMAGE, "v1", body, manifest.get("mediaType") if manifest else None)
        assert answer.status in (201, 400, 404), answer
        for target in ("manifests/v1", "tags/list", f"referrers/{EMPTY}", f"referrers/{EMPTY}?artifactType=a%ED%A0%80"):
            read = await api.get(f"/v2/{IMAGE}/{target}", accept="text/plain")
            assert read.status in (200, 404), (target, read)
            assert "x-evil" not in read.headers
        for target in ("repositories", f"repositories/{IMAGE}", f"repositories/{IMAGE}/tags"):
            assert (await api.get(f"/_layerhouse/v1/{target}")).status in (200, 404)
        if answer.status == 201:
            read = await api.get(f"/v2/{IMAGE}/manifests/{sha256(body)}")
            assert (read.status, read.body) == (200, body)
    assert found == []


DEEP = 200_000


@pytest.mark.parametrize(
    "body",
    [
        b"[" * DEEP,
        b'{"a":' * DEEP,
        raw(index())[:-1] + b', "x": ' + b"[" * DEEP + b"]" * DEEP + b"}",
        b"9" * DEEP,
        raw(index())[:-1] + b', "x": ' + b"9" * DEEP + b"}",
        raw(index())[:-1] + b', "x": NaN}',
        raw(index())[:-1] + b', "schemaVersion": 2}',
        b'"' + b"\\ud800" * 1000 + b'"',
        b"\xff" * 100,
        b"\x1f\x8b" + b"\0" * 100,
        b"",
        b"null",
    ],
    ids=lambda body: ascii(body[:16]),
)
async def test_json_that_is_made_to_hurt_is_refused(api: Api, body: bytes) -> None:
    with faults() as found:
        answer = await api.push_manifest(IMAGE, "v1", body, INDEX)
    assert (answer.status, answer.code) == (400, "MANIFEST_INVALID")
    assert len(answer.body) < 1000
    assert found == []


async def test_a_config_that_is_none_hurts_nobody_who_looks_at_the_tag(api: Api) -> None:
    for config in (b"[" * DEEP, b"\xff", b'{"os": "\\ud800"}', b'{"os": 1}', b"{" + b'"a":1,' * 10 + b'"a":1}', b""):
        manifest = image(await api.push_blob(IMAGE, config))
        manifest["config"]["size"] = len(config)
        assert (await api.push_manifest(IMAGE, "v1", manifest)).status == 201
        with faults() as found:
            assert (await api.get(f"/_layerhouse/v1/repositories/{IMAGE}/tags")).status == 200
        assert found == []
