"""Push: only what the registry lacks goes there, and the tag comes last."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from client.caching.cache import Cache
from client.progress import BlobSent, Event, Pushed, Warned
from client.session import Session
from client.transfers.pulling import pull
from client.transfers.pushing import push, push_in
from ocispec.descriptor import Descriptor
from ocispec.digest import Digest
from ocispec.errors import ArchiveInvalid, CacheError, Denied, DigestInvalid, DigestMismatch, StorageError
from ocispec.platform import Platform
from ocispec.reference import Reference
from registry.sample import build
from tests.client.receiving import Receiving, receiving
from tests.client.scripted import CONFIG, INDEX, LAYER, MANIFEST, Reply, ScriptedRegistry, serving
from tests.client.transfers.test_pulling import verify
from tests.support.processes import DistributionProcess, RegistryProcess, run

BIG = bytes(range(256)) * 8_000
SAMPLE = build()


async def keep(cache: Cache, name: str, contents: dict[Digest, bytes], root: Descriptor) -> Reference:
    for digest, data in contents.items():
        await cache.layout.add(digest, data)
    await cache.layout.set_name(name, root)
    return Reference.parse(name)


async def keep_image(cache: Cache, name: str, *layers: bytes, config: dict | None = None) -> Reference:
    """Puts an image of these layers into the cache."""
    told = {"os": "linux", "architecture": "amd64", "rootfs": {"diff_ids": [str(Digest.of(each)) for each in layers]}}
    configured = json.dumps(config or told).encode()
    described = [_described(LAYER, each) for each in layers]
    raw = json.dumps(
        {"schemaVersion": 2, "mediaType": MANIFEST, "config": _described(CONFIG, configured), "layers": described}
    ).encode()
    contents = {Digest.of(each): each for each in (*layers, configured, raw)}
    return await keep(cache, str(Reference.parse(name)), contents, Descriptor(MANIFEST, Digest.of(raw), len(raw)))


@dataclass
class Relay:
    """Where a relay listens, what it still has to do, and how much it passed on to the registry."""

    cuts: list[int]
    host: str = ""
    sent: int = 0


@asynccontextmanager
async def cutting(host: str, cuts: list[int]) -> AsyncIterator[Relay]:
    """Passes connections on to `host`, and breaks one after so many bytes for it, once for each of `cuts`."""
    relay = Relay(cuts)

    async def down(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while piece := await reader.read(65536):
                writer.write(piece)
                await writer.drain()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        name, _, port = host.rpartition(":")
        there, onward = await asyncio.open_connection(name, int(port))
        back, passed = asyncio.create_task(down(there, writer)), 0
        try:
            while piece := await reader.read(65536):
                onward.write(piece)
                await onward.drain()
                relay.sent += len(piece)
                passed += len(piece)
                if relay.cuts and passed >= relay.cuts[0]:
                    relay.cuts.pop(0)
                    writer.transport.abort()
                    return
        finally:
            back.cancel()
            await asyncio.gather(back, return_exceptions=True)
            onward.close()

    async with serving(serve) as port:
        relay.host = f"127.0.0.1:{port}"
        yield relay


def _described(kind: str, data: bytes) -> dict[str, object]:
    return {"mediaType": kind, "digest": str(Digest.of(data)), "size": len(data)}


@pytest.fixture
async def taking() -> AsyncIterator[Receiving]:
    async with receiving() as server:
        yield server


@pytest.mark.parametrize("peer", ["ours", pytest.param("theirs", marks=pytest.mark.peer("docker-registry"))])
async def test_what_was_pushed_is_pulled_byte_for_byte_from_a_real_registry(
    peer: str,
    registry_server: Callable[..., RegistryProcess],
    distribution: Callable[[Path], DistributionProcess],
    cache: Cache,
    tmp_path: Path,
):
    host = (registry_server() if peer == "ours" else distribution(tmp_path / "theirs")).host
    reference = await keep(cache, f"{host}/a/b:1", dict(SAMPLE.contents), SAMPLE.index)
    for times in range(2):
        heard: list[Event] = []
        (pushed,) = await push(reference, cache=cache, report=heard.append)
        assert (pushed.digest, pushed.sent) == (SAMPLE.index.digest, 0 if times else pushed.size)
        assert {each.how for each in heard if isinstance(each, BlobSent)} == {"exists" if times else "uploaded"}
    target = Cache(tmp_path / "target")
    for platform in ("linux/amd64", "linux/arm64"):
        pulled = await pull(reference, platform=platform, cache=target)
        assert pulled.digest == SAMPLE.index.digest
    assert verify(target) == {str(each) for each in SAMPLE.contents}


@pytest.mark.parametrize("peer", ["ours", pytest.param("theirs", marks=pytest.mark.peer("docker-registry"))])
async def test_a_network_that_breaks_costs_a_real_registry_no_image(
    peer: str,
    registry_server: Callable[..., RegistryProcess],
    distribution: Callable[[Path], DistributionProcess],
    cache: Cache,
    tmp_path: Path,
):
    host = (registry_server() if peer == "ours" else distribution(tmp_path / "theirs")).host
    large = BIG * 10
    async with cutting(host, [7_000_000, 3_000_000]) as relay:
        await push(await keep_image(cache, f"{relay.host}/a/b:1", large), cache=cache)
    assert relay.cuts == []
    # Distribution cannot go on with an upload that broke, and gets it anew.
    assert peer == "theirs" or relay.sent < len(large) * 1.2
    await pull(f"{host}/a/b:1", platform="linux/amd64", cache=Cache(tmp_path / "target"))


@pytest.mark.peer("skopeo")
async def test_skopeo_reads_what_was_pushed(registry_server: Callable[..., RegistryProcess], cache: Cache):
    host = registry_server().host
    await push(await keep(cache, f"{host}/a/b:1", dict(SAMPLE.contents), SAMPLE.index), cache=cache)
    told = json.loads(await asyncio.to_thread(run, "skopeo", "inspect", "--tls-verify=false", f"docker://{host}/a/b:1"))
    assert (told["Digest"], told["RepoTags"]) == (str(SAMPLE.index.digest), ["1"])


@pytest.mark.peer("docker-registry")
async def test_a_blob_of_another_repository_of_the_registry_is_mounted(
    registry_server: Callable[..., RegistryProcess],
    distribution: Callable[[Path], DistributionProcess],
    cache: Cache,
    tmp_path: Path,
):
    for host in (registry_server().host, distribution(tmp_path / "theirs").host):
        first = await keep_image(cache, f"{host}/team/first:1", BIG)
        await push(first, cache=cache)
        heard: list[Event] = []
        (pushed,) = await push(first, f"{host}/team/second:2", cache=cache, report=heard.append)
        assert {each.how for each in heard if isinstance(each, BlobSent)} == {"mounted"}
        assert pushed.sent == 0


async def test_mounts_are_asked_of_the_repositories_from_which_the_cache_has_the_blob(taking: Receiving, cache: Cache):
    for name in ("c/one:1", "c/one:2", "c/two:1", "c/three:1"):
        await keep_image(cache, f"{taking.host}/{name}", BIG)
    await keep_image(cache, "elsewhere.example/c/four:1", BIG)
    await cache.layout.set_name("no name for a registry!", Descriptor(MANIFEST, Digest.of(b"x"), 1))
    reference = await keep_image(cache, f"{taking.host}/a/b:1", BIG)
    await push(reference, cache=cache)
    asked = [each.query["from"] for each in taking.of("POST") if each.query.get("mount") == str(Digest.of(BIG))]
    assert asked == ["c/one", "c/two"]


async def test_children_come_before_parents_and_the_tag_last(taking: Receiving, cache: Cache):
    reference = await keep(cache, f"{taking.host}/a/b:1", dict(SAMPLE.contents), SAMPLE.index)
    await push(reference, cache=cache)
    stored = [each.path for each in taking.of("PUT")]
    manifests = [each for each in stored if "/manifests/" in each]
    assert stored[-len(manifests) :] == manifests
    assert manifests[-1] == "/v2/a/b/manifests/1"
    assert taking.manifests["1"] == SAMPLE.contents[SAMPLE.index.digest]


async def test_a_cancelled_push_leaves_the_tag_as_it_was(taking: Receiving, cache: Cache):
    reference = await keep_image(cache, f"{taking.host}/a/b:1", BIG)
    taking.manifests["1"] = b"old"
    running = asyncio.create_task(push(reference, cache=cache))
    await taking.arrived.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert taking.manifests == {"1": b"old"}
    assert taking.uploads == {}


async def test_an_image_goes_under_another_name_and_under_a_digest(taking: Receiving, cache: Cache):
    await keep_image(cache, "docker.io/library/x:1", BIG)
    await push("x:1", f"{taking.host}/a/b:9", cache=cache)
    digest = Digest.of(taking.manifests["9"])
    await push("x:1", f"{taking.host}/a/b@{digest}", cache=cache)
    assert set(taking.manifests) == {"9", str(digest)}
    with pytest.raises(DigestInvalid, match="what is sent has another digest"):
        await push("x:1", f"{taking.host}/a/b@{Digest.of(b'')}", cache=cache)


class TestAnIndexThatIsNotAllHere:
    async def only(self, cache: Cache, host: str, *architectures: str) -> str:
        """Keeps the sample's index with the images for these alone, as a pull leaves it."""
        name = f"{host}/a/b:1"
        index = json.loads(SAMPLE.contents[SAMPLE.index.digest])
        kept = {SAMPLE.index.digest}
        for each in index["manifests"]:
            if each["platform"]["architecture"] in architectures:
                manifest = json.loads(SAMPLE.contents[Digest.parse(each["digest"])])
                named = [each, manifest["config"], *manifest["layers"]]
                kept |= {Digest.parse(part["digest"]) for part in named}
        await keep(cache, name, {each: SAMPLE.contents[each] for each in kept}, SAMPLE.index)
        return name

    async def test_goes_as_the_one_image_that_is(self, taking: Receiving, cache: Cache):
        heard: list[Event] = []
        (pushed,) = await push(await self.only(cache, taking.host, "arm64"), cache=cache, report=heard.append)
        assert json.loads(taking.manifests["1"])["mediaType"] == MANIFEST
        assert pushed.digest == Digest.of(taking.manifests["1"])
        (warned,) = [each.message for each in heard if isinstance(each, Warned)]
        assert (
            warned == f"{taking.host}/a/b:1: pushing the image for linux/arm64 alone, without the index that names it"
        )

    async def test_is_refused_where_all_platforms_are_wanted(self, taking: Receiving, cache: Cache):
        name = await self.only(cache, taking.host, "arm64")
        with pytest.raises(CacheError, match=r"sha256:\w+ for linux/amd64 is missing: pull it again with --all-platf"):
            await push(name, all_platforms=True, cache=cache)
        assert taking.seen == []

    async def test_is_refused_where_no_image_is(self, taking: Receiving, cache: Cache):
        with pytest.raises(CacheError, match="is not whole"):
            await push(await self.only(cache, taking.host), cache=cache)

    async def test_gives_the_image_for_a_platform(self, taking: Receiving, cache: Cache):
        await push(await self.only(cache, taking.host, "arm64"), platform="linux/arm64", cache=cache)
        assert json.loads(taking.manifests["1"])["mediaType"] == MANIFEST


