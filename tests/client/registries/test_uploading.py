"""A blob goes into a repository whatever breaks on the way, and nothing is sent twice that need not be."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from client.registries.retrying import Patience
from client.registries.uploading import How, Upload
from client.session import Session
from client.transfers.supply import beyond
from ocispec.descriptor import Descriptor
from ocispec.digest import Digest
from ocispec.errors import (
    ContentTruncated,
    Denied,
    DigestMismatch,
    HostUnreachable,
    LayerhouseError,
    ResponseInvalid,
)
from ocispec.reference import Reference, RepositoryName
from tests.client.receiving import Receiving, receiving
from tests.client.scripted import Reply, scripted, serving

MIB = 1024 * 1024
LARGE = bytes(range(256)) * 12_000  # 3 MB
LITTLE = b"little"


class Held:
    """A source in memory, in small pieces; `breaks` after so many bytes, each once."""

    def __init__(self, data: bytes, *breaks: int) -> None:
        self.data = data
        self.breaks = list(breaks)
        self.opened: list[int] = []

    @asynccontextmanager
    async def stream(self, wanted: Descriptor, offset: int = 0) -> AsyncIterator[AsyncIterator[bytes]]:
        self.opened.append(offset)

        async def pieces() -> AsyncIterator[bytes]:
            for start in range(offset, len(self.data), 100_000):
                if self.breaks and start >= self.breaks[0]:
                    self.breaks.pop(0)
                    raise ContentTruncated("the source broke")
                yield self.data[start : start + 100_000]

        yield pieces()


@pytest.fixture
async def registry() -> AsyncIterator[Receiving]:
    async with receiving() as server:
        yield server


async def upload(
    host: str, data: bytes, source: Held | None = None, *mounts: str, told: list[int] | None = None
) -> How:
    blob = Descriptor("x/y", Digest.of(data), len(data))
    async with Session() as session:
        api = await session.remote(Reference.parse(f"{host}/a/b:1"), "pull", "push").pushing()
        heard = told if told is not None else []
        going = Upload(api, Patience(first=0.001), blob, source or Held(data), heard.append)
        return await going.run([RepositoryName.parse(each) for each in mounts])


@pytest.mark.parametrize(
    ("data", "steps"), [(LITTLE, ["POST", "PUT"]), (LARGE, ["POST", "PATCH", "PUT"]), (b"", ["POST", "PUT"])]
)
async def test_a_blob_goes_out_in_the_fewest_requests(registry: Receiving, data: bytes, steps: list[str]):
    told: list[int] = []
    assert await upload(registry.host, data, told=told) is How.UPLOADED
    assert registry.blobs == {str(Digest.of(data)): data}
    assert registry.methods() == steps
    assert registry.seen[-1].query == {"state": "s", "digest": str(Digest.of(data))}
    assert told == sorted(told)


@pytest.mark.parametrize("twentieth", range(1, 20))
async def test_a_connection_cut_anywhere_costs_only_what_had_not_come(registry: Receiving, twentieth: int):
    cut = len(LARGE) * twentieth // 20
    registry.cuts = [cut]
    assert await upload(registry.host, LARGE) is How.UPLOADED
    assert registry.blobs == {str(Digest.of(LARGE)): LARGE}
    first, second = registry.of("PATCH")
    assert second.headers["content-range"] == f"{cut}-{len(LARGE) - 1}"
    assert second.taken == len(LARGE) - cut
    assert registry.methods() == ["POST", "PATCH", "GET", "GET", "PATCH", "PUT"]
    assert "content-range" not in first.headers


async def test_progress_between_breaks_never_runs_out_of_tries(registry: Receiving):
    registry.cuts = list(range(150_000, len(LARGE), 150_000))
    assert await upload(registry.host, LARGE) is How.UPLOADED
    assert len(registry.of("PATCH")) == len(LARGE) // 150_000 + 1


async def test_what_still_comes_in_after_a_break_is_waited_for():
    class Late(Receiving):
        """Takes what had come before the break while it is asked."""

        async def _upload(self, asked, reader):
            found = await super()._upload(asked, reader)
            if asked.method == "GET" and len(self.of("GET")) <= 3:
                kept = next(iter(self.uploads.values()))
                kept += LARGE[len(kept) : len(kept) + 100_000]
            return found

        async def _take(self, asked, reader, name, kept):
            found = await super()._take(asked, reader, name, kept)
            if found is None:
                del kept[:]
            return found

    late = Late(cuts=[1_000_000])
    async with serving(late.serve) as port:
        assert await upload(f"127.0.0.1:{port}", LARGE) is How.UPLOADED
    assert late.methods() == ["POST", "PATCH", "GET", "GET", "GET", "GET", "GET", "PATCH", "PUT"]
    assert late.of("PATCH")[1].headers["content-range"].startswith("300000-")
    assert late.blobs == {str(Digest.of(LARGE)): LARGE}


async def test_without_progress_it_ends_and_says_why(registry: Receiving):
    registry.cuts = [200_000] * 50
    with pytest.raises(HostUnreachable, match=re.escape(registry.host)):
        await upload(registry.host, LARGE)
    assert len(registry.of("PATCH")) == 6  # one that brought something, and five that did not


async def test_a_registry_that_keeps_less_than_it_was_sent_is_believed(registry: Receiving):
    registry.cuts, registry.loses = [1_000_000, 2_000_000], 300_000
    assert await upload(registry.host, LARGE) is How.UPLOADED
    assert [each.headers.get("content-range", "-").partition("-")[0] for each in registry.of("PATCH")] == [
        "",
        "700000",
        "1700000",
    ]
    assert registry.blobs == {str(Digest.of(LARGE)): LARGE}


@pytest.mark.parametrize("what", ["forgets", "silent"])
async def test_an_upload_that_is_gone_or_tells_nothing_is_begun_anew(registry: Receiving, what: str):
    registry.cuts = [1_000_000]
    setattr(registry, what, True)
    assert await upload(registry.host, LARGE) is How.UPLOADED
    assert len(registry.of("POST")) == 2
    assert registry.uploads == {}
    assert registry.blobs == {str(Digest.of(LARGE)): LARGE}


async def test_one_byte_or_none_are_told_alike_and_begin_anew(registry: Receiving):
    registry.cuts = [1]
    assert await upload(registry.host, LARGE) is How.UPLOADED
    assert registry.uploads == {}


@pytest.mark.parametrize("data", [LITTLE, LARGE])
async def test_an_end_that_nobody_heard_of_is_found_and_nothing_sent_twice(registry: Receiving, data: bytes):
    registry.commits_unheard = True
    assert await upload(registry.host, data) is How.UPLOADED
    assert registry.methods()[-1] == "HEAD"
    assert len(registry.of("POST")) == 1


@pytest.mark.parametrize("status", [405, 411, 415, 501])
async def test_a_registry_that_takes_no_stream_gets_the_whole_with_the_put(registry: Receiving, status: int):
    registry.always["PATCH"] = (status, "X")
    assert await upload(registry.host, LARGE) is How.UPLOADED
    assert registry.seen[-1].headers["content-length"] == str(len(LARGE))
    assert registry.cancelled == ["u1"]


async def test_a_registry_that_says_unsupported_by_code_gets_the_whole_too(registry: Receiving):
    registry.always["PATCH"] = (400, "UNSUPPORTED")
    assert await upload(registry.host, LARGE) is How.UPLOADED


async def test_a_whole_that_broke_is_sent_anew(registry: Receiving):
    registry.always["PATCH"] = (405, "UNSUPPORTED")
    registry.cuts = [1_000_000]
    assert await upload(registry.host, LARGE) is How.UPLOADED
    assert registry.blobs == {str(Digest.of(LARGE)): LARGE}


@pytest.mark.parametrize(("status", "code"), [(409, "BLOB_UPLOAD_INVALID"), (416, "RANGE_INVALID")])
async def test_an_upload_that_is_busy_or_out_of_step_is_asked_and_goes_on(registry: Receiving, status: int, code: str):
    registry.answers = [("PATCH", status, code)]
    assert await upload(registry.host, LARGE) is How.UPLOADED
    assert len(registry.of("PATCH")) == 2


async def test_an_upload_unknown_at_its_end_is_begun_anew(registry: Receiving):
    registry.answers = [("PUT", 404, "BLOB_UPLOAD_UNKNOWN")]
    assert await upload(registry.host, LARGE) is How.UPLOADED
    assert len(registry.of("POST")) == 2


@pytest.mark.parametrize("method", ["POST", "PATCH", "PUT", "GET"])
async def test_a_registry_that_is_overloaded_is_waited_for(registry: Receiving, method: str):
    registry.answers = [(method, 503, "UNAVAILABLE"), (method, 429, "TOOMANYREQUESTS")]
    registry.cuts = [1_000_000] if method == "GET" else []
    assert await upload(registry.host, LARGE) is How.UPLOADED
    assert registry.answers == []


@pytest.mark.parametrize("method", ["POST", "PATCH", "PUT"])
async def test_what_the_registry_refuses_ends_it_and_leaves_no_upload(registry: Receiving, method: str):
    registry.always[method] = (403, "DENIED")
    with pytest.raises(Denied, match=r"^as told \(status 403\)$"):
        await upload(registry.host, LARGE)
    assert registry.uploads == {}


async def test_a_least_length_of_chunks_is_kept(registry: Receiving):
    registry.minimum, registry.cuts = MIB, [MIB]
    assert await upload(registry.host, LARGE) is How.UPLOADED
    *_, last = registry.of("PATCH")
    assert last.headers["content-range"].endswith(f"-{len(LARGE) - 1}")  # the last chunk may have any length


async def test_bytes_that_are_not_the_digests_never_come_to_their_end(registry: Receiving):
    wrong = Held(LARGE[:-1] + b"!")
    with pytest.raises(DigestMismatch, match=f"expected {Digest.of(LARGE)}, what was read hashes to"):
        await upload(registry.host, LARGE, wrong)
    assert registry.cancelled == ["u1"]
    assert registry.uploads == registry.blobs == {}


@pytest.mark.parametrize("data", [LARGE[:-5], LARGE + b"more"])
async def test_content_of_another_size_is_refused(registry: Receiving, data: bytes):
    with pytest.raises(DigestMismatch, match=rf"expected {len(LARGE)} bytes, what was read has"):
        await upload(registry.host, LARGE, Held(data))
    assert registry.uploads == registry.blobs == {}


async def test_a_source_that_breaks_goes_on_where_it_broke(registry: Receiving):
    source = Held(LARGE, 1_000_000, 2_000_000)
    assert await upload(registry.host, LARGE, source) is How.UPLOADED
    assert registry.blobs == {str(Digest.of(LARGE)): LARGE}
    assert source.opened[0] == 0
    assert all(each > 0 for each in source.opened[1:])


async def test_a_blob_is_mounted_from_another_repository(registry: Receiving):
    registry.mountable = True
    assert await upload(registry.host, LARGE, None, "c/d", "e/f") is How.MOUNTED
    (asked,) = registry.seen
    assert asked.query == {"mount": str(Digest.of(LARGE)), "from": "c/d"}


async def test_what_cannot_be_mounted_goes_into_the_upload_that_was_begun_instead(registry: Receiving):
    assert await upload(registry.host, LARGE, None, "c/d") is How.UPLOADED
    assert registry.methods() == ["POST", "PATCH", "PUT"]


async def test_of_several_mounts_that_fail_one_upload_is_left(registry: Receiving):
    assert await upload(registry.host, LARGE, None, "c/d", "e/f") is How.UPLOADED
    assert registry.cancelled == ["u1"]
    assert registry.uploads == {}


async def test_a_mount_that_is_refused_is_no_failure(registry: Receiving):
    registry.answers = [("POST", 403, "DENIED")]
    assert await upload(registry.host, LARGE, None, "c/d") is How.UPLOADED


async def test_who_may_not_read_where_a_blob_could_be_mounted_from_uploads_it(registry: Receiving):
    async with scripted() as tokens:
        tokens.behaviours["/token"] = Reply(403)

        class Guarded(Receiving):
            async def _answer(self, asked, reader):
                if "mount" in asked.query:
                    return 401, {"WWW-Authenticate": f'Bearer realm="http://{tokens.host}/token"'}, b""
                return await super()._answer(asked, reader)

        guarded = Guarded()
        async with serving(guarded.serve) as port:
            assert await upload(f"127.0.0.1:{port}", LARGE, None, "c/d") is How.UPLOADED
    assert "repository:c/d:pull" in tokens.seen[0].target.replace("%3A", ":").replace("%2F", "/")


async def test_a_cancelled_upload_is_given_up_at_the_registry(registry: Receiving):
    class Endless(Held):
        @asynccontextmanager
        async def stream(self, wanted: Descriptor, offset: int = 0) -> AsyncIterator[AsyncIterator[bytes]]:
            async def pieces() -> AsyncIterator[bytes]:
                yield LARGE[:100_000]
                await asyncio.Event().wait()

            yield pieces()

    running = asyncio.create_task(upload(registry.host, LARGE, Endless(LARGE)))
    await registry.arrived.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert registry.cancelled == ["u1"]
    assert registry.uploads == {}


async def test_a_token_that_ends_in_the_middle_is_renewed_and_the_upload_goes_on(registry: Receiving):
    async with scripted() as tokens:
        tokens.behaviours["/token"] = Reply(200, b'{"token":"fresh"}')
        challenge = f'Bearer realm="http://{tokens.host}/token",service="x"'

        class Ending(Receiving):
            async def _answer(self, asked, reader):
                found = await super()._answer(asked, reader)
                known = asked.headers.get("authorization")
                if known != "Bearer fresh" and asked.method == "PATCH":
                    self.uploads[asked.path.rsplit("/", 1)[1]].clear()
                    return 401, {"WWW-Authenticate": challenge}, b""
                return found

        ending = Ending()
        async with serving(ending.serve) as port:
            ending.host = f"127.0.0.1:{port}"
            assert await upload(ending.host, LARGE) is How.UPLOADED
        assert ending.blobs == {str(Digest.of(LARGE)): LARGE}
        assert [each.query["scope"] for each in tokens.seen] == ["repository:a/b:pull,push"]


async def test_an_upload_at_another_host_carries_no_token(registry: Receiving):
    async with receiving() as store:
        registry.elsewhere = f"http://{store.host}"
        store.uploads["u1"] = bytearray()
        assert await upload(registry.host, LARGE) is How.UPLOADED
        assert store.blobs == {str(Digest.of(LARGE)): LARGE}
        assert all("authorization" not in each.headers for each in store.seen)


async def test_a_registry_that_says_not_where_is_named_as_wrong():
    async with scripted() as registry:
        registry.behaviours["/v2/a/b/blobs/uploads/"] = Reply(202)
        with pytest.raises(ResponseInvalid, match="without a Location"):
            await upload(registry.host, LARGE)


async def test_a_chunk_that_was_taken_in_part_is_brought_to_its_end(registry: Receiving):
    class Partly(Receiving):
        async def _take(self, asked, reader, name, kept):
            found = await super()._take(asked, reader, name, kept)
            if asked.method == "PATCH" and len(self.of("PATCH")) == 1:
                del kept[2_000_000:]
                return 202, self._where(name), b""
            return found

    partly = Partly()
    async with serving(partly.serve) as port:
        assert await upload(f"127.0.0.1:{port}", LARGE) is How.UPLOADED
    assert partly.blobs == {str(Digest.of(LARGE)): LARGE}
    assert partly.of("PATCH")[1].headers["content-range"].startswith("2000000-")


async def test_a_sha512_blob_is_announced(registry: Receiving):
    blob = Descriptor("x/y", Digest.of(LITTLE, "sha512"), len(LITTLE))
    async with Session() as session:
        api = await session.remote(Reference.parse(f"{registry.host}/a/b:1"), "push").pushing()
        with pytest.raises(LayerhouseError):
            await Upload(api, Patience(attempts=1), blob, Held(LITTLE), lambda _: None).run()
    assert registry.seen[0].query == {"digest-algorithm": "sha512"}


async def test_pieces_beyond_an_offset():
    async def pieces() -> AsyncIterator[bytes]:
        for each in (b"abc", b"def", b"ghi"):
            yield each

    for offset in range(10):
        assert b"".join([each async for each in beyond(pieces(), offset)]) == b"abcdefghi"[offset:]


async def test_answers_without_a_body_leave_the_connection_to_the_next_request():
    connections = 0

    class Counting(Receiving):
        async def serve(self, reader, writer):
            nonlocal connections
            connections += 1
            await super().serve(reader, writer)

    counting = Counting()
    async with serving(counting.serve) as port, Session() as session:
        api = await session.remote(Reference.parse(f"127.0.0.1:{port}/a/b:1"), "pull", "push").pushing()
        for data in (LITTLE, LARGE):
            going = Upload(api, Patience(), Descriptor("x/y", Digest.of(data), len(data)), Held(data), lambda _: None)
            assert not await going.exists()
            await going.run()
    assert len(counting.seen) == 7
    assert connections == 1


async def test_what_came_whole_before_the_break_is_only_ended(registry: Receiving):
    registry.cuts = [len(LARGE)]
    assert await upload(registry.host, LARGE) is How.UPLOADED
    assert registry.methods() == ["POST", "PATCH", "GET", "GET", "PUT"]
