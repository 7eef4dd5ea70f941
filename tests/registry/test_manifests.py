"""Pushing manifests and tags: what is taken, what is refused, and how clearly."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from registry.config import Settings
from storage.files import FilesEngine
from storage.memory import MemoryEngine
from tests.support.api import Api, image, index, serving
from tests.support.images import DOCKER_LIST, DOCKER_MANIFEST, INDEX, MANIFEST, sha256

LIMIT = 4 * 1024 * 1024
SCHEMA_1 = "application/vnd.docker.distribution.manifest.v1+prettyjws"
ABSENT = sha256(b"never pushed")


@pytest.fixture
async def config(api: Api) -> str:
    return await api.push_blob("image", b"{}")


async def test_a_manifest_keeps_every_byte_as_it_was_pushed(api: Api, config: str) -> None:
    raw = json.dumps(image(config), indent="\t").encode() + b" \n"
    assert (await api.push_manifest("image", "v1", raw)).headers["docker-content-digest"] == sha256(raw)
    assert (await api.get("/v2/image/manifests/v1")).body == raw


@pytest.mark.parametrize("kind", [MANIFEST, DOCKER_MANIFEST, f"{MANIFEST}; charset=utf-8"])
async def test_oci_and_docker_images_are_taken(api: Api, config: str, kind: str) -> None:
    essence = kind.partition(";")[0]
    assert (await api.push_manifest("image", "v1", image(config, mediaType=essence), kind)).status == 201
    assert (await api.get("/v2/image/manifests/v1")).headers["content-type"] == essence


@pytest.mark.parametrize("declared", [True, False])
async def test_a_manifest_without_a_content_type_is_what_it_says_or_looks_like(
    api: Api, config: str, declared: bool
) -> None:
    for tag, manifest in (("image", image(config)), ("index", index())):
        raw = json.dumps({name: each for name, each in manifest.items() if declared or name != "mediaType"}).encode()
        assert (await api.ask("PUT", f"/v2/image/manifests/{tag}", raw)).status == 201
        assert (await api.get(f"/v2/image/manifests/{tag}")).headers["content-type"] == manifest["mediaType"]


@pytest.mark.parametrize("kind", [INDEX, DOCKER_LIST])
async def test_an_index_is_taken_before_its_images(api: Api, kind: str) -> None:
    child = {"mediaType": MANIFEST, "digest": ABSENT, "size": 300}
    assert (await api.push_manifest("image", "v1", index(child, mediaType=kind))).status == 201


@pytest.mark.parametrize(
    "kind",
    [
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
    ],
)
async def test_foreign_layers_need_not_be_here(api: Api, config: str, kind: str) -> None:
    layer = {"mediaType": kind, "digest": ABSENT, "size": 5, "urls": ["https://example.com/layer"]}
    assert (await api.push_manifest("image", "v1", image(config, layers=[layer]))).status == 201


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_manifest_of_4_mib_is_taken_and_one_byte_more_is_not(api: Api, config: str, chunked: bool) -> None:
    fill = LIMIT - len(json.dumps(image(config, annotations={"fill": ""})))
    for more, status in ((0, 201), (1, 413)):
        raw = json.dumps(image(config, annotations={"fill": "x" * (fill + more)})).encode()
        body = [raw[:LIMIT], raw[LIMIT:]] if chunked else raw
        answer = await api.ask("PUT", f"/v2/image/manifests/v{more}", body, {"Content-Type": MANIFEST})
        assert answer.status == status
    assert answer.code == "MANIFEST_INVALID"
    assert str(LIMIT) in answer.message
    assert (await api.get("/v2/image/tags/list")).json["tags"] == ["v0"]


async def test_a_manifest_that_says_it_is_too_large_is_refused_unread(api: Api) -> None:
    answer = await api.exchange("PUT", "/v2/image/manifests/v1", {"Content-Length": str(LIMIT + 1)})
    assert answer.status == 413


async def test_an_endless_manifest_is_refused_when_it_is_too_large(api: Api) -> None:
    pieces = [{"type": "http.request", "body": b"x" * (1 << 20), "more_body": True}] * 5
    assert (await api.exchange("PUT", "/v2/image/manifests/v1", {}, *pieces)).status == 413


@pytest.mark.parametrize(
    ("raw", "kind", "told"),
    [
        (b"", MANIFEST, "JSON"),
        (b"[]", MANIFEST, "object"),
        (b"{", MANIFEST, "JSON"),
        (b"\xff\xfe", MANIFEST, "JSON"),
        (b"[" * 200_000, MANIFEST, "nested"),
        (b'{"schemaVersion":2,"schemaVersion":2}', MANIFEST, "twice"),
        (b'{"schemaVersion":1,"fsLayers":[]}', SCHEMA_1, "schema 1"),
        (json.dumps(image(ABSENT, schemaVersion=1)).encode(), MANIFEST, "schema 1"),
        (json.dumps(image(ABSENT, manifests=[])).encode(), MANIFEST, "manifests"),
        (json.dumps(index(layers=[])).encode(), INDEX, "layers"),
        (json.dumps(image(ABSENT)).encode(), INDEX, "Content-Type"),
        (json.dumps(image(ABSENT)).encode(), "text/plain", "Content-Type"),
        (json.dumps(image("sha256:short")).encode(), MANIFEST, "config"),
        (json.dumps(image(ABSENT, mediaType="text/plain")).encode(), "text/plain", "media type"),
    ],
)
async def test_what_is_no_manifest_or_could_be_two_is_refused(api: Api, raw: bytes, kind: str, told: str) -> None:
    answer = await api.push_manifest("image", "v1", raw, kind)
    assert (answer.status, answer.code) == (400, "MANIFEST_INVALID")
    assert told in answer.message
    assert (await api.get("/v2/image/manifests/v1")).status == 404


async def test_a_manifest_under_another_digest_is_refused(api: Api, config: str) -> None:
    raw = json.dumps(image(config)).encode()
    for digest in (ABSENT, f"sha512:{'0' * 128}"):
        answer = await api.push_manifest("image", digest, raw)
        assert (answer.status, answer.code) == (400, "DIGEST_INVALID")
    assert (await api.get(f"/v2/image/manifests/{sha256(raw)}")).status == 404


@pytest.mark.parametrize(
    ("reference", "code"),
    [("-v1", "TAG_INVALID"), ("a" * 129, "TAG_INVALID"), ("v%0A1", "TAG_INVALID"), ("sha256:no", "DIGEST_INVALID")],
)
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE"])
async def test_a_reference_that_is_none_is_refused(api: Api, method: str, reference: str, code: str) -> None:
    answer = await api.ask(method, f"/v2/image/manifests/{reference}", b"{}" if method == "PUT" else b"")
    assert answer.status == 400
    assert method == "HEAD" or answer.code == code


async def test_a_tag_that_is_none_among_the_tags_of_a_digest_refuses_all(api: Api, config: str) -> None:
    raw = json.dumps(image(config)).encode()
    answer = await api.push_manifest("image", f"{sha256(raw)}?tag=good&tag=%2e%2e", raw)
    assert (answer.status, answer.code) == (400, "TAG_INVALID")
    assert (await api.get("/v2/image/manifests/good")).status == 404


async def test_a_manifest_gets_a_hundred_tags_at_once_and_no_more(api: Api, config: str) -> None:
    raw = json.dumps(image(config)).encode()
    for count, status in ((100, 201), (101, 400)):
        query = "&".join(f"tag=v{number}" for number in range(count))
        assert (await api.push_manifest("image", f"{sha256(raw)}?{query}", raw)).status == status


async def test_a_tag_moves_to_what_was_pushed_last(api: Api) -> None:
    first = await api.push_image("image", "v1")
    second = await api.push_image("image", "v1", b"layer")
    assert (await api.get("/v2/image/manifests/v1")).headers["docker-content-digest"] == second
    assert (await api.get(f"/v2/image/manifests/{first}")).status == 200
    await api.ask("DELETE", f"/v2/image/manifests/{first}")
    assert (await api.get("/v2/image/manifests/v1")).status == 200


async def test_a_manifest_of_another_repository_is_not_served(api: Api) -> None:
    digest = await api.push_image("image", "v1")
    assert (await api.get(f"/v2/other/manifests/{digest}")).status == 404


@pytest.fixture
async def sparse() -> AsyncIterator[Api]:
    settings = Settings.model_validate({"layerhouse": {"sparseimages": True}})
    async with serving(MemoryEngine(), settings) as found:
        yield found


async def test_images_without_blobs_are_taken_where_the_operator_allows_it(sparse: Api) -> None:
    assert (await sparse.push_manifest("image", "v1", image(ABSENT, {ABSENT: 1}))).status == 201


@pytest.mark.parametrize("path", [f"blobs/{ABSENT}", "manifests/v1", f"manifests/{ABSENT}"])
async def test_nothing_is_deleted_where_deletes_are_not_enabled(path: str) -> None:
    async with serving(MemoryEngine(), Settings()) as api:
        await api.push_image("image", "v1")
        answer = await api.ask("DELETE", f"/v2/image/{path}")
        assert (answer.status, answer.code) == (405, "UNSUPPORTED")
        assert answer.headers["allow"] == ("GET, HEAD" if "blobs" in path else "GET, HEAD, PUT")
        assert "storage.delete.enabled" in answer.message
        assert (await api.get("/v2/image/manifests/v1")).status == 200


async def test_an_upload_may_be_given_up_where_deletes_are_not_enabled() -> None:
    async with serving(MemoryEngine(), Settings()) as api:
        assert (await api.ask("DELETE", await api.begin("image"))).status == 204


async def test_a_tag_whose_link_a_crash_left_empty_counts_as_absent_until_it_is_pushed_again(tmp_path: Path) -> None:
    async with serving(FilesEngine(tmp_path)) as api:
        await api.push_image("image", "v1")
        for link in tmp_path.rglob("current/link"):
            link.write_bytes(b"")
        assert (await api.get("/v2/image/manifests/v1")).status == 404
        assert (await api.get("/v2/image/tags/list")).json["tags"] == []
        await api.push_image("image", "v1")
        assert (await api.get("/v2/image/tags/list")).json["tags"] == ["v1"]


async def test_a_config_and_layers_of_any_type_make_an_artifact(api: Api, config: str) -> None:
    layer: dict[str, Any] = {"mediaType": "application/x.model", "digest": config, "size": 2}
    empty = {"mediaType": "application/vnd.oci.empty.v1+json", "digest": config, "size": 2}
    artifact = image(config, config=empty, layers=[layer], artifactType="application/x.artifact")
    assert (await api.push_manifest("image", "v1", artifact)).status == 201
