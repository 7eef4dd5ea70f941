"""Pulls: ranges, conditions, negotiation, and what is held while bytes are on their way."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.files import FilesEngine
from storage.memory import MemoryEngine
from tests.support.api import Answer, Api, Broken, image, index, serving
from tests.support.images import DOCKER_LIST, DOCKER_MANIFEST, INDEX, MANIFEST, sha256

DATA = bytes(range(256))
DIGEST = sha256(DATA)
BLOB = f"/v2/image/blobs/{DIGEST}"
LARGE = DATA * 1024


@pytest.mark.parametrize(
    ("wanted", "first", "last"),
    [
        ("bytes=0-0", 0, 0),
        ("bytes=0-255", 0, 255),
        ("bytes=10-19", 10, 19),
        ("bytes=10-", 10, 255),
        ("bytes=255-", 255, 255),
        ("bytes=-1", 255, 255),
        ("bytes=-256", 0, 255),
        ("bytes=-9999", 0, 255),
        ("bytes=250-9999", 250, 255),
        ("bytes=250-9999999999999999999", 250, 255),
        ("Bytes=1-2", 1, 2),
    ],
)
async def test_a_range_of_a_blob_is_answered_with_exactly_its_bytes(
    api: Api, wanted: str, first: int, last: int
) -> None:
    await api.push_blob("image", DATA)
    answer = await api.get(BLOB, Range=wanted)
    assert (answer.status, answer.body) == (206, DATA[first : last + 1])
    assert answer.headers["content-range"] == f"bytes {first}-{last}/256"
    assert answer.headers["docker-content-digest"] == DIGEST


@pytest.mark.parametrize("wanted", ["bytes=256-", "bytes=256-300", "bytes=500-0", "bytes=5-4", "bytes=-0"])
async def test_a_range_outside_of_the_blob_is_refused_with_its_size(api: Api, wanted: str) -> None:
    await api.push_blob("image", DATA)
    answer = await api.get(BLOB, Range=wanted)
    assert (answer.status, answer.code) == (416, "RANGE_INVALID")
    assert answer.headers["content-range"] == "bytes */256"


@pytest.mark.parametrize(
    "wanted", ["bytes=0-1,4-5", "bytes=", "bytes=-", "lines=0-1", "0-1", "bytes=a-b", "bytes=1", "bytes=--1", ""]
)
async def test_a_range_that_is_none_or_several_is_ignored(api: Api, wanted: str) -> None:
    await api.push_blob("image", DATA)
    answer = await api.get(BLOB, Range=wanted)
    assert (answer.status, answer.body) == (200, DATA)
    assert "content-range" not in answer.headers


async def test_an_empty_blob_has_no_range(api: Api) -> None:
    digest = await api.push_blob("image", b"")
    whole = await api.get(f"/v2/image/blobs/{digest}")
    assert (whole.status, whole.body, whole.headers["content-length"]) == (200, b"", "0")
    answer = await api.get(f"/v2/image/blobs/{digest}", Range="bytes=0-")
    assert (answer.status, answer.headers["content-range"]) == (416, "bytes */0")


@pytest.mark.parametrize(
    ("condition", "status"),
    [(f'"{DIGEST}"', 206), (f'W/"{DIGEST}"', 200), ('"other"', 200), ("Sat, 29 Oct 1994 19:43:31 GMT", 200)],
)
async def test_a_range_is_given_only_of_the_content_the_client_knows(api: Api, condition: str, status: int) -> None:
    await api.push_blob("image", DATA)
    assert (await api.get(BLOB, Range="bytes=0-1", If_Range=condition)).status == status


@pytest.mark.parametrize("pathsend", [False, True])
@given(data=st.data())
@settings(deadline=None, max_examples=30)
async def test_any_ranges_of_a_large_blob_join_to_its_bytes(
    data: st.DataObject, pathsend: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(1, len(LARGE) - 1), max_size=4)))
    async with serving(FilesEngine(tmp_path_factory.mktemp("root")), pathsend=pathsend) as api:
        digest = await api.push_blob("image", LARGE)
        joined = b""
        for first, end in zip([0, *cuts], [*cuts, len(LARGE)], strict=True):
            answer = await api.get(f"/v2/image/blobs/{digest}", Range=f"bytes={first}-{end - 1}")
            assert answer.status == 206
            joined += answer.body
        assert joined == LARGE
        assert bool(api.files_sent) == pathsend


@pytest.mark.parametrize("tag", [f'"{DIGEST}"', DIGEST, f'W/"{DIGEST}"', "*", f'"x", "{DIGEST}"', f"x,{DIGEST}"])
async def test_what_the_client_has_already_is_not_sent_again(api: Api, tag: str) -> None:
    await api.push_blob("image", DATA)
    for method in ("GET", "HEAD"):
        answer = await api.ask(method, BLOB, headers={"If-None-Match": tag, "Range": "bytes=0-1"})
        assert (answer.status, answer.headers["etag"]) == (304, f'"{DIGEST}"')


@pytest.mark.parametrize("header", ['"sha256:other"', "", ",", f'"{DIGEST}x"'])
async def test_what_the_client_has_not_is_sent(api: Api, header: str) -> None:
    await api.push_blob("image", DATA)
    assert (await api.get(BLOB, If_None_Match=header)).body == DATA


async def test_a_blob_that_is_gone_is_unknown_even_to_a_client_that_has_it(api: Api) -> None:
    answer = await api.get(BLOB, If_None_Match=f'"{DIGEST}"')
    assert (answer.status, answer.code) == (404, "BLOB_UNKNOWN")


async def test_a_manifest_that_the_client_has_is_not_sent_again(api: Api) -> None:
    digest = await api.push_image("image", "v1")
    whole = await api.get("/v2/image/manifests/v1")
    answer = await api.get("/v2/image/manifests/v1", If_None_Match=digest)
    assert (answer.status, answer.body) == (304, b"")
    # RFC 9110, section 15.4.5: what a cache needs stands in a 304 as in the 200.
    for name in ("etag", "vary", "docker-content-digest"):
        assert answer.headers[name] == whole.headers[name]
    await api.push_image("image", "v1", b"another")
    assert (await api.get("/v2/image/manifests/v1", If_None_Match=digest)).status == 200


@pytest.mark.parametrize("size", [0, 1, 64 * 1024, 64 * 1024 + 1, 1024 * 1024])
@pytest.mark.parametrize("pathsend", [False, True])
async def test_head_tells_what_get_would(engine: Any, size: int, pathsend: bool) -> None:
    async with serving(engine, pathsend=pathsend) as api:
        digest = await api.push_blob("image", b"x" * size)
        await api.push_image("image", "v1")
        for path in (f"blobs/{digest}", "manifests/v1", f"blobs/{DIGEST}", "blobs/absent", "manifests/absent"):
            got, head = [await api.ask(method, f"/v2/image/{path}") for method in ("GET", "HEAD")]
            assert (got.status, got.headers) == (head.status, head.headers)
            assert "content-length" in head.headers


@pytest.mark.parametrize(
    "accept",
    [
        None,
        "*/*",
        "application/*",
        f"{MANIFEST}, {INDEX}",
        f"{INDEX};q=0.5,text/plain",
        "text/html,application/xhtml+xml,*/*;q=0.8",
    ],
)
async def test_a_client_that_takes_an_index_gets_it(api: Api, accept: str | None) -> None:
    await _push_index(api)
    answer = await _by_tag(api, accept)
    assert (answer.status, answer.headers["content-type"]) == (200, INDEX)
    assert answer.headers["vary"] == "accept"


@pytest.mark.parametrize("accept", [MANIFEST, f"{DOCKER_MANIFEST}, {MANIFEST}", f"text/plain, {MANIFEST}; q=0.3"])
async def test_an_old_client_gets_the_image_for_linux_amd64_out_of_an_index(api: Api, accept: str) -> None:
    _, amd64 = await _push_index(api)
    answer = await _by_tag(api, accept)
    assert (answer.headers["docker-content-digest"], answer.headers["content-type"]) == (amd64, MANIFEST)
    assert answer.headers["vary"] == "accept"
    assert sha256(answer.body) == amd64
    assert (await api.get("/v2/image/manifests/v1", Accept=accept, If_None_Match=amd64)).status == 304


async def test_accept_may_stand_in_several_headers(api: Api) -> None:
    await _push_index(api)
    answer = await api.ask("GET", "/v2/image/manifests/v1", headers={"Accept": [MANIFEST, DOCKER_LIST, INDEX]})
    assert answer.headers["content-type"] == INDEX


async def test_a_digest_is_served_as_it_is_whatever_the_client_accepts(api: Api) -> None:
    whole, _ = await _push_index(api)
    answer = await api.get(f"/v2/image/manifests/{whole}", Accept=MANIFEST)
    assert (answer.status, answer.headers["docker-content-digest"]) == (200, whole)
    assert "vary" not in answer.headers


@pytest.mark.parametrize("accept", ["text/plain", DOCKER_MANIFEST])
async def test_what_no_child_could_satisfy_is_served_as_it_is(api: Api, accept: str) -> None:
    whole, _ = await _push_index(api)
    assert (await _by_tag(api, accept)).headers["docker-content-digest"] == whole


async def test_an_image_is_served_to_a_client_that_asks_for_other_types(api: Api) -> None:
    digest = await api.push_image("image", "v1")
    assert (await _by_tag(api, DOCKER_MANIFEST)).headers["docker-content-digest"] == digest


@pytest.mark.parametrize("architecture", ["s390x", "amd64"])
async def test_an_index_whose_image_is_not_here_is_served_as_it_is(api: Api, architecture: str) -> None:
    answer = await api.push_manifest("image", "v1", index(_child(sha256(b"elsewhere"), architecture)))
    found = await _by_tag(api, MANIFEST)
    assert found.headers["docker-content-digest"] == answer.headers["docker-content-digest"]


async def test_a_manifest_damaged_on_disk_is_never_served(tmp_path: Path) -> None:
    async with serving(FilesEngine(tmp_path)) as api:
        digest = await api.push_image("image", "v1")
    (data,) = (tmp_path / "docker").rglob(f"{digest.removeprefix('sha256:')}/data")
    data.write_bytes(data.read_bytes().replace(b"schemaVersion", b"schemaversion"))
    async with serving(FilesEngine(tmp_path)) as api:
        answer = await api.get("/v2/image/manifests/v1")
        assert (answer.status, answer.code) == (404, "MANIFEST_UNKNOWN")
        assert await api.push_image("image", "v1") == digest
        assert (await api.get("/v2/image/manifests/v1")).status == 200


@pytest.mark.parametrize("pathsend", [False, True])
@pytest.mark.parametrize("failing", ["http.response.start", "http.response.pathsend", "http.response.body"])
async def test_no_file_stays_open_when_the_connection_breaks(tmp_path: Path, failing: str, pathsend: bool) -> None:
    async with serving(FilesEngine(tmp_path), pathsend=pathsend) as api:
        digest = await api.push_blob("image", LARGE)
        scope = api.scope("GET", f"/v2/image/blobs/{digest}", {})
        before = _descriptors()

        async def send(message: dict[str, Any]) -> None:
            if "file" in message:
                os.close(message["file"])
            if message["type"] == failing:
                raise ConnectionResetError

        await api.app(scope, asyncio.Event().wait, send)
        assert _descriptors() == before


@pytest.mark.parametrize("pathsend", [False, True])
async def test_no_file_stays_open_when_the_server_ends_the_request(tmp_path: Path, pathsend: bool) -> None:
    async with serving(FilesEngine(tmp_path), pathsend=pathsend) as api:
        digest = await api.push_blob("image", LARGE)
        scope = api.scope("GET", f"/v2/image/blobs/{digest}", {})
        before, waiting = _descriptors(), asyncio.Event()

        async def send(_message: dict[str, Any]) -> None:
            waiting.set()
            await asyncio.Event().wait()

        request = asyncio.create_task(api.app(scope, asyncio.Event().wait, send))
        await waiting.wait()
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
        assert _descriptors() == before


async def test_a_blob_that_ends_early_on_disk_is_cut_and_not_taken_for_whole(tmp_path: Path) -> None:
    async with serving(FilesEngine(tmp_path)) as api:
        digest = await api.push_blob("image", LARGE)
        (data,) = (tmp_path / "docker").rglob("data")

        class Shrinking(Api):
            async def _sent(self, message: dict[str, Any]) -> dict[str, Any]:
                os.truncate(data, 1000)
                return dict(message)

        with pytest.raises(Broken):
            await Shrinking(api.app).get(f"/v2/image/blobs/{digest}")


async def test_content_stays_what_was_opened_when_the_blob_is_deleted_meanwhile() -> None:
    async with serving(MemoryEngine()) as api:
        await api.push_blob("image", DATA)
        answers = await asyncio.gather(api.get(BLOB), api.ask("DELETE", BLOB))
        assert (answers[0].status, answers[0].body) == (200, DATA)


async def _push_index(api: Api) -> tuple[str, str]:
    """Returns the digests of the index and of its image for linux/amd64."""
    config = await api.push_blob("image", b"{}")
    digests = {}
    for architecture in ("arm64", "amd64"):
        answer = await api.push_manifest("image", architecture, image(config, annotations={"for": architecture}))
        digests[architecture] = answer.headers["docker-content-digest"]
    unnamed = {key: value for key, value in _child(sha256(b"attestation"), "").items() if key != "platform"}
    whole = index(unnamed, *(_child(digest, architecture) for architecture, digest in digests.items()))
    answer = await api.push_manifest("image", "v1", whole)
    return answer.headers["docker-content-digest"], digests["amd64"]


def _child(digest: str, architecture: str) -> dict[str, Any]:
    platform = {"architecture": architecture, "os": "linux"}
    return {"mediaType": MANIFEST, "digest": digest, "size": 300, "platform": platform}


async def _by_tag(api: Api, accept: str | None) -> Answer:
    return await api.ask("GET", "/v2/image/manifests/v1", headers={"Accept": accept} if accept else {})


def _descriptors() -> set[str]:
    return {each.name for each in Path("/proc/self/fd").iterdir()}