async def test_a_foreign_layer_is_left_out_with_a_warning(taking: Receiving, cache: Cache):
    foreign = {
        "mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        "digest": str(Digest.of(b"far")),
        "size": 3,
        "urls": ["https://far.example/layer"],
    }
    configured = b'{"os":"windows","architecture":"amd64","rootfs":{"diff_ids":[]}}'
    members = {"schemaVersion": 2, "mediaType": MANIFEST, "config": _described(CONFIG, configured), "layers": [foreign]}
    raw = json.dumps(members).encode()
    contents = {Digest.of(each): each for each in (configured, raw)}
    name = await keep(cache, f"{taking.host}/a/b:1", contents, Descriptor(MANIFEST, Digest.of(raw), len(raw)))
    heard: list[Event] = []
    await push(name, cache=cache, report=heard.append)
    assert [each.message for each in heard if isinstance(each, Warned)] == [
        f"{name}: left out {Digest.of(b'far')}, it lies at 'https://far.example/layer'"
    ]


async def test_a_blob_that_was_damaged_in_the_cache_is_named_and_not_stored(taking: Receiving, cache: Cache):
    reference = await keep_image(cache, f"{taking.host}/a/b:1", BIG)
    cache.layout.path(Digest.of(BIG)).write_bytes(BIG[:-1] + b"!")
    with pytest.raises(DigestMismatch, match=rf"^{reference}: {Digest.of(BIG)}: expected"):
        await push(reference, cache=cache)
    assert str(Digest.of(BIG)) not in taking.blobs
    assert taking.manifests == {}


