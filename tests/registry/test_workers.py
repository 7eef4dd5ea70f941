"""Several worker processes on one folder: two applications that share nothing but the disk."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from storage.files import FilesEngine
from tests.support.api import Api, image, index, serving, sha512
from tests.support.images import MANIFEST, sha256


@pytest.fixture
async def two(tmp_path: Path) -> AsyncIterator[tuple[Api, Api]]:
    async with AsyncExitStack() as ending:
        yield (
            await ending.enter_async_context(serving(FilesEngine(tmp_path))),
            await ending.enter_async_context(serving(FilesEngine(tmp_path))),
        )


@pytest.mark.parametrize("hashed", [sha256, sha512])
@pytest.mark.parametrize("order", ["abab", "aabb", "abba", "bbbb", "baaab"])
async def test_chunks_of_one_upload_may_come_to_any_worker(two: tuple[Api, Api], order: str, hashed: object) -> None:
    workers = dict(zip("ab", two, strict=True))
    data = [bytes([number]) * 5000 for number in range(len(order))]
    location = await two[0].begin("image")
    for number, worker in enumerate(order):
        span = f"{number * 5000}-{number * 5000 + 4999}"
        answer = await workers[worker].ask("PATCH", location, data[number], {"Content-Range": span})
        assert (answer.status, answer.headers["range"]) == (202, f"0-{number * 5000 + 4999}")
    whole = b"".join(data) + b"end"
    assert (await two[1].commit(location, b"end", hashed(whole))).status == 201
    for worker in two:
        assert (await worker.get(f"/v2/image/blobs/{hashed(whole)}")).body == whole
        assert (await worker.get(location)).status == 404


async def test_a_chunk_for_a_place_that_another_worker_filled_is_out_of_order(two: tuple[Api, Api]) -> None:
    location = await two[0].begin("image")
    await two[0].ask("PATCH", location, b"0123456789")
    answer = await two[1].ask("PATCH", location, b"01234", {"Content-Range": "0-4"})
    assert (answer.status, answer.headers["range"]) == (416, "0-9")


async def test_of_two_workers_that_get_one_chunk_at_once_one_takes_it(two: tuple[Api, Api]) -> None:
    location = await two[0].begin("image")
    bodies = [bytes([number]) * 300_000 for number in (1, 2)]
    answers = await asyncio.gather(
        *(
            worker.ask("PATCH", location, [body[:100_000], body[100_000:]], {"Content-Range": "0-299999"})
            for worker, body in zip(two, bodies, strict=True)
        )
    )
    statuses = [answer.status for answer in answers]
    assert sorted(statuses) in ([202, 416], [202, 409])
    assert (await two[0].commit(location, b"", sha256(bodies[statuses.index(202)]))).status == 201


async def test_of_two_commits_at_once_one_makes_the_blob_and_none_fails_it(two: tuple[Api, Api]) -> None:
    data = b"x" * 300_000
    location = await two[0].begin("image")
    await two[0].ask("PATCH", location, data)
    answers = await asyncio.gather(*(worker.commit(location, b"", sha256(data)) for worker in two))
    assert sorted(answer.status for answer in answers) == [201, 404]
    assert (await two[0].get(f"/v2/image/blobs/{sha256(data)}")).body == data


async def test_a_manifest_deleted_by_one_worker_is_gone_at_once_in_the_other(two: tuple[Api, Api]) -> None:
    digest = await two[0].push_image("image", "v1", b"layer")
    for reference in ("v1", digest):
        assert (await two[1].get(f"/v2/image/manifests/{reference}")).status == 200
    assert (await two[0].ask("DELETE", f"/v2/image/manifests/{digest}")).status == 202
    for reference in ("v1", digest):
        assert (await two[1].get(f"/v2/image/manifests/{reference}")).status == 404
    assert (await two[1].get("/v2/image/tags/list")).json["tags"] == []


async def test_a_tag_and_a_blob_deleted_by_one_worker_are_gone_at_once_in_the_other(two: tuple[Api, Api]) -> None:
    await two[0].push_image("image", "v1", b"layer")
    blob = f"/v2/image/blobs/{sha256(b'layer')}"
    for path in ("/v2/image/manifests/v1", blob):
        assert (await two[1].get(path)).status == 200
        assert (await two[0].ask("DELETE", path)).status == 202
        assert (await two[1].get(path)).status == 404


async def test_a_tag_moved_by_one_worker_is_moved_at_once_in_the_other(two: tuple[Api, Api]) -> None:
    for number in range(6):
        digest = await two[number % 2].push_image("image", "latest", b"%d" % number)
        answer = await two[1 - number % 2].get("/v2/image/manifests/latest")
        assert answer.headers["docker-content-digest"] == digest


async def test_referrers_pushed_to_one_worker_are_seen_by_the_other(two: tuple[Api, Api]) -> None:
    subject = {"mediaType": MANIFEST, "digest": sha256(b"subject"), "size": 7}
    path = f"/v2/image/referrers/{subject['digest']}"
    assert (await two[1].get(path)).json["manifests"] == []
    await two[0].push_manifest("image", "bom", index(subject=subject))
    assert len((await two[1].get(path)).json["manifests"]) == 1
    await two[1].ask("DELETE", "/v2/image/manifests/bom")
    assert len((await two[0].get(path)).json["manifests"]) == 1


async def test_pushes_and_pulls_through_both_workers_at_once_are_all_whole(two: tuple[Api, Api]) -> None:
    async def push(number: int) -> None:
        digest = await two[number % 2].push_image("image", f"v{number}", b"shared", b"%d" % number)
        for worker in two:
            answer = await worker.get(f"/v2/image/manifests/v{number}")
            assert answer.headers["docker-content-digest"] == sha256(answer.body) == digest
            for layer in answer.json["layers"]:
                assert sha256((await worker.get(f"/v2/image/blobs/{layer['digest']}")).body) == layer["digest"]

    await asyncio.gather(*(push(number) for number in range(12)))
    assert len((await two[0].get("/v2/image/tags/list")).json["tags"]) == 12


async def test_an_image_is_refused_by_one_worker_once_the_other_deleted_its_blob(two: tuple[Api, Api]) -> None:
    config = await two[0].push_blob("image", b"{}")
    assert (await two[1].push_manifest("image", "v1", image(config))).status == 201
    await two[0].ask("DELETE", f"/v2/image/blobs/{config}")
    answer = await two[1].push_manifest("image", "v2", image(config))
    assert (answer.status, answer.code) == (404, "MANIFEST_BLOB_UNKNOWN")
