"""A pull from end to end: what goes over the network, what the cache holds, and that it is sound at any moment."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

import client
from client.caching.cache import Cache
from client.progress import Event, LayerDone, LayerStarted, Pulled, Resolved, silent
from client.registries.retrying import Patience
from client.session import Session
from client.transfers.pulling import Options, pull, pull_in, resolve
from ocispec.digest import Digest
from ocispec.errors import ContentTruncated, DigestMismatch, HostUnreachable, ManifestUnknown, PlatformUnknown
from ocispec.platform import Platform
from ocispec.reference import Reference
from tests.client.faulty import faulty
from tests.client.scripted import Reply, ScriptedRegistry
from tests.support.steps import cancelled_at

BASE, APP = b"base" * 500_000, b"app" * 1000


def verify(cache: Cache, *, partials: bool = False, quarantine: bool = False, scratch: bool = False) -> set[str]:
    """Checks every blob of the cache against its name, and that nothing else is there; returns the digests.

    Partial blobs, bad ones in quarantine, and what a kill leaves in the scratch folder, may be there as told.
    """
    found = set()
    for path in cache.root.rglob("*"):
        if not path.is_file() or path.parent == cache.root:
            continue
        if partials and path.match(".partial/*/*/*"):
            assert path.name in ("data", "parts")
            continue
        if scratch and path.match(".ingest/*"):
            continue
        digest = Digest.parse(f"{path.parent.name}:{path.name}")
        if quarantine and path.match(".quarantine/*/*"):
            assert not digest.matches(path.read_bytes()), path
            continue
        assert path.match("blobs/*/*"), path
        assert digest.matches(path.read_bytes()), path
        found.add(str(digest))
    return found


def tree(root: Path) -> dict[str, bytes]:
    return {str(each.relative_to(root)): each.read_bytes() for each in root.rglob("*") if each.is_file()}


async def test_an_image_is_pulled_whole_and_every_layer_is_told(registry: ScriptedRegistry, cache: Cache):
    image = registry.publish("a/b", "1", [BASE, APP])
    events: list[Event] = []
    pulled = await pull(f"{registry.host}/a/b:1", cache=cache, report=events.append)
    assert verify(cache) == {image.digest, image.config, *image.layers}
    assert (str(pulled.digest), str(pulled.image)) == (image.digest, image.digest)
    assert pulled.fetched == pulled.size == image.size
    assert isinstance(events[0], Resolved)
    assert events[-1] == pulled
    started = {str(each.digest) for each in events if isinstance(each, LayerStarted)}
    done = {str(each.digest): each.cached for each in events if isinstance(each, LayerDone)}
    assert started == set(image.layers)
    assert done == dict.fromkeys(image.layers, False)


async def test_a_second_pull_transfers_no_blob_and_no_manifest(registry: ScriptedRegistry, cache: Cache):
    registry.publish_index("a/b", "1", {"amd64": [BASE], "arm64": [APP]})
    await pull(f"{registry.host}/a/b:1", platform="linux/amd64", cache=cache)
    before = tree(cache.root)
    registry.seen.clear()
    pulled = await pull(f"{registry.host}/a/b:1", platform="linux/amd64", cache=cache)
    assert [(each.method, each.path) for each in registry.seen] == [("HEAD", "/v2/a/b/manifests/1")]
    assert pulled.fetched == 0
    assert tree(cache.root) == before


async def test_a_pull_by_digest_that_is_cached_needs_no_network(registry: ScriptedRegistry, cache: Cache):
    digest, _ = registry.publish_index("a/b", "1", {"amd64": [BASE]})
    await pull(f"{registry.host}/a/b:1", platform="linux/amd64", cache=cache)
    registry.seen.clear()
    pulled = await pull(f"{registry.host}/a/b@{digest}", platform="linux/amd64", cache=cache)
    assert (str(pulled.digest), pulled.fetched, registry.seen) == (digest, 0, [])
    assert [each.name for each in await cache.images()] == [f"{registry.host}/a/b:1", f"{registry.host}/a/b@{digest}"]


async def test_a_tag_that_moved_brings_only_what_is_new(registry: ScriptedRegistry, cache: Cache):
    registry.publish("a/b", "1", [BASE, APP])
    await pull(f"{registry.host}/a/b:1", cache=cache)
    image = registry.publish("a/b", "1", [BASE, b"new"])
    registry.seen.clear()
    pulled = await pull(f"{registry.host}/a/b:1", cache=cache)
    assert registry.blobs() == [image.layers[1]]
    assert pulled.fetched == 3
    assert [str(each.digest) for each in await cache.images()] == [image.digest]


async def test_layers_that_two_images_share_are_fetched_once(registry: ScriptedRegistry, cache: Cache):
    one = registry.publish("a/b", "1", [BASE, APP])
    two = registry.publish("a/c", "1", [BASE, b"other"])
    for name in ("a/b", "a/c"):
        await pull(f"{registry.host}/{name}:1", cache=cache)
    assert sorted(registry.blobs()) == sorted({one.config, two.config, *one.layers, *two.layers})


async def test_a_layer_that_stands_twice_in_an_image_is_fetched_once(registry: ScriptedRegistry, cache: Cache):
    image = registry.publish("a/b", "1", [BASE, APP, BASE])
    pulled = await pull(f"{registry.host}/a/b:1", cache=cache)
    assert sorted(registry.blobs()) == sorted({image.config, *image.layers})
    assert pulled.fetched == image.size


async def test_layers_are_fetched_side_by_side(registry: ScriptedRegistry, cache: Cache):
    image = registry.publish("a/b", "1", [b"1", b"2", b"3"])
    all_asked = asyncio.Barrier(4)
    for digest in (*image.layers, image.config):
        path = f"/v2/a/b/blobs/{digest}"
        known = registry.behaviours[path]
        assert isinstance(known, Reply)
        registry.behaviours[path] = Reply(200, known.body, wait=all_asked.wait)
    async with Session(jobs=4, per_host=4) as session:
        await pull(f"{registry.host}/a/b:1", cache=cache, session=session)
    assert verify(cache)


async def test_both_platforms_of_an_index_live_under_one_name(registry: ScriptedRegistry, cache: Cache):
    digest, children = registry.publish_index("a/b", "1", {"amd64": [BASE, APP], "arm64": [BASE, b"arm"]})
    for platform in ("linux/amd64", "linux/arm64"):
        pulled = await pull(f"{registry.host}/a/b:1", platform=platform, cache=cache)
        assert (str(pulled.digest), str(pulled.platform)) == (digest, platform)
    (image,) = await cache.images()
    assert [str(each.digest) for each in image.variants] == [each.digest for each in children.values()]


async def test_a_damaged_blob_or_manifest_in_the_cache_is_fetched_again(registry: ScriptedRegistry, cache: Cache):
    image = registry.publish("a/b", "1", [BASE])
    await pull(f"{registry.host}/a/b:1", cache=cache)
    for digest in (image.digest, image.layers[0]):
        cache.layout.path(Digest.parse(digest)).write_bytes(b"torn")
    await pull(f"{registry.host}/a/b:1", cache=cache)
    assert verify(cache) == {image.digest, image.config, *image.layers}


@pytest.mark.parametrize(
    ("reply", "kind", "left"),
    [
        (Reply(200, BASE[:-1] + b"x"), DigestMismatch, {"quarantine": True}),
        (Reply(200, BASE + b"x"), DigestMismatch, {"quarantine": True}),
        (Reply(200, BASE[:999], promised=len(BASE)), ContentTruncated, {"partials": True}),
    ],
    ids=["wrong digest", "too long", "truncated"],
)
async def test_a_bad_layer_ends_the_pull_and_no_image_appears(
    registry: ScriptedRegistry, cache: Cache, reply: Reply, kind: type[Exception], left: dict[str, bool]
):
    registry.publish("a/c", "1", [b"before"])
    await pull(f"{registry.host}/a/c:1", cache=cache)
    index = (cache.root / "index.json").read_bytes()
    image = registry.publish("a/b", "1", [BASE, APP])
    registry.behaviours[f"/v2/a/b/blobs/{image.layers[0]}"] = reply
    with pytest.raises(kind, match=f"^{registry.host}/a/b:1: {image.layers[0]}: "):
        await impatient(f"{registry.host}/a/b:1", cache)
    assert (cache.root / "index.json").read_bytes() == index
    assert not {image.digest, image.layers[0]} & verify(cache, **left)


async def impatient(name: str, cache: Cache) -> Pulled:
    """Pulls with pauses that take no time."""
    async with Session(patience=Patience(first=0.001)) as session:
        return await pull_in(session, cache, Reference.parse(name), Options(), silent)


async def test_an_unknown_image_an_unknown_platform_or_host_leave_no_cache_behind(
    registry: ScriptedRegistry, cache: Cache
):
    registry.publish_index("a/b", "1", {"amd64": [BASE]})
    with socket.create_server(("127.0.0.1", 0)) as taken:
        closed = f"127.0.0.1:{taken.getsockname()[1]}"
    with pytest.raises(ManifestUnknown):
        await pull(f"{registry.host}/a/b:2", cache=cache)
    with pytest.raises(PlatformUnknown):
        await pull(f"{registry.host}/a/b:1", platform="windows/386", cache=cache)
    with pytest.raises(HostUnreachable):
        await impatient(f"{closed}/a/b:1", cache)
    assert not cache.root.exists()


async def test_resolve_fetches_manifests_alone(registry: ScriptedRegistry):
    digest, children = registry.publish_index("a/b", "1", {"amd64": [BASE], "arm64": [APP]})
    found = await resolve(f"{registry.host}/a/b:1", platform=Platform.parse("arm64"))
    assert [str(each.descriptor.digest) for each in found.chain] == [digest, children["arm64"].digest]
    assert registry.blobs() == []


async def test_an_image_without_index_is_checked_by_its_config(registry: ScriptedRegistry, cache: Cache):
    registry.publish("a/b", "1", [APP], "arm64")
    for _ in range(2):
        assert (await pull(f"{registry.host}/a/b:1", platform="arm64", cache=cache)).platform == Platform(
            "linux", "arm64"
        )
    with pytest.raises(PlatformUnknown):
        await pull(f"{registry.host}/a/b:1", platform="amd64", cache=cache)


async def test_all_platforms_come_in_one_call_and_so_does_all_else_an_index_names(
    registry: ScriptedRegistry, cache: Cache
):
    digest, children = registry.publish_index("a/b", "1", {"amd64": [BASE, APP], "arm64": [BASE, b"arm"]})
    events: list[Event] = []
    pulled = await pull(f"{registry.host}/a/b:1", all_platforms=True, cache=cache, report=events.append)
    assert (str(pulled.digest), str(pulled.image), pulled.platform) == (digest, digest, None)
    resolved = events[0]
    assert isinstance(resolved, Resolved)
    assert (resolved.layers, resolved.platform) == (3, None)
    (image,) = await cache.images()
    assert [str(each.digest) for each in image.variants] == [each.digest for each in children.values()]
    blobs = {each for child in children.values() for each in (child.digest, child.config, *child.layers)}
    assert verify(cache) == {digest, *blobs}
    assert sorted(registry.blobs()) == sorted(blobs - {each.digest for each in children.values()})
    assert pulled.fetched == pulled.size
    registry.seen.clear()
    assert (await pull(f"{registry.host}/a/b:1", all_platforms=True, cache=cache)).fetched == 0
    assert [each.method for each in registry.seen] == ["HEAD"]


async def test_several_pulls_into_one_cache_lose_nothing(registry: ScriptedRegistry, cache: Cache):
    for number in range(6):
        registry.publish("a/b", str(number), [BASE, str(number).encode()])
    names = [f"{registry.host}/a/b:{number}" for number in range(6)]
    await asyncio.gather(*(pull(name, cache=Cache(cache.root)) for name in names))
    verify(cache)
    images = await cache.images()
    assert [each.name for each in images] == names
    assert all(each.variants for each in images)


async def test_a_pull_cancelled_at_any_step_leaves_the_cache_sound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("SMALLEST_PART", "LARGEST_PART"):
        monkeypatch.setattr(f"client.transfers.transfer.{name}", 512 * 1024)
    monkeypatch.setattr("storage.partials.RECORD_EVERY", 512 * 1024)
    async with faulty() as registry:
        digest, _ = registry.publish_index("a/b", "1", {"amd64": [BASE, APP, b"x"], "arm64": [b"arm"]})
        name = f"{registry.host}/a/b:1"

        def begun(cache: Cache) -> Coroutine[Any, Any, Pulled]:
            return pull(name, platform="amd64", cache=cache)

        total = await cancelled_at(-1, begun(Cache(tmp_path / "whole")))
        assert total > 100
        for step in range(1, total, 4):
            cache = Cache(tmp_path / str(step))
            await cancelled_at(step, begun(cache))
            whole, parts = verify(cache, partials=True), recorded(cache)
            assert all(each.variants for each in await cache.images())
            registry.forget()
            assert str((await begun(cache)).digest) == digest
            assert verify(cache) >= whole
            for blob, start, end in parts:
                assert not [at for at, until in registry.log.of(blob) if at < end and start < until]
            assert not set(registry.blobs()) & whole


def recorded(cache: Cache) -> list[tuple[str, int, int]]:
    """Digest, offset and end of every part that a partial's record names."""
    return [
        (f"{record.parents[1].name}:{record.parent.name}", int(offset), int(offset) + int(length))
        for record in cache.root.glob(".partial/*/*/parts")
        for offset, length in map(str.split, record.read_text().rpartition("clear\n")[2].splitlines())
    ]


def test_the_package_offers_what_it_says_and_nothing_else():
    assert all(getattr(client, name) for name in client.__all__)
    assert dir(client) == sorted(client.__all__)
    assert client.errors.DigestMismatch is DigestMismatch
    with pytest.raises(AttributeError, match="has no attribute 'push_everything'"):
        client.push_everything  # noqa: B018 - the access is the test
