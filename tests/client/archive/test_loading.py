"""Load: whole, verified blobs and then names, or no name at all."""

from __future__ import annotations

import asyncio
import gzip
import os
import shutil
import tarfile
from pathlib import Path

import pytest
from backports import zstd

from client.archive import flow
from client.archive.loading import Loaded, load
from client.caching.cache import Cache
from ocispec.digest import Digest
from ocispec.errors import ArchiveInvalid, DigestMismatch, LayerhouseError, NameInvalid, PathUnknown, StorageFull
from ocispec.mediatypes import OCI_INDEX, OCI_MANIFEST
from ocispec.reference import Reference
from tests.client.archive.making import (
    blob,
    blobs_in,
    cancelled_everywhere,
    docker,
    image,
    index_of,
    link,
    oci,
    sized,
    tar,
    to_json,
    top,
)
from tests.client.archive.test_sources import instead, unpack, without

NAME = "docker.io/library/a:1"
IMAGE = image("x", "y")
LARGE = image(*"abcdefgh")


async def stream(cache: Cache, data: bytes, **options: str) -> list[Loaded]:
    """Load from a pipe, which cannot seek."""
    reading, writing = os.pipe()

    def feed() -> None:
        with os.fdopen(writing, "wb") as file:
            file.write(data)

    feeding = asyncio.create_task(asyncio.to_thread(feed))
    try:
        return await load(cache, reading, **options)
    finally:
        os.close(reading)
        await asyncio.gather(feeding, return_exceptions=True)


async def read(cache: Cache, data: bytes, way: str, folder: Path, **options: str) -> list[Loaded]:
    if way == "stream":
        return await stream(cache, data, **options)
    (folder / "image.tar").write_bytes(data)
    return await load(cache, folder / "image.tar", **options)


ways = pytest.mark.parametrize("way", ["file", "stream"])


def scratch_of(cache: Cache) -> list[Path]:
    return list((cache.root / ".ingest").glob("*"))


@ways
@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstd.compress])
@pytest.mark.parametrize("backwards", [False, True])
async def test_an_oci_archive_comes_byte_for_byte(cache: Cache, tmp_path: Path, way: str, pack, backwards: bool):
    members = oci(IMAGE, "a:1", "b.example/c:2")
    data = pack(tar(members[::-1] if backwards else members))
    loaded = await read(cache, data, way, tmp_path)
    assert loaded == [Loaded(name, IMAGE.digest, OCI_MANIFEST) for name in (NAME, "b.example/c:2")]
    assert set(blobs_in(cache).values()) == {IMAGE.manifest, *IMAGE.blobs}
    assert (await cache.inspect("a:1")).variants[0].size == sum(map(len, IMAGE.blobs))
    assert scratch_of(cache) == []


@ways
@pytest.mark.parametrize("packed", ["plain", "gzip", "zstd"])
@pytest.mark.parametrize("backwards", [False, True])
async def test_a_docker_archive_keeps_its_layers(cache: Cache, tmp_path: Path, way: str, packed: str, backwards: bool):
    made = image("x", "y", packed=packed)
    members = docker(made, "a:1")
    (loaded,) = await read(cache, tar(members[::-1] if backwards else members), way, tmp_path)
    assert loaded.name == NAME
    (variant,) = (await cache.inspect("a:1")).variants
    assert [each.digest for each in variant.layers] == [Digest.of(each) for each in made.layers]
    assert set(blobs_in(cache).values()) >= set(made.blobs)
    assert scratch_of(cache) == []


@ways
async def test_links_of_old_archives_are_followed(cache: Cache, tmp_path: Path, way: str):
    made = image("x", "x", packed="plain")
    config = f"{Digest.of(made.config).hex}.json"
    listed = to_json([{"Config": config, "RepoTags": ["a:1"], "Layers": ["1/layer.tar", "2/layer.tar"]}])
    members = [link("1/", "", tarfile.DIRTYPE), link("2/layer.tar", "../1/layer.tar"), ("1/layer.tar", made.layers[0])]
    await read(cache, tar([*members, (config, made.config), ("manifest.json", listed)]), way, tmp_path)
    assert len((await cache.inspect("a:1")).variants[0].layers) == 2