async def test_a_registry_that_stored_something_else_is_not_believed(registry: ScriptedRegistry, cache: Cache):
    raw = b'{"schemaVersion":2,"mediaType":"%s","manifests":[]}' % INDEX.encode()
    reference = await keep(cache, f"{registry.host}/a/b:1", {Digest.of(raw): raw}, Descriptor(INDEX, Digest.of(raw), 1))
    wrong = {"Docker-Content-Digest": str(Digest.of(b"x"))}
    registry.behaviours["/v2/a/b/manifests/1"] = Reply(201, headers=wrong)
    with pytest.raises(DigestMismatch, match="the registry says that it stored"):
        await push(reference, cache=cache)


async def test_an_image_that_may_not_be_stored_is_named(registry: ScriptedRegistry, cache: Cache):
    raw = b'{"schemaVersion":2,"mediaType":"%s","manifests":[]}' % INDEX.encode()
    root = Descriptor(INDEX, Digest.of(raw), len(raw))
    reference = await keep(cache, f"{registry.host}/a/b:1", {root.digest: raw}, root)
    registry.behaviours["/v2/a/b/manifests/1"] = Reply(403, b'{"errors":[{"code":"DENIED","message":"read only"}]}')
    with pytest.raises(Denied, match=r"a/b:1: read only \(status 403\)"):
        await push(reference, cache=cache)
    assert registry.seen[-1].headers["content-type"] == root.media_type


