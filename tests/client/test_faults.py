"""Faults of connections, bodies and disks, as a real server makes them, and what a whole pull makes of each."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import Awaitable
from dataclasses import replace
from pathlib import Path

import pytest

from client.caching.cache import Cache
from client.progress import Event, Warned
from ocispec.errors import (
    ContentTruncated,
    DigestMismatch,
    StorageFull,
)
from storage.partials import quarantine_of
from tests.client.faults import (
    BIG,
    DATA,
    KIB,
    PATH,
    Bench,
    arrived,
    bench,
    interrupted,
    large,
    others,
    parts,
    quick_records,
    spoilt,
    way,
)
from tests.client.faulty import Sent, faulty, honest, whole
from tests.client.scripted import Reply, Seen
from tests.client.transferring import WRONG, wrongly
from tests.client.transfers.test_pulling import verify
from tests.support.tmpfs import tmpfs

# Fixtures, which pytest finds by their names here.
__all__ = ["bench", "parts", "quick_records", "way"]


@pytest.mark.parametrize("twentieth", range(20))
async def test_a_cut_at_any_twentieth_goes_on_where_it_was(bench: Bench, way: str, twentieth: int):
    at = len(DATA) * twentieth // 20

    def cut(_: Seen, sent: Sent) -> Sent:
        here = sent.first <= at < sent.first + len(sent.body) and bench.registry.twist is cutting
        if here:
            bench.registry.twist = honest
        return replace(sent, cut=at - sent.first) if here else sent

    cutting = bench.registry.twist = large(cut)
    pulled = await bench.pull()
    assert bench.registry.twist is honest
    assert bench.whole()
    assert bench.once
    assert pulled.fetched == bench.image.size


async def test_a_connection_that_breaks_again_and_again_is_no_matter_while_it_brings_something(bench: Bench, way: str):
    bench.registry.twist = large(lambda _, sent: replace(sent, cut=min(len(sent.body), 150_000)))
    await bench.pull()
    assert bench.whole()
    assert bench.once


async def test_one_that_never_brings_anything_ends_in_one_line(bench: Bench, way: str):
    bench.registry.twist = large(lambda _, sent: replace(sent, cut=0))
    with pytest.raises(ContentTruncated) as raised:
        await bench.pull()
    text = rf"{bench.name}: {BIG}: ended after \d+ of {len(DATA)} bytes: {bench.registry.host} cannot be reached: .+"
    assert re.fullmatch(text, raised.value.message)


@pytest.mark.parametrize("number", [1, 2, 7])
async def test_a_part_that_is_answered_with_200_makes_it_one_stream(bench: Bench, parts: None, number: int):
    bench.registry.twist = large(lambda _, sent: whole(sent, DATA), number)
    await bench.pull()
    assert bench.whole()
    assert bench.told(Warned) == []


@pytest.mark.parametrize("kind", WRONG)
@pytest.mark.parametrize("number", [1, 3])
async def test_a_wrong_content_range_makes_it_one_stream(bench: Bench, parts: None, kind: str, number: int):
    bench.registry.twist = large(lambda _, sent: wrongly(kind, sent), number)
    await bench.pull()
    assert bench.whole()
    assert bench.told(Warned) == []


async def test_wrong_bytes_are_healed_once(bench: Bench, way: str):
    bench.registry.twist = large(spoilt, 1)
    await bench.pull()
    assert bench.whole(quarantine=True)
    assert quarantine_of(bench.cache.root, BIG).stat().st_size == len(DATA)
    (line,) = bench.told(Warned)
    assert line.startswith(f"pullclient: {bench.name}: {BIG}: expected {BIG}, its content hashes to sha256:")
    assert line.endswith("; fetched once more it was right")


async def test_wrong_bytes_twice_are_a_clear_error(bench: Bench, way: str):
    bench.registry.twist = large(spoilt)
    with pytest.raises(DigestMismatch) as raised:
        await bench.pull()
    assert raised.value.message.startswith(f"{bench.name}: {BIG}: expected {BIG}, its content hashes to sha256:")
    assert "; fetched twice: " in raised.value.message
    assert not {str(BIG), bench.image.digest} & verify(bench.cache, quarantine=True)
    bench.registry.twist = honest
    await bench.pull()
    assert bench.whole(quarantine=True)


async def test_a_stall_is_ended_by_the_watchdog_and_goes_on(bench: Bench, way: str):
    never = asyncio.Event()
    bench.silence = 0.3
    bench.registry.twist = large(lambda _, sent: replace(sent, cut=200_000, then=never.wait), 1)
    await bench.pull()
    never.set()
    assert bench.whole()
    assert bench.once


async def test_a_head_that_never_comes_is_ended_by_the_watchdog(bench: Bench, way: str):
    never, stalled = asyncio.Event(), []
    bench.silence = 0.3
    answer = bench.registry._answer

    async def stall(request: Seen, writer: asyncio.StreamWriter) -> bool:
        if request.path == PATH and not stalled:
            stalled.append(True)
            await never.wait()
            return False
        return await answer(request, writer)

    bench.registry._answer = stall
    await bench.pull()
    never.set()
    assert bench.whole()
    assert bench.once


async def test_a_trickle_is_waited_for(bench: Bench, way: str):
    bench.silence = 1.0
    bench.registry.twist = large(lambda _, sent: replace(sent, pace=lambda: asyncio.sleep(0.001), piece=8 * KIB))
    await bench.pull()
    assert bench.whole()
    assert bench.once


async def test_a_server_that_closes_every_connection_is_no_matter(bench: Bench, way: str):
    bench.registry.twist = lambda _, sent: replace(sent, closing=True)
    await bench.pull()
    assert bench.whole()
    assert bench.registry.connections > 2


@pytest.mark.peer("tmpfs")
async def test_a_full_disk_is_one_line_and_leaves_nothing(
    bench: Bench, way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with tmpfs(tmp_path / "small", 2048 * KIB) as root:
        bench.cache = Cache(root / "cache")
        needed = rf"the image needs {bench.image.size} bytes more, and \d+ are free$"
        with pytest.raises(StorageFull, match=rf"^{bench.cache.root}: {needed}"):
            await bench.pull()
        # It was room enough when it began.
        monkeypatch.setattr("client.transfers.pulling._check_space", lambda *_: None)
        with pytest.raises(StorageFull) as raised:
            await bench.pull()
        line = rf"{bench.name}: sha256:\w+: {bench.cache.root}[^\n]+: No space left on device"
        assert re.fullmatch(line, raised.value.message)
        assert verify(bench.cache) <= {bench.image.config, bench.image.layers[1]}


async def test_what_is_there_already_needs_no_room(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    never = asyncio.Event()
    bench.registry.twist = large(lambda _, sent: replace(sent, cut=len(DATA) - 1000, then=never.wait))
    await interrupted(bench, 2048 * KIB)
    never.set()
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 100 * KIB}))
    bench.registry.twist = honest
    await bench.pull()
    assert bench.whole()


async def test_a_foreign_layer_is_left_out_or_fetched_as_told(bench: Bench, way: str):
    async with faulty() as vendor:
        entry = vendor.blob("x", DATA)
        url = f"http://{vendor.host}/v2/x/blobs/{BIG}"
        foreign = {"mediaType": "application/vnd.oci.image.layer.nondistributable.v1.tar", **entry, "urls": [url]}
        bench.registry.behaviours[PATH] = Reply(404, b'{"errors":[{"code":"BLOB_UNKNOWN"}]}')
        config = {"mediaType": "application/vnd.oci.image.config.v1+json", **bench.registry.blob("a/b", b"{}")}
        members = {"mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config, "layers": [foreign]}
        bench.registry.manifest("a/b", "1", members)
        await bench.pull()
        lines = bench.told(Event)
        assert f"pullclient: {bench.name}: left out foreign layer {BIG}, see '{url}'; --foreign fetches it" in lines
        assert not bench.cache.layout.path(BIG).exists()
        bench.foreign = True
        await bench.pull()
        assert bench.cache.layout.path(BIG).read_bytes() == DATA
        assert vendor.log.once(str(BIG), len(DATA))


async def test_two_pulls_at_once_fetch_each_blob_once(bench: Bench, way: str):
    bench.registry.twist = large(lambda _, sent: replace(sent, pace=lambda: asyncio.sleep(0.0005)))
    one, two = await asyncio.gather(bench.pull(), bench.pull())
    assert one.fetched + two.fetched == bench.image.size
    assert bench.whole()
    assert bench.once
    assert sorted(bench.registry.blobs()) == sorted([*[str(BIG)] * (7 if way == "parts" else 1), *others(bench)])


def command(bench: Bench) -> Awaitable[asyncio.subprocess.Process]:
    words = (sys.executable, "-m", "client", "pull", "--cache", str(bench.cache.root), bench.name)
    return asyncio.create_subprocess_exec(*words, stdout=-1, stderr=-1, env=os.environ)


async def test_two_processes_at_once_fetch_each_blob_once(bench: Bench):
    together = asyncio.Event()

    async def pace() -> None:
        await together.wait()

    bench.registry.twist = large(lambda _, sent: replace(sent, pace=pace))
    processes = [await command(bench) for _ in range(2)]
    while bench.registry.paths().count("/v2/a/b/manifests/1") < 2:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.2)
    together.set()
    for each in processes:
        out, err = await each.communicate()
        assert (each.returncode, err) == (0, b""), out
    assert bench.whole()
    assert bench.once
    assert sorted(bench.registry.blobs()) == sorted([str(BIG), *others(bench)])


async def test_after_ctrl_c_only_what_is_missing_is_fetched(bench: Bench):
    came = 2 * 1024 * KIB
    never = asyncio.Event()
    bench.registry.twist = large(lambda _, sent: replace(sent, cut=came, then=never.wait))
    process = await command(bench)
    await arrived(bench, came)
    process.send_signal(signal.SIGINT)
    out, err = await process.communicate()
    assert (process.returncode, err) == (130, b"pullclient: interrupted; what is whole in the cache stays\n"), out
    never.set()
    bench.registry.forget()
    bench.registry.twist = honest
    pulled = await bench.pull()
    assert bench.whole()
    assert pulled.fetched == len(DATA) - came
    assert bench.registry.log.of(str(BIG)) == [(came, len(DATA))]
    assert bench.registry.blobs() == [str(BIG)]


async def test_what_is_cached_needs_one_head(bench: Bench, way: str):
    await bench.pull()
    bench.registry.forget()
    pulled = await bench.pull()
    assert [(each.method, each.path) for each in bench.registry.seen] == [("HEAD", "/v2/a/b/manifests/1")]
    assert pulled.fetched == 0