async def test_a_folder_is_taken(cache: Cache, tmp_path: Path):
    assert [each.name for each in await load(cache, unpack(tmp_path / "layout", oci(IMAGE, "a:1")))] == [NAME]


async def test_a_named_pipe_is_read_as_it_comes(cache: Cache, tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    loading = asyncio.create_task(load(cache, tmp_path / "pipe"))
    await asyncio.to_thread((tmp_path / "pipe").write_bytes, tar(oci(IMAGE, "a:1")))
    assert [each.name for each in await loading] == [NAME]


async def test_a_file_may_stand_on_standard_input(cache: Cache, tmp_path: Path):
    (tmp_path / "a.tar").write_bytes(tar(oci(IMAGE, "a:1")))
    with (tmp_path / "a.tar").open("rb") as file:
        assert [each.name for each in await load(cache, file.fileno())] == [NAME]


async def test_what_no_loop_can_wait_for_is_read_in_a_thread(cache: Cache):
    # epoll takes neither files nor this device.
    with Path("/dev/null").open("rb") as file, pytest.raises(ArchiveInvalid, match="it is empty"):
        await load(cache, file.fileno())


@ways
async def test_what_the_cache_has_is_not_needed(cache: Cache, tmp_path: Path, way: str):
    await read(cache, tar(oci(IMAGE, "a:1")), way, tmp_path)
    thin = without(oci(IMAGE, "b:1"), blob(IMAGE.layers[0])[0])
    assert [each.name for each in await read(cache, tar(thin), way, tmp_path)] == ["docker.io/library/b:1"]
    before = blobs_in(cache)
    await read(cache, tar(oci(IMAGE, "a:1")), way, tmp_path)
    assert blobs_in(cache) == before


@ways
async def test_an_index_comes_with_the_platforms_that_are_there(cache: Cache, tmp_path: Path, way: str):
    arm = image("z", architecture="arm64")
    raw = index_of(IMAGE, arm)
    members = [("index.json", top(raw, "a:1", media_type=OCI_INDEX)), blob(raw), *oci(IMAGE)[2:]]
    (loaded,) = await read(cache, tar(members), way, tmp_path)
    assert (loaded.digest, loaded.media_type) == (Digest.of(raw), OCI_INDEX)
    assert [str(each.platform) for each in (await cache.inspect("a:1")).variants] == ["linux/amd64"]
    with pytest.raises(ArchiveInvalid, match=f"{blob(raw)[0]}: expected an image of this index, none is there"):
        await read(Cache(tmp_path / "other"), tar(members[:2]), way, tmp_path)


async def test_a_foreign_layer_may_be_elsewhere(cache: Cache):
    foreign = {
        "mediaType": "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "digest": str(Digest.of(b"elsewhere")),
        "size": 9,
        "urls": ["https://a.example/layer"],
    }
    made = image(layers=[foreign])
    assert await stream(cache, tar(oci(made, "a:1")))
    assert set(blobs_in(cache).values()) == {made.manifest, made.config}


async def test_names_that_are_given_replace_those_that_stand(cache: Cache):
    for members in (oci(IMAGE), oci(IMAGE, "a:1", "b:1"), docker(IMAGE)):
        (loaded,) = await stream(cache, tar(members), name="c:1")
        assert loaded.name == "docker.io/library/c:1"
    assert [each.name for each in await cache.images()] == ["docker.io/library/c:1"]
    (loaded,) = await stream(cache, tar(oci(IMAGE)), name=Reference.parse("d:1"))
    with pytest.raises(NameInvalid):
        await stream(cache, b"", name="No Name")


def two(*names: str) -> bytes:
    """An oci-archive of two images, named so."""
    other = image("z")
    entries = [
        {**each.described, "annotations": {"io.containerd.image.name": name}}
        for each, name in zip((IMAGE, other), names, strict=True)
    ]
    index = to_json({"schemaVersion": 2, "manifests": entries})
    return tar([("index.json", index), *oci(IMAGE)[2:], *oci(other)[2:]])


async def test_several_images_come_at_once(cache: Cache):
    assert [each.name for each in await stream(cache, two("a:1", "b:1"))] == [NAME, "docker.io/library/b:1"]


def nested(depth: int) -> list[tuple[str, bytes]]:
    """Indexes in each other, each naming the one below a hundred times, around an image."""
    members, inner, kind = oci(IMAGE)[2:], IMAGE.manifest, OCI_MANIFEST
    for _ in range(depth):
        below = [{"mediaType": kind, "digest": str(Digest.of(inner)), "size": len(inner)}] * 100
        inner, kind = to_json({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": below}), OCI_INDEX
        members.append(blob(inner))
    return [("index.json", top(inner, "a:1", media_type=OCI_INDEX)), *members]


async def test_indexes_that_name_the_same_again_and_again_cost_nothing(cache: Cache):
    assert await stream(cache, tar(nested(4)))


LAYER, MANIFEST = blob(IMAGE.layers[1])[0], blob(IMAGE.manifest)[0]
OTHER = bytes(len(IMAGE.layers[1]))
BAD_MANIFEST = to_json({"schemaVersion": 2, "mediaType": OCI_MANIFEST})
DIFF = DigestMismatch


@ways
@pytest.mark.parametrize(
    ("data", "kind", "message"),
    [
        (b"", ArchiveInvalid, "expected an archive, it is empty"),
        (b"text", ArchiveInvalid, "expected a tar"),
        (gzip.compress(b"text", mtime=0), ArchiveInvalid, "expected a tar"),
        (gzip.compress(tar(oci(IMAGE, "a:1")), mtime=0)[:-20], ArchiveInvalid, "its gzip content ends early"),
        (tar(oci(IMAGE, "a:1"))[:1100], ArchiveInvalid, "expected a member or the end, .*: truncated header"),
        (tar(oci(LARGE, "a:1"))[:5000], ArchiveInvalid, "bytes, the archive ends"),
        (tar(without(oci(IMAGE, "a:1"), LAYER)), ArchiveInvalid, f"{LAYER}: expected .* it is missing"),
        (tar(without(oci(IMAGE, "a:1"), MANIFEST)), ArchiveInvalid, f"{MANIFEST}: expected .* it is missing"),
        (
            tar(instead(oci(IMAGE, "a:1"), LAYER, OTHER)),
            ArchiveInvalid,
            f"{LAYER}: expected {Digest.of(IMAGE.layers[1])}, its content hashes to {Digest.of(OTHER)}",
        ),
        (tar(instead(oci(IMAGE, "a:1"), LAYER, b"")), ArchiveInvalid, LAYER),
        (tar([*oci(IMAGE, "a:1"), blob(IMAGE.config)]), ArchiveInvalid, "stands in it twice"),
        (tar([*oci(IMAGE, "a:1"), ("../x", b"x")]), ArchiveInvalid, "'../x' leads out of the archive"),
        (tar([*oci(IMAGE, "a:1"), ("/x", b"x")]), ArchiveInvalid, "'/x' leads out of the archive"),
        (tar([*oci(IMAGE, "a:1"), link("x", "/etc/shadow")]), ArchiveInvalid, "'x' leads out of the archive"),
        (tar([("x", b"x"), sized("y", 10**13)]), ArchiveInvalid, "y'?: expected 10000000000000 bytes"),
        (tar(nested(6)), ArchiveInvalid, "indexes lie more than 4 deep in each other"),
        (
            tar([("index.json", top(BAD_MANIFEST, "a:1")), blob(BAD_MANIFEST)]),
            ArchiveInvalid,
            "invalid: config",
        ),
        (tar([("index.json", to_json({"schemaVersion": 2, "manifests": []}))]), ArchiveInvalid, "expected an image"),
        (tar(oci(IMAGE)), ArchiveInvalid, f"the image {IMAGE.digest} has no name in it: give it one with --name"),
        (tar(docker(IMAGE)), ArchiveInvalid, "has no name in it"),
        (two("a:1", "a:1"), ArchiveInvalid, f"{NAME} names two images in it"),
        (tar(docker(IMAGE, "a:1")[1:]), ArchiveInvalid, "expected a layer, it is missing"),
        (tar(instead(docker(IMAGE, "a:1"), docker(IMAGE)[1][0], IMAGE.layers[0])), DIFF, "expected the diff id"),
        (
            tar(instead(docker(IMAGE, "a:1"), docker(IMAGE)[1][0], IMAGE.plain[0])),
            DIFF,
            f"{docker(IMAGE)[1][0]}: expected {Digest.of(IMAGE.plain[1])}, its content hashes to",
        ),
    ],
)
async def test_a_hostile_archive_leaves_whole_blobs_and_no_name(  # noqa: PLR0917 - what pytest gives
    cache: Cache, tmp_path: Path, way: str, data: bytes, kind: type[LayerhouseError], message: str
):
    with pytest.raises(kind, match=message) as raised:
        await read(cache, data, way, tmp_path)
    assert "\n" not in raised.value.message
    begin = f"{tmp_path}/image.tar: " if way == "file" else "file descriptor "
    assert raised.value.message.startswith(begin)
    assert raised.value.message.count(begin) == 1
    blobs_in(cache)
    assert await cache.images() == []
    assert scratch_of(cache) == []
    assert {each.name for each in tmp_path.iterdir()} <= {"cache", "image.tar"}


@ways
@pytest.mark.parametrize("name", ["\x1b[31mred\n", "long" * 1000])
async def test_a_hostile_name_is_told_in_one_short_line(cache: Cache, tmp_path: Path, way: str, name: str):
    listed = to_json([{"Config": name, "RepoTags": ["a:1"], "Layers": []}])
    for data in (tar([("manifest.json", listed)]), tar([("manifest.json", listed), (name, b"{}")])):
        with pytest.raises(ArchiveInvalid) as raised:
            await read(cache, data, way, tmp_path)
        assert raised.value.message.isprintable()
        assert len(raised.value.message) < 900


async def test_a_name_for_two_images_is_refused(cache: Cache):
    with pytest.raises(ArchiveInvalid, match="a name is given for one image, it holds 2"):
        await stream(cache, two("a:1", "b:1"), name="c:1")


async def test_what_is_not_there_is_said(cache: Cache, tmp_path: Path):
    with pytest.raises(PathUnknown, match="none does not exist"):
        await load(cache, tmp_path / "none")


async def test_what_follows_an_archive_is_read_away_within_a_bound(cache: Cache, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(flow, "_TRAILER", 100_000)
    assert await stream(cache, tar(oci(IMAGE, "a:1")) + bytes(5_000_000))


@pytest.mark.peer("tmpfs")
async def test_a_full_disk_is_one_line_and_leaves_no_junk(tmpfs: Path):
    cache = Cache(tmpfs / "cache")
    made = image("x", packed="plain")
    await stream(cache, tar(oci(made, "a:1")))
    for name in ("waits", f"blobs/sha256/{'0' * 64}"):
        with pytest.raises(StorageFull, match="No space left on device"):
            await stream(cache, tar([(name, bytes(6_000_000))]))
        assert scratch_of(cache) == []
    assert [each.name for each in await cache.images()] == [NAME]


@pytest.mark.parametrize("members", [oci(LARGE, "a:1"), docker(LARGE, "a:1")], ids=["oci", "docker"])
@ways
async def test_a_load_that_is_cancelled_anywhere_leaves_the_cache_sound(
    cache: Cache, tmp_path: Path, way: str, members: list[tuple[str, bytes]]
):
    data = tar(members)
    async for moment, cancelled in cancelled_everywhere(lambda: read(cache, data, way, tmp_path)):
        blobs_in(cache)
        assert scratch_of(cache) == []
        if cancelled and await cache.images():
            # The name was set, and the cancellation came too late for more than the return.
            assert moment > 20
            assert (await cache.inspect("a:1")).variants
        shutil.rmtree(cache.root)
    assert moment > 30


async def test_a_pipe_that_gives_nothing_is_let_go_at_once(cache: Cache):
    reading, writing = os.pipe()
    os.write(writing, tar(oci(IMAGE, "a:1"))[:1000])
    running = asyncio.create_task(load(cache, reading))
    await asyncio.sleep(0.05)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    os.close(reading)
    os.close(writing)
    assert scratch_of(cache) == []
