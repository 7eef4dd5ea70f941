"""One fetch, many readers: within a process, and across processes that serve the same images."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ocispec.reference import RepositoryName
from registry.mirror import fetching
from tests.client.faulty import FaultyRegistry, Sent, honest
from tests.client.scripted import Reply, Seen
from tests.registry.mirror.mirroring import (
    DIGEST,
    LARGE,
    NAME,
    PART,
    PATH,
    Reader,
    impatient,
    large,
    left,
    mirror,
    mirroring,
    overlap,
    parts,
    recorded,
    until_kept,
    upstream,
    way,
)
from tests.support.api import Broken
from tests.support.images import sha256

# Fixtures, which pytest finds by their names here.
__all__ = ["impatient", "mirror", "parts", "upstream", "way"]

SIZE = len(LARGE)


class Gate:
    """Lets an upstream send so many bytes of the large blob, and then waits until it is opened."""

    def __init__(self, upstream: FaultyRegistry, count: int) -> None:
        self._upstream = upstream
        self._count = count
        self._opened = asyncio.Event()
        upstream.twist = large(lambda _, sent: replace(sent, pace=self._pace))

    def open(self) -> None:
        self._opened.set()

    async def _pace(self) -> None:
        if sum(end - at for at, end in self._upstream.log.of(DIGEST)) >= self._count:
            await self._opened.wait()


async def test_two_processes_share_one_fetch_and_both_read_along(
    mirror: Any, upstream: FaultyRegistry, tmp_path: Path, way: str
) -> None:
    gate = Gate(upstream, 400_000)
    one, two = await mirror(), await mirror()
    first = Reader(one)
    await first.at_least(1)
    second, ranged = Reader(two), Reader(two, headers={"range": "bytes=1000-199999"})
    await second.at_least(300_000 if way == "stream" else 1000)
    if way == "stream":
        assert (await ranged.whole(), ranged.status) == (LARGE[1000:200_000], 206)
    gate.open()
    assert [await each.whole() for each in (first, second)] == [LARGE] * 2
    assert await ranged.whole() == LARGE[1000:200_000]
    assert upstream.log.once(DIGEST, SIZE)
    assert left(tmp_path / "mirror") == []
    assert (await two.get(PATH)).body == LARGE


async def test_who_waited_goes_on_where_the_holder_gave_up(
    mirror: Any, upstream: FaultyRegistry, tmp_path: Path, way: str
) -> None:
    """As after `kill -9` of the holder: its lock is free, and its bytes are there."""
    gate = Gate(upstream, 400_000)
    two = await mirror()
    async with mirroring(tmp_path / "mirror", f"http://{upstream.host}") as one:
        first = Reader(one)
        await first.at_least(1)
        second = Reader(two)
        await second.at_least(1)
    with pytest.raises(Broken):
        await first.whole()
    here = recorded(tmp_path / "mirror")
    upstream.forget()
    gate.open()
    assert await second.whole() == LARGE
    assert not overlap(upstream.log.of(DIGEST), here)


async def test_wrong_bytes_break_readers_in_the_other_process_too(
    mirror: Any, upstream: FaultyRegistry, tmp_path: Path
) -> None:
    gate = Gate(upstream, 400_000)
    halted = upstream.twist

    def wrong_at_first(request: Seen, sent: Sent) -> Sent | Reply:
        told = halted(request, sent)
        assert isinstance(told, Sent)
        return replace(told, body=memoryview(b"x" + bytes(told.body[1:])))

    upstream.twist = wrong_at_first
    one, two = await mirror(), await mirror()
    first = Reader(one)
    await first.at_least(1)
    second = Reader(two)
    await second.at_least(300_000)
    upstream.twist = honest
    gate.open()
    for each in (first, second):
        with pytest.raises(Broken):
            await each.whole()
    # The second process has fetched it anew by itself.
    await until_kept(tmp_path / "mirror")
    assert (await two.get(PATH)).body == LARGE


async def test_a_late_range_is_fetched_before_what_nobody_waits_for(
    mirror: Any, upstream: FaultyRegistry, parts: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("client.session.PER_HOST", 1)
    asked: list[int] = []
    going = asyncio.Event()

    async def pace() -> None:
        if len(asked) == 1:
            await going.wait()

    def watch(_: Seen, sent: Sent) -> Sent:
        asked.append(sent.first // PART)
        return replace(sent, pace=pace if len(asked) <= 6 else None)

    api = await mirror()
    upstream.twist = large(watch)
    whole = Reader(api)
    while not asked:
        await asyncio.sleep(0.001)
    late = Reader(api, headers={"range": f"bytes={SIZE - 100}-{SIZE - 2}"})
    await asyncio.sleep(0.05)
    going.set()
    assert (await late.whole(), late.status) == (LARGE[-100:-1], 206)
    assert await whole.whole() == LARGE
    assert asked[0] == 0
    assert sorted(asked) == list(range(7))


async def test_two_sizes_of_one_digest_are_two_fetches(mirror: Any, upstream: FaultyRegistry) -> None:
    """A manifest that lies breaks nobody who has the right one."""
    layer = {"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": DIGEST, "size": SIZE - 5}
    config = {"mediaType": "application/vnd.oci.image.config.v1+json", **upstream.blob("lies/app", b"{}")}
    kind = "application/vnd.oci.image.manifest.v1+json"
    upstream.manifest("lies/app", "latest", {"mediaType": kind, "config": config, "layers": [layer]})
    api = await mirror()
    await api.get("/v2/lies/app/manifests/latest")
    wrong, right = Reader(api, f"/v2/lies/app/blobs/{DIGEST}"), Reader(api)
    assert await right.whole() == LARGE
    await wrong.task
    assert not wrong.ended or wrong.status == 503


async def test_a_blob_that_another_repository_has_is_asked_of_upstream_first(
    mirror: Any, upstream: FaultyRegistry
) -> None:
    """Who may read one repository gets nothing of another one by knowing a digest."""
    api = await mirror()
    assert (await api.get(PATH)).body == LARGE
    upstream.behaviours[f"/v2/other/app/blobs/{DIGEST}"] = Reply(404, b'{"errors":[{"code":"BLOB_UNKNOWN"}]}')
    answer = await api.get(f"/v2/other/app/blobs/{DIGEST}")
    assert (answer.status, answer.code) == (404, "BLOB_UNKNOWN")


async def test_no_more_fetches_than_are_allowed(
    mirror: Any, upstream: FaultyRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "MOST", 1)
    gate = Gate(upstream, 1)
    api = await mirror()
    reader = Reader(api)
    await reader.at_least(1)
    small = upstream.blob(NAME, b"small")["digest"]
    answer = await api.get(f"/v2/{NAME}/blobs/{small}")
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    gate.open()
    assert await reader.whole() == LARGE
    while (await api.get(f"/v2/{NAME}/blobs/{small}")).status == 503:
        await asyncio.sleep(0.001)


async def test_what_nobody_asked_for_again_is_given_up(
    mirror: Any, upstream: FaultyRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = await mirror()
    upstream.twist = large(lambda _, sent: replace(sent, cut=0 if sent.first else 300_000))
    with pytest.raises(Broken):
        await Reader(api).whole()
    assert left(tmp_path / "mirror") != []
    monkeypatch.setattr(fetching, "_GIVEN_UP", -1.0)
    await mirror()
    while left(tmp_path / "mirror"):
        await asyncio.sleep(0.001)


async def test_a_fault_of_ours_ends_one_fetch_and_no_other(
    mirror: Any, upstream: FaultyRegistry, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    api = await mirror()
    with monkeypatch.context() as broken:
        broken.setattr("registry.mirror.fetching.Transfer", None)
        answer = await api.get(PATH)
    assert (answer.status, answer.code) == (500, "UNKNOWN")
    assert "fault while" in caplog.text
    assert (await api.get(PATH)).body == LARGE


async def test_before_its_start_a_mirror_fetches_nothing(tmp_path: Path) -> None:
    fetches = fetching.Fetches(None, tmp_path, tmp_path, None)  # type: ignore[arg-type]
    with pytest.raises(fetching.Unavailable, match="starting or ending"):
        fetches.of(RepositoryName(NAME), sha256(b""), 1)  # type: ignore[arg-type]
