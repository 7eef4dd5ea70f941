"""Pushing blobs: what a client that errs, hangs up or comes back meets."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from storage.engine import Engine
from storage.files import FilesEngine
from tests.support.api import Api, Broken, serving, sha512
from tests.support.images import sha256

DATA = b"0123456789" * 10
DIGEST = sha256(DATA)
GONE = {"type": "http.disconnect"}


@pytest.mark.parametrize("span", ["0-98", "0-100", "0-0"])
@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("method", ["PATCH", "PUT"])
async def test_a_chunk_that_is_not_as_long_as_it_says_is_taken_back(
    api: Api, method: str, chunked: bool, span: str
) -> None:
    location = await api.begin("image")
    body = [DATA[:50], DATA[50:]] if chunked else DATA
    answer = await api.ask(method, f"{location}?digest={DIGEST}", body, {"Content-Range": span})
    assert (answer.status, answer.code) == (400, "SIZE_INVALID")
    assert (await api.get(location)).headers["range"] == "0-0"
    answer = await api.ask("PATCH", location, body, {"Content-Range": f"0-{len(DATA) - 1}"})
    assert (answer.status, answer.headers["range"]) == (202, "0-99")
    assert (await api.commit(location, b"", DIGEST)).status == 201


@pytest.mark.parametrize("span", ["", "5", "9-0", "a-b", "-5", "0-99999999999999999999", "bytes */5"])
async def test_a_content_range_that_is_none_is_refused(api: Api, span: str) -> None:
    location = await api.begin("image")
    answer = await api.ask("PATCH", location, DATA, {"Content-Range": span})
    assert (answer.status, answer.code) == (400, "BLOB_UPLOAD_INVALID")


async def test_a_length_that_is_none_is_refused(api: Api) -> None:
    location = await api.begin("image")
    headers = {"Content-Range": "0-99", "Content-Length": "many"}
    answer = await api.ask("PATCH", location, DATA, headers)
    assert (answer.status, answer.code) == (400, "SIZE_INVALID")


async def test_a_wrong_digest_leaves_nothing_behind(tmp_path: Path) -> None:
    async with serving(FilesEngine(tmp_path)) as api:
        location = await api.begin("image")
        await api.ask("PATCH", location, DATA)
        for answer in (
            await api.commit(location, b"", sha256(b"other")),
            await api.ask("POST", f"/v2/image/blobs/uploads/?digest={sha512(b'other')}", DATA),
        ):
            assert (answer.status, answer.code) == (400, "DIGEST_INVALID")
            assert DIGEST in str(answer.json) or sha512(DATA) in str(answer.json)
        assert (await api.get(location)).status == 404
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("chunked", [[DATA], [DATA[:1], DATA[1:]]])
async def test_what_came_before_the_client_hung_up_is_kept(api: Api, chunked: list[bytes]) -> None:
    location = await api.begin("image")
    body = [{"type": "http.request", "body": piece, "more_body": True} for piece in chunked]
    with pytest.raises(Broken):
        await api.exchange("PATCH", location, {}, *body, GONE)
    found = await api.get(location)
    assert (found.status, found.headers["range"]) == (204, f"0-{len(DATA) - 1}")
    rest = b" and the rest"
    answer = await api.ask("PATCH", location, rest, {"Content-Range": f"100-{99 + len(rest)}"})
    assert answer.status == 202
    assert (await api.commit(location, b"", sha256(DATA + rest))).status == 201


async def test_a_client_that_hangs_up_in_the_last_chunk_may_come_back(api: Api) -> None:
    location = await api.begin("image")
    half = {"type": "http.request", "body": DATA[:60], "more_body": True}
    with pytest.raises(Broken):
        await api.exchange("PUT", f"{location}?digest={DIGEST}", {}, half, GONE)
    assert (await api.get(location)).headers["range"] == "0-59"
    assert (await api.commit(location, DATA[60:], DIGEST)).status == 201


async def test_a_blob_sent_in_one_request_that_breaks_leaves_no_upload(engine: Engine) -> None:
    async with serving(engine) as api:
        half = {"type": "http.request", "body": DATA[:60], "more_body": True}
        with pytest.raises(Broken):
            await api.exchange("POST", f"/v2/image/blobs/uploads/?digest={DIGEST}", {}, half, GONE)
        refused = await api.ask("POST", f"/v2/image/blobs/uploads/?digest={DIGEST}", DATA, {"Content-Range": "0-5"})
        assert refused.status == 400
        assert await engine.children("docker/registry/v2/repositories/image/_uploads") == []


@pytest.mark.parametrize("identity", ["not-a-uuid", "%2e%2e", "00000000-0000-4000-8000-000000000000"])
@pytest.mark.parametrize("method", ["GET", "PATCH", "PUT", "DELETE"])
async def test_an_upload_that_never_began_is_unknown(api: Api, method: str, identity: str) -> None:
    answer = await api.ask(method, f"/v2/image/blobs/uploads/{identity}?digest={DIGEST}", b"")
    assert (answer.status, answer.code) == (404, "BLOB_UPLOAD_UNKNOWN")


async def test_an_upload_belongs_to_its_repository(api: Api) -> None:
    location = await api.begin("image")
    answer = await api.ask("PATCH", location.replace("image", "other"), DATA)
    assert (answer.status, answer.code) == (404, "BLOB_UPLOAD_UNKNOWN")


async def test_a_commit_without_a_digest_is_refused_and_the_upload_stays(api: Api) -> None:
    location = await api.begin("image")
    answer = await api.ask("PUT", location, DATA)
    assert (answer.status, answer.code) == (400, "DIGEST_INVALID")
    assert (await api.commit(location, DATA, DIGEST)).status == 201


@pytest.mark.parametrize("query", ["mount=none", f"mount={DIGEST}&from=UPPER", f"mount={DIGEST}&from=../x"])
async def test_a_mount_of_what_cannot_be_is_refused(api: Api, query: str) -> None:
    answer = await api.ask("POST", f"/v2/image/blobs/uploads/?{query}")
    assert (answer.status, answer.code) == (400, "NAME_INVALID" if "from" in query else "DIGEST_INVALID")


async def test_a_blob_whose_data_is_gone_is_not_mounted(tmp_path: Path) -> None:
    async with serving(FilesEngine(tmp_path)) as api:
        await api.push_blob("source", DATA)
        (data,) = tmp_path.rglob("data")
        data.unlink()
        for source in ("&from=source", ""):
            assert (await api.ask("POST", f"/v2/image/blobs/uploads/?mount={DIGEST}{source}")).status == 202
        await api.push_blob("source", DATA)
        assert (await api.get(f"/v2/source/blobs/{DIGEST}")).body == DATA


async def test_of_two_chunks_for_one_place_one_wins_and_no_byte_is_mixed(api: Api) -> None:
    location = await api.begin("image")
    bodies = [bytes([number]) * 300_000 for number in (1, 2)]
    headers = {"Content-Range": "0-299999"}
    answers = await asyncio.gather(
        *(api.ask("PATCH", location, [body[:1], body[1:200_000], body[200_000:]], headers) for body in bodies)
    )
    assert sorted(answer.status for answer in answers) in ([202, 416], [202, 409])
    won = bodies[[answer.status for answer in answers].index(202)]
    assert (await api.get(location)).headers["range"] == "0-299999"
    assert (await api.commit(location, b"", sha256(won))).status == 201


async def test_many_uploads_of_one_blob_at_once_all_succeed(api: Api) -> None:
    digests = await asyncio.gather(*(api.push_blob(f"image/{number % 3}", DATA * 50) for number in range(12)))
    assert len(set(digests)) == 1
    assert (await api.get(f"/v2/image/0/blobs/{digests[0]}")).body == DATA * 50


async def test_a_request_that_the_server_ends_keeps_what_was_written(api: Api) -> None:
    location = await api.begin("image")
    started = asyncio.Event()
    pieces: list[Any] = [{"type": "http.request", "body": b"x" * (1 << 20), "more_body": True}]

    async def receive() -> Any:
        if pieces:
            return pieces.pop()
        started.set()
        return await asyncio.Event().wait()

    async def send(_message: Any) -> None:
        raise AssertionError

    request = asyncio.create_task(api.app(api.scope("PATCH", location, {}), receive, send))
    await started.wait()
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request
    assert (await api.get(location)).headers["range"] == f"0-{(1 << 20) - 1}"
    assert (await api.commit(location, b"y", sha256(b"x" * (1 << 20) + b"y"))).status == 201
