"""Faults at the upstream, of readers and of the disk, and what a mirror's clients get."""

from __future__ import annotations

import asyncio
import gc
import json
import ssl
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.client.faulty import FaultyRegistry, Sent, faulty, honest, whole
from tests.client.scripted import Reply, Seen
from tests.registry.mirror.mirroring import (
    DIGEST,
    KIB,
    LARGE,
    NAME,
    PATH,
    TAG,
    Reader,
    impatient,
    kept,
    large,
    left,
    mirror,
    mirroring,
    overlap,
    parts,
    recorded,
    until_kept,
    upstream,
    watchful,
    way,
)
from tests.support.api import Broken
from tests.support.host import open_files
from tests.support.tmpfs import tmpfs

# Fixtures, which pytest finds by their names here.
__all__ = ["impatient", "mirror", "parts", "upstream", "watchful", "way"]

SIZE = len(LARGE)


def spoilt(_: Seen, sent: Sent) -> Sent:
    """Other bytes, from the first one on."""
    return replace(sent, body=memoryview(b"x" + bytes(sent.body[1:])))


@pytest.mark.parametrize("tenth", range(10))
async def test_a_cut_at_any_tenth_goes_on_where_it_was(
    mirror: Any, upstream: FaultyRegistry, tmp_path: Path, way: str, tenth: int
) -> None:
    at = SIZE * tenth // 10

    def cut(_: Seen, sent: Sent) -> Sent:
        here = sent.first <= at < sent.first + len(sent.body) and upstream.twist is cutting
        if here:
            upstream.twist = honest
        return replace(sent, cut=at - sent.first) if here else sent

    api = await mirror()
    cutting = upstream.twist = large(cut)
    readers = [Reader(api) for _ in range(3)]
    assert [await each.whole() for each in readers] == [LARGE] * 3
    assert upstream.twist is honest
    assert upstream.log.once(DIGEST, SIZE)
    assert DIGEST in kept(tmp_path / "mirror")
    assert left(tmp_path / "mirror") == []


async def test_a_stall_is_ended_and_goes_on(mirror: Any, upstream: FaultyRegistry, way: str, watchful: None) -> None:
    never = asyncio.Event()
    api = await mirror()
    upstream.twist = large(lambda _, sent: replace(sent, cut=200_000, then=never.wait), 1)
    reader = Reader(api)
    await reader.at_least(200_000)
    assert await reader.whole() == LARGE
    never.set()
    assert upstream.log.once(DIGEST, SIZE)


async def test_what_comes_slowly_is_given_as_it_comes(mirror: Any, upstream: FaultyRegistry) -> None:
    going = asyncio.Event()
    first = 20 * KIB

    async def pace() -> None:
        if upstream.log.of(DIGEST):
            await going.wait()

    upstream.twist = large(lambda _, sent: replace(sent, pace=pace, piece=first))
    reader = Reader(await mirror())
    await reader.at_least(16 * KIB)
    going.set()
    assert await reader.whole() == LARGE


