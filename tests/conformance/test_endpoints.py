"""Every endpoint of the distribution specification (main branch), by its id, over every engine."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from storage.files import FilesEngine
from storage.memory import MemoryEngine
from tests.support.api import Api, image, index, serving, sha512
from tests.support.images import ACCEPT, INDEX, MANIFEST, sha256

DATA = b"a layer of an image"
DIGEST = sha256(DATA)
ABSENT = sha256(b"never pushed")


@pytest.fixture(params=["memory", "files"])
async def api(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Api]:
    engine = MemoryEngine() if request.param == "memory" else FilesEngine(tmp_path / "root")
    async with serving(engine) as found:
        yield found


@pytest.mark.parametrize("path", ["/v2/", "/v2"])
async def test_end_1_the_base_tells_that_this_is_a_registry(api: Api, path: str) -> None:
    answer = await api.get(path)
    assert (answer.status, answer.json) == (200, {})


@pytest.mark.parametrize("hashed", [sha256, sha512])
async def test_end_2_a_blob_is_pulled_under_the_digest_that_it_was_pushed_with(api: Api, hashed: object) -> None:
    digest = await api.push_blob("some/image", DATA, hashed(DATA))
    answer = await api.get(f"/v2/some/image/blobs/{digest}")
    assert (answer.status, answer.body) == (200, DATA)
    assert answer.headers["docker-content-digest"] == digest
    head = await api.ask("HEAD", f"/v2/some/image/blobs/{digest}")
    assert (head.status, head.headers["content-length"]) == (200, str(len(DATA)))


@pytest.mark.parametrize("path", [f"/v2/other/blobs/{DIGEST}", f"/v2/image/blobs/{ABSENT}"])
async def test_end_2_a_blob_that_the_repository_does_not_hold_is_unknown(api: Api, path: str) -> None:
    await api.push_blob("image", DATA)
    assert (await api.ask("HEAD", path)).status == 404
    answer = await api.get(path)
    assert (answer.status, answer.code) == (404, "BLOB_UNKNOWN")


async def test_end_3_a_manifest_is_pulled_by_tag_and_by_digest(api: Api) -> None:
    digest = await api.push_image("image", "v1", DATA)
    for reference in ("v1", digest):
        answer = await api.get(f"/v2/image/manifests/{reference}", Accept=ACCEPT)
        assert (answer.status, sha256(answer.body)) == (200, digest)
        assert answer.headers["content-type"] == MANIFEST
        assert answer.headers["docker-content-digest"] == digest
        head = await api.ask("HEAD", f"/v2/image/manifests/{reference}", headers={"Accept": ACCEPT})
        assert (head.status, head.headers["content-length"]) == (200, str(len(answer.body)))


@pytest.mark.parametrize("reference", ["absent", ABSENT])
async def test_end_3_a_manifest_that_was_never_pushed_is_unknown(api: Api, reference: str) -> None:
    answer = await api.get(f"/v2/image/manifests/{reference}")
    assert (answer.status, answer.code) == (404, "MANIFEST_UNKNOWN")


@pytest.mark.parametrize("path", ["uploads", "uploads/"])
async def test_end_4a_an_upload_begins_at_a_relative_location_of_its_own(api: Api, path: str) -> None:
    answers = [await api.ask("POST", f"/v2/some/image/blobs/{path}") for _ in range(2)]
    locations = {answer.headers["location"] for answer in answers}
    assert [answer.status for answer in answers] == [202, 202]
    assert len(locations) == 2
    assert all(each.startswith("/v2/some/image/blobs/uploads/") for each in locations)
    assert all(
        each.endswith(answer.headers["docker-upload-uuid"])
        for each, answer in zip((answer.headers["location"] for answer in answers), answers, strict=True)
    )


@pytest.mark.parametrize("body", [DATA, b"", [DATA[:5], DATA[5:]]])
async def test_end_4b_a_blob_is_pushed_in_one_request(api: Api, body: bytes | list[bytes]) -> None:
    whole = body if isinstance(body, bytes) else b"".join(body)
    answer = await api.ask("POST", f"/v2/image/blobs/uploads/?digest={sha256(whole)}", body)
    assert (answer.status, answer.headers["docker-content-digest"]) == (201, sha256(whole))
    assert (await api.get(answer.headers["location"])).body == whole


async def test_end_4c_an_upload_is_hashed_as_the_client_asks(api: Api) -> None:
    location = await api.begin("image", "?digest-algorithm=sha512")
    assert (await api.ask("PATCH", location, DATA)).status == 202
    assert (await api.commit(location, b"", sha512(DATA))).status == 201
    refused = await api.ask("POST", "/v2/image/blobs/uploads/?digest-algorithm=md5")
    assert (refused.status, refused.code) == (400, "DIGEST_INVALID")


async def test_end_5_a_blob_is_pushed_in_chunks(api: Api) -> None:
    location = await api.begin("image")
    for first, last in ((0, 6), (7, 11)):
        chunk = DATA[first : last + 1]
        answer = await api.ask("PATCH", location, chunk, {"Content-Range": f"{first}-{last}"})
        assert (answer.status, answer.headers["range"]) == (202, f"0-{last}")
        location = answer.headers["location"]
    answer = await api.commit(location, DATA[12:], DIGEST, Content_Range=f"12-{len(DATA) - 1}")
    assert answer.status == 201
    assert (await api.get(answer.headers["location"])).body == DATA


async def test_end_5_a_chunk_out_of_order_is_told_where_to_go_on(api: Api) -> None:
    location = await api.begin("image")
    await api.ask("PATCH", location, DATA[:7], {"Content-Range": "0-6"})
    for span in ("0-6", "8-14"):
        answer = await api.ask("PATCH", location, DATA[:7], {"Content-Range": span})
        assert (answer.status, answer.code) == (416, "RANGE_INVALID")
        assert (answer.headers["range"], answer.headers["location"]) == ("0-6", location)
    assert (await api.commit(location, DATA[7:], DIGEST)).status == 201


@pytest.mark.parametrize("body", [DATA, [DATA[:3], DATA[3:]], b""])
async def test_end_6_a_blob_is_pushed_by_a_session_and_one_put(api: Api, body: bytes | list[bytes]) -> None:
    whole = body if isinstance(body, bytes) else b"".join(body)
    answer = await api.commit(await api.begin("image"), body, sha256(whole))
    assert (answer.status, answer.headers["location"]) == (201, f"/v2/image/blobs/{sha256(whole)}")
    assert (await api.get(answer.headers["location"])).body == whole


async def test_end_6_a_last_chunk_out_of_order_is_told_where_to_go_on(api: Api) -> None:
    location = await api.begin("image")
    await api.ask("PATCH", location, DATA[:7])
    answer = await api.commit(location, DATA[9:], DIGEST, Content_Range=f"9-{len(DATA) - 1}")
    assert (answer.status, answer.code) == (416, "RANGE_INVALID")
    assert (answer.headers["range"], answer.headers["location"]) == ("0-6", location)
    assert (await api.commit(location, DATA[7:], DIGEST)).status == 201


@pytest.mark.parametrize("digest", [ABSENT, "sha256:beef", "md5:d41d8cd98f00b204e9800998ecf8427e", ""])
async def test_end_6_content_under_another_digest_is_refused(api: Api, digest: str) -> None:
    answer = await api.commit(await api.begin("image"), DATA, digest)
    assert (answer.status, answer.code) == (400, "DIGEST_INVALID")
    assert (await api.get(f"/v2/image/blobs/{DIGEST}")).status == 404


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("hashed", [None, sha256, sha512])
async def test_end_7a_a_manifest_is_pushed_by_tag_or_digest(api: Api, hashed: object, chunked: bool) -> None:
    raw = json.dumps(image(await api.push_blob("image", b"{}")), indent=3).encode()
    digest = (hashed or sha256)(raw)
    reference = digest if hashed else "v1"
    body = [raw[:9], raw[9:]] if chunked else raw
    answer = await api.ask("PUT", f"/v2/image/manifests/{reference}", body, {"Content-Type": MANIFEST})
    assert (answer.status, answer.headers["docker-content-digest"]) == (201, digest)
    assert answer.headers["location"] == f"/v2/image/manifests/{digest}"
    assert (await api.get(answer.headers["location"])).body == raw


async def test_end_7a_a_manifest_whose_blobs_are_missing_is_refused_naming_each(api: Api) -> None:
    pushed = await api.push_blob("image", DATA)
    wanted = {sha256(b"1"): 1, pushed: len(DATA), sha256(b"2"): 1}
    answer = await api.push_manifest("image", "v1", image(ABSENT, wanted))
    (error,) = answer.json["errors"]
    assert (answer.status, error["code"]) == (404, "MANIFEST_BLOB_UNKNOWN")
    assert error["detail"] == [{"digest": each} for each in (ABSENT, sha256(b"1"), sha256(b"2"))]
    assert (await api.get("/v2/image/manifests/v1")).status == 404


async def test_end_7b_a_manifest_pushed_by_digest_gets_all_tags_of_the_query(api: Api) -> None:
    raw = json.dumps(image(await api.push_blob("image", b"{}"))).encode()
    tags = [f"v1.{number}" for number in range(12)]
    query = "&".join(f"tag={tag}" for tag in tags)
    answer = await api.push_manifest("image", f"{sha256(raw)}?{query}", raw)
    assert (answer.status, answer.all("oci-tag")) == (201, tags)
    assert (await api.get("/v2/image/tags/list")).json["tags"] == sorted(tags)


async def test_end_8_tags_are_listed_in_order_and_by_pages(api: Api) -> None:
    for tag in ("b", "a", "C", "_", "1.0"):
        await api.push_image("some/image", tag)
    answer = await api.get("/v2/some/image/tags/list")
    assert (answer.status, answer.json) == (200, {"name": "some/image", "tags": ["1.0", "C", "_", "a", "b"]})
    page = await api.get("/v2/some/image/tags/list?n=2&last=1.0")
    assert page.json["tags"] == ["C", "_"]
    assert page.headers["link"] == '</v2/some/image/tags/list?n=2&last=_>; rel="next"'


async def test_end_8_tags_of_an_unknown_repository_are_an_error(api: Api) -> None:
    answer = await api.get("/v2/nowhere/tags/list")
    assert (answer.status, answer.code) == (404, "NAME_UNKNOWN")


async def test_end_9_a_deleted_tag_leaves_its_manifest(api: Api) -> None:
    digest = await api.push_image("image", "v1")
    await api.push_image("image", "v2")
    assert (await api.ask("DELETE", "/v2/image/manifests/v1")).status == 202
    statuses = [(await api.get(f"/v2/image/manifests/{each}")).status for each in ("v1", "v2", digest)]
    assert statuses == [404, 200, 200]


async def test_end_9_a_manifest_deleted_by_digest_takes_its_tags_along(api: Api) -> None:
    digest = await api.push_image("image", "v1")
    await api.push_image("image", "v2")
    await api.push_image("image", "other", DATA)
    assert (await api.ask("DELETE", f"/v2/image/manifests/{digest}")).status == 202
    statuses = [(await api.get(f"/v2/image/manifests/{each}")).status for each in ("v1", "v2", digest, "other")]
    assert statuses == [404, 404, 404, 200]
    assert (await api.get("/v2/image/tags/list")).json["tags"] == ["other"]


@pytest.mark.parametrize("path", ["manifests/absent", f"manifests/{ABSENT}", f"blobs/{ABSENT}"])
async def test_end_9_end_10_what_is_not_there_cannot_be_deleted(api: Api, path: str) -> None:
    await api.push_image("image", "v1")
    answer = await api.ask("DELETE", f"/v2/image/{path}")
    assert (answer.status, answer.code) == (404, "BLOB_UNKNOWN" if "blobs" in path else "MANIFEST_UNKNOWN")


async def test_end_10_a_deleted_blob_is_gone_from_its_repository_alone(api: Api) -> None:
    await api.push_blob("image", DATA)
    await api.push_blob("other", DATA)
    assert (await api.ask("DELETE", f"/v2/image/blobs/{DIGEST}")).status == 202
    assert (await api.get(f"/v2/image/blobs/{DIGEST}")).status == 404
    assert (await api.get(f"/v2/other/blobs/{DIGEST}")).status == 200


@pytest.mark.parametrize("source", ["&from=some/source", ""])
async def test_end_11_a_blob_is_mounted_without_being_sent(api: Api, source: str) -> None:
    await api.push_blob("some/source", DATA)
    answer = await api.ask("POST", f"/v2/image/blobs/uploads/?mount={DIGEST}{source}")
    assert (answer.status, answer.headers["location"]) == (201, f"/v2/image/blobs/{DIGEST}")
    assert answer.headers["docker-content-digest"] == DIGEST
    assert (await api.get(answer.headers["location"])).body == DATA


@pytest.mark.parametrize("query", [f"mount={DIGEST}&from=other", f"mount={ABSENT}&from=some/source", f"mount={ABSENT}"])
async def test_end_11_a_blob_that_cannot_be_mounted_is_to_be_sent(api: Api, query: str) -> None:
    await api.push_blob("some/source", DATA)
    answer = await api.ask("POST", f"/v2/image/blobs/uploads/?{query}")
    assert answer.status == 202
    assert (await api.commit(answer.headers["location"], DATA, DIGEST)).status == 201


async def test_end_12_referrers_are_an_index_of_what_names_the_subject(api: Api) -> None:
    subject = await api.push_image("image", "v1")
    named = {"mediaType": MANIFEST, "digest": subject, "size": 300}
    config = await api.push_blob("image", b"{}")
    signature = image(config, artifactType="application/x.signature", subject=named, annotations={"a": "b"})
    answer = await api.push_manifest("image", "signature", signature)
    assert answer.headers["oci-subject"] == subject
    await api.push_manifest("image", "bom", index(artifactType="application/x.bom", subject=named))

    found = await api.get(f"/v2/image/referrers/{subject}")
    assert (found.status, found.headers["content-type"]) == (200, INDEX)
    assert found.json["mediaType"] == INDEX
    assert {each["artifactType"] for each in found.json["manifests"]} == {
        "application/x.signature",
        "application/x.bom",
    }
    assert "oci-filters-applied" not in found.headers

    found = await api.get(f"/v2/image/referrers/{subject}?artifactType=application/x.signature")
    assert found.headers["oci-filters-applied"] == "artifactType"
    assert found.json["manifests"] == [
        {
            "mediaType": MANIFEST,
            "digest": answer.headers["docker-content-digest"],
            "size": len(json.dumps(signature)),
            "annotations": {"a": "b"},
            "artifactType": "application/x.signature",
        }
    ]


@pytest.mark.parametrize("repository", ["image", "nowhere"])
async def test_end_12_nothing_that_refers_is_an_empty_index(api: Api, repository: str) -> None:
    await api.push_image("image", "v1")
    answer = await api.get(f"/v2/{repository}/referrers/{ABSENT}")
    assert (answer.status, answer.json["manifests"]) == (200, [])


async def test_end_13_an_upload_tells_how_far_it_has_come(api: Api) -> None:
    location = await api.begin("image")
    empty = await api.get(location)
    assert (empty.status, empty.headers["range"]) == (204, "0-0")
    await api.ask("PATCH", location, DATA)
    answer = await api.get(location)
    assert (answer.status, answer.headers["range"]) == (204, f"0-{len(DATA) - 1}")
    assert answer.headers["location"] == location


async def test_end_14_an_upload_given_up_is_gone(api: Api) -> None:
    location = await api.begin("image")
    await api.ask("PATCH", location, DATA)
    assert (await api.ask("DELETE", location)).status == 204
    for method in ("GET", "PATCH", "DELETE", "PUT"):
        answer = await api.ask(method, f"{location}?digest={DIGEST}")
        assert (answer.status, answer.code) == (404, "BLOB_UPLOAD_UNKNOWN")
