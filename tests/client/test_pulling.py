"""A pull from end to end: what goes over the network, what the cache holds, and that it is sound at any moment."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest

import client
from client.cache import Cache
from client.progress import Event, LayerDone, LayerStarted, Resolved
from client.pulling import pull, resolve
from ocispec.digest import Digest
from ocispec.errors import ContentTruncated, DigestMismatch, HostUnreachable, ManifestUnknown, PlatformUnknown
from ocispec.platform import Platform
from tests.client.scripted import Reply, ScriptedRegistry

BASE, APP = b"base" * 500_000, b"app" * 1000


def verify(cache: Cache) -> set[str]:
    """Checks every blob of the cache against its name, and that nothing else is there; returns the digests."""
    found = set()
    for path in cache.root.rglob("*"):
        if path.is_file() and path.parent != cache.root:
            digest = Digest.parse(f"{path.parent.name}:{path.name}")
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
    await pull(f"{registry.host}/a/b:1", cache=cache, jobs=4)
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
    ("reply", "kind"),
    [
        (Reply(200, BASE[:-1] + b"x"), DigestMismatch),
        (Reply(200, BASE + b"x"), DigestMismatch),
        (Reply(200, BASE[:999], promised=len(BASE)), ContentTruncated),
    ],
    ids=["wrong digest", "too long", "truncated"],
)
async def test_a_bad_layer_ends_the_pull_and_no_image_appears(
    registry: ScriptedRegistry, cache: Cache, reply: Reply, kind: type[Exception]
):
    registry.publish("a/c", "1", [b"before"])
    await pull(f"{registry.host}/a/c:1", cache=cache)
    index = (cache.root / "index.json").read_bytes()
    image = registry.publish("a/b", "1", [BASE, APP])
    registry.behaviours[f"/v2/a/b/blobs/{image.layers[0]}"] = reply
    with pytest.raises(kind, match=f"^{registry.host}/a/b:1: {image.layers[0]}: "):
        await pull(f"{registry.host}/a/b:1", cache=cache)
    assert (cache.root / "index.json").read_bytes() == index
    assert not {image.digest, image.layers[0]} & verify(cache)


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
        await pull(f"{closed}/a/b:1", cache=cache)
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


async def test_several_pulls_into_one_cache_lose_nothing(registry: ScriptedRegistry, cache: Cache):
    for number in range(6):
        registry.publish("a/b", str(number), [BASE, str(number).encode()])
    names = [f"{registry.host}/a/b:{number}" for number in range(6)]
    await asyncio.gather(*(pull(name, cache=Cache(cache.root)) for name in names))
    verify(cache)
    images = await cache.images()
    assert [each.name for each in images] == names
    assert all(each.variants for each in images)


COUNT: ContextVar[Callable[[], None]] = ContextVar("COUNT")


class Counted(Coroutine[Any, Any, Any]):
    """A task's coroutine that tells each of its steps."""

    def __init__(self, inner: Coroutine[Any, Any, Any], tick: Callable[[], None]) -> None:
        self.inner = inner
        self.tick = tick

    def send(self, value: Any) -> Any:
        self.tick()
        return self.inner.send(value)

    def throw(self, *error: Any) -> Any:
        self.tick()
        return self.inner.throw(*error)

    def __await__(self) -> Any:
        raise NotImplementedError


def count_steps(loop: asyncio.AbstractEventLoop, inner: Any, **options: Any) -> asyncio.Task[Any]:
    tick = COUNT.get(None)
    return asyncio.Task(Counted(inner, tick) if tick else inner, loop=loop, **options)


async def pull_cancelled_at(step: int, name: str, cache: Cache) -> int:
    """Cancels a pull at its step'th step, those of its child tasks counted too; returns how many there were."""
    steps = 0

    def tick() -> None:
        nonlocal steps
        steps += 1
        if steps == step:
            pulling.cancel()

    asyncio.get_running_loop().set_task_factory(count_steps)
    token = COUNT.set(tick)
    pulling = asyncio.create_task(pull(name, platform="amd64", cache=cache))
    COUNT.reset(token)
    await asyncio.gather(pulling, return_exceptions=True)
    return steps


async def test_a_pull_cancelled_at_any_step_leaves_the_cache_sound(registry: ScriptedRegistry, tmp_path: Path):
    digest, _ = registry.publish_index("a/b", "1", {"amd64": [BASE, APP, b"x"], "arm64": [b"arm"]})
    name = f"{registry.host}/a/b:1"
    total = await pull_cancelled_at(-1, name, Cache(tmp_path / "whole"))
    assert total > 100
    for step in range(1, total, 2):
        cache = Cache(tmp_path / str(step))
        await pull_cancelled_at(step, name, cache)
        whole = verify(cache)
        assert all(each.variants for each in await cache.images())
        registry.seen.clear()
        assert str((await pull(name, platform="amd64", cache=cache)).digest) == digest
        assert verify(cache) >= whole
        assert not set(registry.blobs()) & whole


def test_the_package_offers_what_it_says_and_nothing_else():
    assert all(getattr(client, name) for name in client.__all__)
    assert dir(client) == sorted(client.__all__)
    assert client.errors.DigestMismatch is DigestMismatch
    with pytest.raises(AttributeError, match="has no attribute 'push_everything'"):
        client.push_everything  # noqa: B018 - the access is the test