async def test_wrong_bytes_break_every_reader_and_are_not_kept(
    mirror: Any, upstream: FaultyRegistry, tmp_path: Path, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    api = await mirror()
    upstream.twist = large(spoilt)
    readers = [Reader(api), Reader(api), Reader(api, headers={"range": f"bytes={SIZE - 10}-"})]
    for each in readers:
        with pytest.raises(Broken):
            await each.whole()
    assert [len(each.body) for each in readers] == [SIZE - 1, SIZE - 1, 9], "the last byte never comes"
    assert f"{NAME}: {DIGEST}: upstream: expected {DIGEST}, its content hashes to sha256:" in caplog.text
    assert DIGEST not in kept(tmp_path / "mirror")
    assert left(tmp_path / "mirror") == []
    upstream.twist = honest
    assert (await api.get(PATH)).body == LARGE


@pytest.mark.parametrize("status", [429, 500, 502, 503])
async def test_a_fault_that_passes_is_no_matter_and_one_that_stays_is_told(
    mirror: Any, upstream: FaultyRegistry, tmp_path: Path, way: str, status: int
) -> None:
    api = await mirror()
    upstream.twist = large(lambda *_: Reply(status), 1)
    assert (await api.get(PATH)).body == LARGE
    (tmp_path / "mirror").rename(tmp_path / "before")
    api = await mirror()
    upstream.twist = large(lambda *_: Reply(status, headers={"Retry-After": "0"}))
    answer = await api.get(PATH)
    assert (answer.status, answer.code) == ((429, "TOOMANYREQUESTS") if status == 429 else (503, "UNAVAILABLE"))
    assert answer.headers["retry-after"] == "0"
    assert left(tmp_path / "mirror") == []


async def test_a_wait_that_is_too_long_is_handed_on(mirror: Any, upstream: FaultyRegistry) -> None:
    api = await mirror()
    upstream.twist = large(lambda *_: Reply(429, headers={"Retry-After": "86400"}))
    answer = await api.get(PATH)
    assert (answer.status, answer.headers["retry-after"]) == (429, "86400")


async def test_a_token_that_expires_in_the_middle_is_renewed(
    mirror: Any, upstream: FaultyRegistry, parts: None
) -> None:
    given: list[str] = []
    answered = 0

    def give(_: Seen) -> Reply:
        given.append(f"t{len(given)}")
        return Reply(200, json.dumps({"token": given[-1]}).encode())

    def guard(request: Seen, sent: Sent) -> Sent | Reply:
        nonlocal answered
        valid = "t0" if answered < 4 else "t1"
        if request.headers.get("authorization") != f"Bearer {valid}":
            challenge = f'Bearer realm="http://{upstream.host}/token",service="s"'
            return Reply(401, headers={"WWW-Authenticate": challenge})
        answered += 1
        return sent

    upstream.behaviours["/token"] = give
    upstream.twist = large(guard)
    api = await mirror()
    assert (await api.get(PATH)).body == LARGE
    assert upstream.log.once(DIGEST, SIZE)
    assert given == ["t0", "t1"]


async def test_a_redirect_that_never_ends_is_told(mirror: Any, upstream: FaultyRegistry, tmp_path: Path) -> None:
    api = await mirror()
    upstream.behaviours[PATH] = Reply(307, headers={"Location": f"http://{upstream.host}{PATH}"})
    answer = await api.get(PATH)
    assert (answer.status, answer.code) == (503, "UNAVAILABLE")
    assert "redirected more than 10 times" in answer.message
    assert left(tmp_path / "mirror") == []


async def test_a_certificate_that_nobody_vouches_for_is_told(mirror: Any, tmp_path: Path) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(Path(__file__).parents[2] / "client" / "localhost.pem")
    async with faulty(tls) as other:
        other.publish(NAME, "latest", [LARGE])
        api = await mirror(url=f"https://{other.host}")
        answer = await api.get(TAG)
        assert (answer.status, answer.code) == (503, "UNAVAILABLE")
        assert "its certificate is not trusted" in answer.message
        assert other.seen == []


async def test_a_name_that_does_not_resolve_is_told(mirror: Any) -> None:
    answer = await (await mirror(url="http://nowhere.invalid")).get(TAG)
    assert (answer.status, answer.code) == (503, "UNAVAILABLE")
    assert "nowhere.invalid cannot be reached: its name does not resolve" in answer.message


async def test_a_slow_reader_keeps_nobody_from_anything(
    mirror: Any, upstream: FaultyRegistry, tmp_path: Path, way: str
) -> None:
    api = await mirror()
    slow, quick = Reader(api), Reader(api)
    slow.ready.clear()
    assert await quick.whole() == LARGE
    await until_kept(tmp_path / "mirror")
    slow.ready.set()
    assert await slow.whole() == LARGE
    assert upstream.log.once(DIGEST, SIZE)


async def test_readers_that_leave_stop_nothing(mirror: Any, upstream: FaultyRegistry, tmp_path: Path, way: str) -> None:
    going = asyncio.Event()
    api = await mirror()
    upstream.twist = large(lambda _, sent: replace(sent, pace=going.wait if sent.first else None, piece=100_000))
    leaving = [Reader(api) for _ in range(3)]
    for each in leaving:
        await each.at_least(1)
        await each.leave()
    going.set()
    await until_kept(tmp_path / "mirror")
    assert upstream.log.once(DIGEST, SIZE)


async def test_a_host_that_begins_anew_breaks_who_has_read_and_serves_who_comes(
    mirror: Any, upstream: FaultyRegistry, tmp_path: Path
) -> None:
    """Two halves of two versions must not be taken for the blob, though each part of it was right."""
    halt = asyncio.Event()

    def wrong_then_right(request: Seen, sent: Sent) -> Sent:
        if "range" in request.headers:
            return whole(sent, LARGE)
        return replace(spoilt(request, sent), cut=SIZE // 2, then=halt.wait)

    api = await mirror()
    upstream.twist = large(wrong_then_right)
    reader = Reader(api)
    await reader.at_least(SIZE // 2)
    halt.set()
    with pytest.raises(Broken):
        await reader.whole()
    await until_kept(tmp_path / "mirror")
    assert (await api.get(PATH)).body == LARGE


@pytest.mark.peer("tmpfs")
async def test_a_disk_without_room_is_left_alone_and_the_client_gets_its_bytes(
    mirror: Any, upstream: FaultyRegistry, tmp_path: Path, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    with tmpfs(tmp_path / "small", 2048 * KIB) as root:
        async with mirroring(root, f"http://{upstream.host}") as api:
            assert (await api.get(TAG)).status == 200
            assert (await api.get(PATH)).body == LARGE
            part = await api.get(PATH, range="bytes=5-99")
            assert (part.status, part.body) == (206, LARGE[5:100])
            end = await api.get(PATH, range=f"bytes={SIZE - 50}-")
            assert (end.status, end.body) == (206, LARGE[-50:])
            assert "cannot be kept, and is served from upstream" in caplog.text
            assert DIGEST not in kept(root)
            assert left(root) == []


@pytest.mark.peer("tmpfs")
async def test_a_disk_that_fills_up_in_the_middle_breaks_nobody(
    mirror: Any, upstream: FaultyRegistry, tmp_path: Path, way: str
) -> None:
    going = asyncio.Event()
    came = 300_000

    async def pace() -> None:
        if sum(end - at for at, end in upstream.log.of(DIGEST)) >= came:
            await going.wait()

    with tmpfs(tmp_path / "small", 6 * 1024 * KIB) as root:
        async with mirroring(root, f"http://{upstream.host}") as api:
            upstream.twist = large(lambda _, sent: replace(sent, pace=pace))
            first, ranged = Reader(api), Reader(api, headers={"range": f"bytes=1000-{SIZE - 1}"})
            inner = Reader(api, headers={"range": f"bytes=2000-{SIZE - 5}"})
            slow = Reader(api)
            for each in (first, ranged, inner, slow):
                await each.at_least(16 * KIB - 2000)
            slow.ready.clear()
            ballast = root / "ballast"
            with pytest.raises(OSError, match="No space left"):
                ballast.write_bytes(bytes(6 * 1024 * KIB))
            going.set()
            assert await first.whole() == LARGE
            slow.ready.set()
            assert await slow.whole() == LARGE
            assert await ranged.whole() == LARGE[1000:]
            assert await inner.whole() == LARGE[2000:-4]
            assert DIGEST not in kept(root)
            assert left(root) == []
            ballast.unlink()
            assert (await api.get(PATH)).body == LARGE
            await until_kept(root)


@pytest.mark.parametrize("ranges", [True, False], ids=["ranges", "no ranges"])
async def test_what_goes_straight_goes_on_where_it_broke(
    mirror: Any, upstream: FaultyRegistry, full: None, ranges: bool
) -> None:
    api = await mirror()

    def cut(_: Seen, sent: Sent) -> Sent:
        return replace(sent if ranges else whole(sent, LARGE), cut=min(len(sent.body), 1_000_000))

    upstream.twist = large(cut, 1, 2) if ranges else large(cut, 1)
    if not ranges:
        twist = upstream.twist
        upstream.twist = lambda seen, sent: twist(seen, whole(sent, LARGE)) if seen.path == PATH else sent
    assert (await api.get(PATH)).body == LARGE
    if ranges:
        assert upstream.log.once(DIGEST, SIZE)


async def test_what_goes_straight_is_verified_before_its_last_byte(
    mirror: Any, upstream: FaultyRegistry, full: None
) -> None:
    api = await mirror()
    upstream.twist = large(spoilt)
    reader = Reader(api)
    with pytest.raises(Broken):
        await reader.whole()
    assert len(reader.body) == SIZE - 1


async def test_what_goes_straight_and_never_comes_breaks(mirror: Any, upstream: FaultyRegistry, full: None) -> None:
    api = await mirror()
    upstream.twist = large(lambda _, sent: replace(sent, cut=0))
    with pytest.raises(Broken):
        await Reader(api).whole()


async def test_a_small_blob_that_cannot_be_kept_is_served(mirror: Any, upstream: FaultyRegistry, full: None) -> None:
    small = upstream.blob(NAME, b"small")["digest"]
    assert (await (await mirror()).get(f"/v2/{NAME}/blobs/{small}")).body == b"small"


async def test_a_blob_that_cannot_be_put_in_its_place_at_the_end_is_served(
    mirror: Any, upstream: FaultyRegistry, tmp_path: Path
) -> None:
    """Its last byte too: it was verified, and only the disk failed."""
    going = asyncio.Event()
    api = await mirror()
    upstream.twist = large(lambda _, sent: replace(sent, pace=going.wait if upstream.log.of(DIGEST) else None))
    reader = Reader(api)
    await reader.at_least(1)
    folder = tmp_path / "mirror/docker/registry/v2/blobs/sha256" / DIGEST.removeprefix("sha256:")[:2]
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.write_text("in the way")
    going.set()
    assert await reader.whole() == LARGE
    assert upstream.log.once(DIGEST, SIZE)


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk says that it has no room."""
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 0}))


async def test_a_shutdown_in_the_middle_keeps_what_came_and_leaves_nothing_running(
    upstream: FaultyRegistry, tmp_path: Path, way: str
) -> None:
    never = asyncio.Event()
    root, url = tmp_path / "mirror", f"http://{upstream.host}"
    upstream.twist = large(lambda _, sent: replace(sent, cut=min(300_000, len(sent.body)), then=never.wait))
    tasks = asyncio.all_tasks()
    async with mirroring(root, url) as api:
        readers = [Reader(api) for _ in range(3)]
        for each in readers:
            await each.at_least(300_000)
    for each in readers:
        with pytest.raises(Broken):
            await each.whole()
    never.set()
    assert open_files(root) == 0
    mine = {each for each in asyncio.all_tasks() - tasks if "tests/client" not in repr(each)}
    assert mine == set()
    upstream.twist = honest
    upstream.forget()
    here = recorded(root)
    assert sum(end - at for at, end in here) >= 300_000
    async with mirroring(root, url) as api:
        assert (await api.get(PATH)).body == LARGE
    assert all(each.headers.get("range") for each in upstream.seen if each.path == PATH and each.method == "GET")
    assert not overlap(upstream.log.of(DIGEST), here)


async def test_no_descriptor_is_left_open(upstream: FaultyRegistry, tmp_path: Path, way: str) -> None:
    def descriptors() -> int:
        gc.collect()
        return len(list(Path("/proc/self/fd").iterdir()))

    async def use(root: Path) -> None:
        async with mirroring(root, f"http://{upstream.host}") as api:
            leaving, staying = Reader(api), Reader(api)
            await leaving.at_least(1)
            await leaving.leave()
            await staying.whole()
            upstream.twist = large(spoilt)
            (root / "docker").rename(root / "elsewhere")
            with pytest.raises(Broken):
                await Reader(api).whole()
            upstream.twist = honest

    await use(tmp_path / "first")
    before = descriptors()
    await use(tmp_path / "second")
    assert descriptors() <= before