async def test_what_is_not_in_the_cache_is_said(registry: ScriptedRegistry, cache: Cache):
    with pytest.raises(
        CacheError, match=r"a\.example/x:latest is not in the cache .*; nor is there a file of that name"
    ):
        await push("a.example/x", cache=cache)
    with pytest.raises(CacheError, match=r"^'\./x' can be no image's name; nor is there a file of that name$"):
        await push("./x", cache=cache)
    with pytest.raises(CacheError, match="is not in the cache"):
        async with Session() as session:
            await push_in(session, cache, Reference.parse("a.example/x"))
    await cache.layout.set_name("a.example/x:latest", Descriptor(MANIFEST, Digest.of(b"x"), 1))
    with pytest.raises(StorageError):
        await push("a.example/x", cache=cache)
    lacking = await keep_image(cache, f"{registry.host}/a/b:1", BIG)
    cache.layout.path(Digest.of(BIG)).unlink()
    with pytest.raises(CacheError, match=rf"b:1 is not whole, {Digest.of(BIG)} is missing: pull it again$"):
        await push(lacking, cache=cache)
    assert registry.seen == []


class TestAnArchive:
    async def saved(self, cache: Cache, path: Path, kind: str, *names: str) -> Path:
        from client.archive.formats import Format
        from client.archive.saving import save

        for number, name in enumerate(names):
            await keep_image(cache, name, BIG, str(number).encode())
        await save(cache, [Reference.parse(each) for each in names], path, format=Format(kind))
        return path

    @pytest.mark.parametrize("kind", ["docker-archive", "oci-archive", "oci"])
    async def test_goes_to_a_registry(self, kind: str, taking: Receiving, cache: Cache, tmp_path: Path):
        path = await self.saved(cache, tmp_path / "saved", kind, f"{taking.host}/a/b:1")
        await push(path, cache=Cache(tmp_path / "empty"))
        assert set(taking.manifests) == {"1"}
        assert BIG in taking.blobs.values()
        await push(path, f"{taking.host}/a/b:renamed", cache=Cache(tmp_path / "empty"))
        assert taking.manifests["renamed"] == taking.manifests["1"]

    async def test_with_several_images_sends_each_under_its_name(self, taking: Receiving, cache: Cache, tmp_path: Path):
        names = (f"{taking.host}/a/b:1", f"{taking.host}/a/b:2")
        path = await self.saved(cache, tmp_path / "saved", "oci-archive", *names)
        assert len(await push(path, cache=Cache(tmp_path / "empty"))) == 2
        assert set(taking.manifests) == {"1", "2"}
        with pytest.raises(ArchiveInvalid, match=f"can be one image alone, it holds {names[0]}, {names[1]}"):
            await push(path, f"{taking.host}/a/b:3", cache=cache)

    async def test_without_a_name_has_to_be_told_where_it_goes(self, taking: Receiving, tmp_path: Path):
        layout = Cache(tmp_path / "layout")
        await keep_image(layout, "x:1", BIG)
        (entry,) = await layout.layout.entries()
        await layout.layout.set_name("none that a registry has!", entry)
        await layout.layout.remove_names(["docker.io/library/x:1"])
        with pytest.raises(ArchiveInvalid, match="its image has no name that tells a registry: say where it goes"):
            await push(layout.root, cache=Cache(tmp_path / "empty"))
        await push(layout.root, f"{taking.host}/a/b:1", cache=Cache(tmp_path / "empty"))
        assert set(taking.manifests) == {"1"}

    async def test_that_is_empty_is_refused(self, tmp_path: Path):
        (tmp_path / "index.json").write_text('{"schemaVersion":2,"manifests":[]}')
        (tmp_path / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
        with pytest.raises(ArchiveInvalid, match="there is no image in it"):
            await push(tmp_path, cache=Cache(tmp_path / "cache"))


async def test_the_last_event_tells_it_all(taking: Receiving, cache: Cache):
    reference = await keep_image(cache, f"{taking.host}/a/b:1", BIG)
    heard: list[Event] = []
    (pushed,) = await push(reference, platform=Platform("linux", "amd64"), cache=cache, report=heard.append)
    assert heard[-1] == pushed == Pushed(reference, Digest.of(taking.manifests["1"]), pushed.size, pushed.size)
