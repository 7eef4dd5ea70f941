"""Attacks on other registries, by CVE, tried here: content that is not what it seems, and names that are no names."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from registry.config import Settings
from storage.memory import MemoryEngine
from tests.support.api import DELETES, Api, image, index, serving
from tests.support.callers import basic, htpasswd, settings
from tests.support.images import CONFIG, INDEX, LAYER, MANIFEST, sha256
from tests.support.recording import RecordingEngine
from tests.support.stores import Builder

EMPTY = sha256(b"{}")
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"


@pytest.fixture
async def recorded() -> AsyncIterator[tuple[Api, RecordingEngine]]:
    engine = RecordingEngine(MemoryEngine())
    async with serving(engine, DELETES) as api:
        await api.push_image("image", "v1", b"layer")
        yield api, engine


# CVE-2021-41190: one client took for an index what another took for an image, and both had verified it.


def ambiguous() -> dict[str, tuple[bytes, str]]:
    described = {"mediaType": MANIFEST, "digest": EMPTY, "size": 2}
    both = image(EMPTY) | {"manifests": [described]}
    doubled = json.dumps(image(EMPTY))[:-1] + f', "layers": [{json.dumps(described)}]}}'
    return {
        "an image with manifests": (json.dumps(both).encode(), MANIFEST),
        "an index with layers": (json.dumps(index(described) | {"layers": []}).encode(), INDEX),
        "an index with a config": (json.dumps(index(described) | {"config": described}).encode(), INDEX),
        "an image that is sent as an index": (json.dumps(image(EMPTY)).encode(), INDEX),
        "an index that is sent as an image": (json.dumps(index(described)).encode(), MANIFEST),
        "an OCI index that is sent as docker's": (json.dumps(index(described)).encode(), DOCKER_LIST),
        "a doubled name": (doubled.encode(), MANIFEST),
        "a name in another case": (json.dumps(image(EMPTY) | {"Layers": [described]}).encode(), MANIFEST),
        "a name with the long s": (
            json.dumps(image(EMPTY) | {"layer\u017f": []}, ensure_ascii=False).encode(),
            MANIFEST,
        ),
        "schema 1 beside": (json.dumps(image(EMPTY) | {"fsLayers": []}).encode(), MANIFEST),
        "a byte order mark": (b"\xef\xbb\xbf" + json.dumps(image(EMPTY)).encode(), MANIFEST),
        "something behind": (json.dumps(image(EMPTY)).encode() + b"{}", MANIFEST),
        "another encoding": (json.dumps(image(EMPTY)).encode("utf-16"), MANIFEST),
    }


@pytest.mark.parametrize("kind", ambiguous())
async def test_cve_2021_41190_what_could_be_read_as_two_things_is_refused(
    recorded: tuple[Api, RecordingEngine], kind: str
) -> None:
    api, engine = recorded
    raw, media_type = ambiguous()[kind]
    with engine.during() as calls:
        answer = await api.push_manifest("image", "two", raw, media_type)
    assert (answer.status, answer.code) == (400, "MANIFEST_INVALID")
    assert calls == []


@pytest.mark.parametrize("kind", ["an image with manifests", "an index with a config", "a doubled name"])
async def test_cve_2021_41190_it_is_not_served_either_where_another_registry_took_it(kind: str) -> None:
    builder = Builder.in_memory()
    digest = await builder.manifest("image", ambiguous()[kind][0], tag="two")
    async with serving(builder.engine) as api:
        for reference in ("two", digest):
            assert (await api.get(f"/v2/image/manifests/{reference}")).status == 404


# CVE-2024-3727: a digest that is none became a path, and led out of a folder (containers/image).

NO_DIGESTS = [
    "",
    ":",
    "sha256",
    "sha256:",
    "sha256:..",
    f"sha256:{'../' * 21}a",
    f"sha256:/{'a' * 63}",
    "sha256:" + "a" * 63,
    "sha256:" + "a" * 65,
    "sha256:" + "A" * 64,
    "sha256:" + "g" * 64,
    "SHA256:" + "a" * 64,
    "sha256:" + "\uff11" * 64,
    "sha256:" + "a" * 64 + "\n",
    "sha256:" + "a" * 64 + "\0",
    "sha256:" + "a" * 64 + "/../../x",
    "sha512:" + "a" * 64,
    "md5:" + "a" * 32,
    "../sha256:" + "a" * 64,
    "sha256+b64:" + "a" * 64,
    "..:" + "a" * 64,
    "a" * 4096,
]


def places(digest: str) -> list[tuple[str, str, bytes]]:
    """Every place where a client gives a digest: in the path, in the query, and in what it pushes."""
    found, text = quote(digest, safe=""), {"mediaType": LAYER, "digest": digest, "size": 1}
    manifests = [
        image(EMPTY) | {"layers": [text]},
        image(EMPTY) | {"config": text | {"mediaType": CONFIG}},
        image(EMPTY) | {"subject": text},
        index(text),
        index(subject=text),
    ]
    upload = "00000000-0000-4000-8000-000000000000"
    return [
        *((method, f"/v2/image/blobs/{found}", b"") for method in ("GET", "HEAD", "DELETE")),
        *((method, f"/v2/image/manifests/{found}x:", b"") for method in ("GET", "HEAD", "DELETE", "PUT")),
        *(
            (method, f"/v2/image/manifests/{found}", b"")
            for method in ("GET", "HEAD", "DELETE", "PUT")
            if ":" in digest
        ),
        ("GET", f"/v2/image/referrers/{found}", b""),
        ("POST", f"/v2/image/blobs/uploads/?digest={found}", b"data"),
        ("POST", f"/v2/image/blobs/uploads/?mount={found}&from=image", b""),
        ("POST", f"/v2/image/blobs/uploads/?mount={found}", b""),
        ("PUT", f"/v2/image/blobs/uploads/{upload}?digest={found}", b"data"),
        *(("PUT", "/v2/image/manifests/v2", json.dumps(each).encode()) for each in manifests),
    ]


@pytest.mark.parametrize("digest", NO_DIGESTS, ids=lambda text: ascii(text)[:40])
async def test_cve_2024_3727_what_is_no_digest_never_becomes_a_path(
    recorded: tuple[Api, RecordingEngine], digest: str
) -> None:
    api, engine = recorded
    for method, target, body in places(digest):
        kind = json.loads(body)["mediaType"] if body.startswith(b"{") else "application/octet-stream"
        with engine.during() as calls:
            answer = await api.ask(method, target, body, {"content-type": kind})
        assert 400 <= answer.status < 500, (method, target)
        assert calls == [], (method, target)


# CVE-2026-31801: a tag called `latest` was let through where others were checked (zot).


async def outcomes(api: Api, tag: str, headers: dict[str, str]) -> list[tuple[int, str]]:
    described = {"mediaType": MANIFEST, "digest": sha256(b"absent"), "size": 2}
    asked: list[tuple[str, str, bytes, str]] = [
        ("GET", f"manifests/{tag}", b"", ""),
        ("PUT", f"manifests/{tag}", json.dumps(image(EMPTY)).encode(), MANIFEST),
        ("PUT", f"manifests/{tag}", json.dumps(image(sha256(b"absent"))).encode(), MANIFEST),
        ("PUT", f"manifests/{tag}", json.dumps(index(described)).encode(), INDEX),
        ("PUT", f"manifests/{tag}", b"{}", MANIFEST),
        ("PUT", f"manifests/{EMPTY}?tag={tag}", json.dumps(image(EMPTY)).encode(), MANIFEST),
        ("DELETE", f"manifests/{tag}", b"", ""),
        ("GET", f"manifests/{tag}", b"", ""),
    ]
    answers = [
        await api.ask(method, f"/v2/team/app/{target}", body, headers | ({"content-type": kind} if kind else {}))
        for method, target, body, kind in asked
    ]
    return [(each.status, each.body.decode().replace(tag, "TAG")) for each in answers]


@pytest.mark.parametrize("who", [{}, basic("alice", "1"), basic("bob", "2"), basic("olga", "3")])
@pytest.mark.parametrize(
    "storage", [{}, {"delete": {"enabled": True}}, {"maintenance": {"readonly": {"enabled": True}}}]
)
async def test_cve_2026_31801_no_tag_is_exempt_from_anything(
    tmp_path: Path, who: dict[str, str], storage: dict[str, Any]
) -> None:
    passwords = htpasswd(tmp_path / "htpasswd", alice="1", bob="2", olga="3")
    rules = {
        "rules": [{"who": "user:alice", "allow": "pull"}, {"who": "user:olga", "allow": ["pull", "push", "delete"]}]
    }
    found = {}
    for tag in ("latest", "7.0.1", "main-1", "Latest"):
        engine = MemoryEngine()
        async with serving(engine) as api:
            await api.push_image("team/app", tag)
        async with serving(engine, settings(passwords, rules, storage=storage)) as api:
            found[tag] = await outcomes(api, tag, who)
    first, *others = found.values()
    assert others == [first] * len(others)


async def test_nothing_is_served_as_a_page_that_a_browser_would_run() -> None:
    """What is pushed cannot call itself HTML, and blobs are bytes."""
    page = b"<html><script>alert(1)</script>"
    async with serving(MemoryEngine(), Settings()) as api:
        digest = await api.push_blob("image", page)
        blob = await api.get(f"/v2/image/blobs/{digest}")
        assert blob.headers["content-type"] == "application/octet-stream"
        for kind in ("text/html", "image/svg+xml", "application/xhtml+xml"):
            raw = json.dumps(image(digest) | {"mediaType": kind}).encode()
            assert (await api.push_manifest("image", "v1", raw, kind)).code == "MANIFEST_INVALID"
        missing = await api.get("/v2/image/manifests/%3Cscript%3E")
        assert missing.headers["content-type"] == "application/json"
