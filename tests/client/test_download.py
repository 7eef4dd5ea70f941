"""Blobs side by side: at most so many at once, and the first failure ends the rest."""

from __future__ import annotations

import asyncio

import pytest

from client.cache import Cache
from client.download import download, side_by_side
from client.progress import Event, LayerDone, LayerProgress, LayerSkipped, LayerStarted
from client.session import Session
from ocispec.descriptor import Descriptor
from ocispec.digest import Digest
from ocispec.errors import BlobUnknown, ContentTruncated, DigestMismatch, ResponseInvalid
from ocispec.reference import Reference
from tests.client.scripted import LAYER, Reply, ScriptedRegistry

FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
DATA = b"0123456789" * 200_000


async def fetch(registry: ScriptedRegistry, cache: Cache, wanted: Descriptor) -> tuple[int, list[Event]]:
    events: list[Event] = []
    async with Session() as session:
        remote = session.remote(Reference.parse(f"{registry.host}/a/b:1"))
        return await download(remote, cache.layout, wanted, events.append), events


def described(data: bytes = DATA, media_type: str = LAYER, **members: object) -> Descriptor:
    return Descriptor(media_type, Digest.of(data), len(data), **members)


async def test_a_blob_arrives_and_every_step_is_told(registry: ScriptedRegistry, cache: Cache):
    registry.blob("a/b", DATA)
    count, events = await fetch(registry, cache, described())
    assert count == len(DATA)
    assert cache.layout.path(Digest.of(DATA)).read_bytes() == DATA
    assert isinstance(events[0], LayerStarted)
    assert isinstance(events[-1], LayerDone)
    received = [each.received for each in events if isinstance(each, LayerProgress)]
    assert received == sorted(received)
    assert received[-1] == len(DATA)


@pytest.mark.parametrize(
    ("reply", "kind", "text"),
    [
        (Reply(200, DATA[:-1] + b"x"), DigestMismatch, "its content hashes to"),
        (Reply(200, DATA + b"x"), DigestMismatch, f"more than the expected {len(DATA)} bytes came"),
        (Reply(200, DATA[:5], promised=len(DATA)), ContentTruncated, f"ended after 5 of {len(DATA)} bytes"),
        (Reply(200, DATA[:5], promised=-1), ContentTruncated, f"ended after 5 of {len(DATA)} bytes"),
        (Reply(404), BlobUnknown, "blob unknown to registry"),
    ],
    ids=["wrong bytes", "too many", "cut", "cut without a promise", "unknown"],
)
async def test_what_is_not_the_blob_leaves_nothing_and_is_named(
    registry: ScriptedRegistry, cache: Cache, reply: Reply, kind: type[Exception], text: str
):
    digest = Digest.of(DATA)
    registry.behaviours[f"/v2/a/b/blobs/{digest}"] = reply
    with pytest.raises(kind) as raised:
        await fetch(registry, cache, described())
    assert str(raised.value).startswith(f"{registry.host}/a/b:1: {digest}: ")
    assert text in str(raised.value)
    assert not [each for each in cache.root.rglob("*") if each.is_file()]


async def test_a_foreign_layer_that_the_registry_lacks_is_left_out_with_a_warning(
    registry: ScriptedRegistry, cache: Cache
):
    registry.behaviours[f"/v2/a/b/blobs/{Digest.of(DATA)}"] = Reply(404)
    count, events = await fetch(registry, cache, described(media_type=FOREIGN, urls=("https://x/y",)))
    assert (count, events[-1].kind) == (0, "layer_skipped")
    assert isinstance(events[-1], LayerSkipped)
    assert events[-1].urls == ("https://x/y",)
    with pytest.raises(BlobUnknown):
        await fetch(registry, cache, described(media_type=FOREIGN))


async def test_a_foreign_layer_that_the_registry_has_is_fetched(registry: ScriptedRegistry, cache: Cache):
    registry.blob("a/b", DATA)
    assert (await fetch(registry, cache, described(media_type=FOREIGN, urls=("https://x/y",))))[0] == len(DATA)


async def test_no_more_than_the_limit_run_at_once():
    running, most = 0, 0

    async def action(_: int) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1

    await side_by_side(action, range(20), 3)
    assert (most, running) == (3, 0)
    await side_by_side(action, [], 3)


async def test_the_first_failure_ends_the_rest_and_is_reported_alone():
    ended = []

    async def action(number: int) -> None:
        try:
            if number == 1:
                raise ResponseInvalid("first")
            await asyncio.Event().wait()
        finally:
            ended.append(number)

    with pytest.raises(ResponseInvalid, match=r"^first$"):
        await side_by_side(action, range(9), 3)
    assert sorted(ended) == [0, 1, 2]
