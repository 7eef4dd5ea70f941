"""Unpacking an image of the cache: digests, compressions, what is left when it fails, and by whom it can be done."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import re
import struct
import tarfile
import threading
import tracemalloc
from pathlib import Path
from random import Random

import pytest
from backports import zstd

from client.caching.cache import Cache
from client.progress import Event, Warned
from client.unpacking.unpacking import LayerUnpacked, unpack
from ocispec import mediatypes
from ocispec.descriptor import Descriptor
from ocispec.digest import Digest
from ocispec.errors import (
    CacheError,
    DigestMismatch,
    LayerhouseError,
    LayerInvalid,
    PlatformUnknown,
    StorageError,
    StorageFull,
)
from tests.client.unpacking.making import NAME, file, folder, image, left, put, symlink, tar, tree
from tests.support.processes import run

PLAIN = tar(folder("d"), file("d/f", "x" * 5000), symlink("l", "d/f"))


def members(data: bytes, count: int = 5) -> list[bytes]:
    step = -(-len(data) // count)
    return [data[at : at + step] for at in range(0, len(data), step)]


async def test_an_image_becomes_a_tree(cache: Cache, tmp_path: Path):
    await image(cache, PLAIN, tar(file("d/g", "more"), file(".wh.l")))
    events: list[Event] = []
    done = await unpack(cache, NAME, tmp_path / "out", report=events.append)
    assert left(tmp_path) == ["out"]
    assert sorted(tree(tmp_path / "out")) == [".", "d", "d/f", "d/g"]
    assert (done.name, done.folder, done.layers, done.entries, done.size) == (NAME, tmp_path / "out", 2, 4, 5004)
    assert [(type(each), each.entries) for each in events] == [(LayerUnpacked, 3), (LayerUnpacked, 4)]
    assert (tmp_path / "out").stat().st_mode & 0o7777 == 0o755


@pytest.mark.parametrize("media_type", [mediatypes.OCI_LAYER, mediatypes.OCI_LAYER_GZIP, mediatypes.OCI_LAYER_ZSTD])
async def test_every_compression_is_unpacked(cache: Cache, tmp_path: Path, media_type: str):
    await image(cache, PLAIN, media_type=media_type)
    await unpack(cache, NAME, tmp_path / "out")
    assert (tmp_path / "out/d/f").read_text() == "x" * 5000


PACKED = {
    "several gzip members": (mediatypes.OCI_LAYER_GZIP, b"".join(map(gzip.compress, members(PLAIN)))),
    "estargz": (
        mediatypes.OCI_LAYER_GZIP,
        # Its members follow the files of the archive; the last is empty and tells in its extra field where the rest is.
        b"".join(map(gzip.compress, members(PLAIN, 9)))
        + b"\x1f\x8b\x08\x04"
        + bytes(5)
        + b"\xff"
        + struct.pack("<H", 26)
        + b"SG"
        + struct.pack("<H", 22)
        + b"%016xSTARGZ" % 4096
        + b"\x01\0\0\xff\xff"
        + bytes(8),
    ),
    "several zstd frames": (mediatypes.OCI_LAYER_ZSTD, b"".join(map(zstd.compress, members(PLAIN)))),
    "a frame without content": (
        mediatypes.OCI_LAYER_ZSTD,
        struct.pack("<II", 0x184D2A5E, 3) + b"abc" + zstd.compress(PLAIN) + struct.pack("<II", 0x184D2A50, 3) + b"abc",
    ),
    "docker's type": (mediatypes.DOCKER_LAYER_GZIP, gzip.compress(PLAIN, mtime=0)),
    "docker's plain type": ("application/vnd.docker.image.rootfs.diff.tar", PLAIN),
    "a foreign type": ("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", gzip.compress(PLAIN, mtime=0)),
    "no type": (mediatypes.OCTET_STREAM, zstd.compress(PLAIN)),
}


@pytest.mark.parametrize("how", PACKED)
async def test_layers_are_read_as_others_pack_them(cache: Cache, tmp_path: Path, how: str):
    media_type, data = PACKED[how]
    await image(cache, PLAIN, packed=[data], media_type=media_type)
    await unpack(cache, NAME, tmp_path / "out")
    assert (tmp_path / "out/d/f").read_text() == "x" * 5000


@pytest.mark.parametrize(
    ("media_type", "data", "message"),
    [
        (mediatypes.OCI_LAYER_GZIP, zstd.compress(PLAIN), "its media type tells gzip, its content is zstd"),
        (mediatypes.OCI_LAYER, gzip.compress(PLAIN, mtime=0), "its media type tells none, its content is gzip"),
        ("application/vnd.oci.image.layer.v1.tar+gzip+encrypted", PLAIN, "expected the media type of a layer, got"),
        (mediatypes.OCI_LAYER_GZIP, gzip.compress(PLAIN, mtime=0)[:-9], "its gzip content ends early"),
        (mediatypes.OCI_LAYER_ZSTD, zstd.compress(PLAIN)[:-3], "its zstd content ends early"),
        (mediatypes.OCI_LAYER_GZIP, gzip.compress(PLAIN, mtime=0) + b"rubbish", "its gzip content is damaged"),
        (mediatypes.OCI_LAYER_GZIP, gzip.compress(b"no tar".ljust(600), mtime=0), "expected a header of a tar"),
    ],
)
async def test_what_is_no_layer_is_refused_with_its_digest(
    cache: Cache, tmp_path: Path, media_type: str, data: bytes, message: str
):
    await image(cache, PLAIN, packed=[data], media_type=media_type)
    with pytest.raises(LayerInvalid) as caught:
        await unpack(cache, NAME, tmp_path / "out")
    assert caught.value.message.startswith(f"layer {Digest.of(data)}: {message}")
    assert left(tmp_path) == []


async def test_a_layer_with_another_diff_id_is_refused(cache: Cache, tmp_path: Path):
    other = Digest.of(b"other")
    await image(cache, PLAIN, diff_ids=[str(other)])
    with pytest.raises(DigestMismatch) as caught:
        await unpack(cache, NAME, tmp_path / "out")
    packed = Digest.of(gzip.compress(PLAIN, mtime=0))
    told = f"expected the diff id {other}, its content hashes to {Digest.of(PLAIN)}"
    assert caught.value.message == f"layer {packed}: {told}"
    assert left(tmp_path) == []


async def test_bytes_after_the_archive_belong_to_the_diff_id(cache: Cache, tmp_path: Path):
    await image(cache, PLAIN + b"more", diff_ids=[str(Digest.of(PLAIN))])
    with pytest.raises(DigestMismatch, match="expected the diff id"):
        await unpack(cache, NAME, tmp_path / "out")


@pytest.mark.parametrize("ids", [[], ["sha256:" + "0" * 64] * 2])
async def test_each_layer_needs_a_diff_id(cache: Cache, tmp_path: Path, ids: list[str]):
    await image(cache, PLAIN, diff_ids=ids)
    with pytest.raises(LayerInvalid, match=f"expected a diff id for each of 1 layers, got {len(ids)}"):
        await unpack(cache, NAME, tmp_path / "out")


@pytest.mark.parametrize("at", [3, 12, 40, -1])
async def test_a_layer_that_is_damaged_on_disk_is_told_as_such(cache: Cache, tmp_path: Path, at: int):
    await image(cache, PLAIN)
    path = cache.layout.path(Digest.of(gzip.compress(PLAIN, mtime=0)))
    data = bytearray(path.read_bytes())
    data[at] ^= 0x55
    path.write_bytes(data)
    with pytest.raises(DigestMismatch, match="is damaged in the cache: its content hashes to sha256:"):
        await unpack(cache, NAME, tmp_path / "out")
    assert left(tmp_path) == []


@pytest.mark.parametrize("at", [5, 2_000_000])
async def test_damage_anywhere_in_a_large_layer_has_one_name(cache: Cache, tmp_path: Path, at: int):
    layer = tar(file("random", Random(1).randbytes(3 << 20)), file("after"))
    await image(cache, layer)
    path = cache.layout.path(Digest.of(gzip.compress(layer, mtime=0)))
    await unpack(cache, NAME, tmp_path / "whole")
    data = bytearray(path.read_bytes())
    data[at] ^= 0x55
    path.write_bytes(data)
    with pytest.raises(DigestMismatch, match="is damaged in the cache"):
        await unpack(cache, NAME, tmp_path / "out")


async def test_the_image_for_this_machine_is_taken_unless_told(cache: Cache, tmp_path: Path):
    await image(cache, PLAIN, architecture="s390x")
    await unpack(cache, NAME, tmp_path / "out")
    with pytest.raises(PlatformUnknown, match="no image for linux/ppc64le in the cache"):
        await unpack(cache, NAME, tmp_path / "two", platform="linux/ppc64le")
    await unpack(cache, NAME, tmp_path / "two", platform="linux/s390x")


async def test_what_is_no_container_image_is_refused(cache: Cache, tmp_path: Path):
    kind = "application/vnd.cncf.helm.config.v1+json"
    chart = {
        "schemaVersion": 2,
        "mediaType": mediatypes.OCI_MANIFEST,
        "config": (await put(cache, b"{}", kind)).to_json(),
        "layers": [],
    }
    await cache.layout.set_name(NAME, await put(cache, json.dumps(chart).encode(), mediatypes.OCI_MANIFEST))
    with pytest.raises(CacheError, match=re.escape(f"{NAME} is no container image: it has no such config, but {kind}")):
        await unpack(cache, NAME, tmp_path / "out")


async def test_cve_2021_41190_what_is_an_index_to_one_reader_and_an_image_to_another(cache: Cache, tmp_path: Path):
    top = await image(cache, PLAIN)
    both = json.loads(cache.layout.path(top.digest).read_bytes()) | {"manifests": [top.to_json()]}
    await cache.layout.set_name(NAME, await put(cache, json.dumps(both).encode(), mediatypes.OCI_MANIFEST))
    with pytest.raises(LayerhouseError, match=r"is not whole|does not belong"):
        await unpack(cache, NAME, tmp_path / "out")
    assert left(tmp_path) == []


async def test_a_foreign_layer_that_was_not_fetched_is_named(cache: Cache, tmp_path: Path):
    outside = Descriptor(
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", Digest.of(PLAIN), 5, urls=("http://x/",)
    )
    config = {"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": [str(Digest.of(PLAIN))]}}
    members = {
        "schemaVersion": 2,
        "mediaType": mediatypes.OCI_MANIFEST,
        "config": (await put(cache, json.dumps(config).encode(), mediatypes.OCI_CONFIG)).to_json(),
        "layers": [outside.to_json()],
    }
    await cache.layout.set_name(NAME, await put(cache, json.dumps(members).encode(), mediatypes.OCI_MANIFEST))
    with pytest.raises(CacheError, match=r"foreign layer .* is not in the cache: `pull --foreign` fetches it"):
        await unpack(cache, NAME, tmp_path / "out")


async def test_an_image_that_is_not_there_is_named(cache: Cache, tmp_path: Path):
    with pytest.raises(CacheError, match="there is no cache"):
        await unpack(cache, NAME, tmp_path / "out")
    await image(cache, PLAIN)
    with pytest.raises(CacheError, match="is not in the cache"):
        await unpack(cache, "a.example/other", tmp_path / "out")
    assert left(tmp_path) == []


async def test_only_a_new_or_an_empty_folder_is_filled(cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    await image(cache, PLAIN)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/f").touch()
    (tmp_path / "file").touch()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for name, message in (
        ("full", "full is not empty: expected a new or an empty folder"),
        ("file", "file is no folder: expected a new or an empty one"),
        ("no/parent", "no does not exist"),
        ("/proc/x", "/proc/x does not exist"),
        ("here", "here is the present folder, which cannot be replaced: name a new folder inside it"),
    ):
        with pytest.raises(StorageError) as caught:
            await unpack(cache, NAME, tmp_path / name)
        assert caught.value.message.endswith(message)
    assert left(tmp_path) == ["file", "full", "here"]
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("empty")
    done = await unpack(cache, NAME, tmp_path / "link")
    assert done.folder == tmp_path / "empty"
    assert (tmp_path / "link/d/f").exists()


async def test_what_appears_meanwhile_is_not_replaced(cache: Cache, tmp_path: Path):
    await image(cache, PLAIN)

    def appear(_: Event) -> None:
        (tmp_path / "out").mkdir()
        (tmp_path / "out/mine").touch()

    with pytest.raises(StorageError, match="not empty"):
        await unpack(cache, NAME, tmp_path / "out", report=appear)
    assert left(tmp_path) == ["out"]
    assert left(tmp_path / "out") == ["mine"]


async def test_cancelled_it_leaves_nothing(cache: Cache, tmp_path: Path):
    await image(cache, *(tar(*(file(f"{layer}/{n}", b"x" * 2000) for n in range(400))) for layer in range(4)))
    whole = 0
    for steps in [*range(12), *range(12, 4000, 60)]:
        running = asyncio.ensure_future(unpack(cache, NAME, tmp_path / "out"))
        for _ in range(steps):
            await asyncio.sleep(0)
        running.cancel()
        try:
            await running
        except asyncio.CancelledError:
            assert left(tmp_path) in ([], ["out"])
        if (tmp_path / "out").exists():
            whole += 1
            assert len(list((tmp_path / "out").rglob("*"))) == 1604
            run("rm", "-r", str(tmp_path / "out"))
    assert threading.active_count() < 40


async def test_cancelled_between_entries_it_ends_there(cache: Cache, tmp_path: Path):
    """The second layer is being put there when the first was told."""
    await image(cache, PLAIN, tar(*(file(f"many/{n}") for n in range(20_000))))
    running: asyncio.Task[object]

    def told(_: Event) -> None:
        running.cancel()

    running = asyncio.create_task(unpack(cache, NAME, tmp_path / "out", report=told))
    with pytest.raises(asyncio.CancelledError):
        await running
    assert left(tmp_path) == []


@pytest.mark.peer("tmpfs")
async def test_a_full_disk_is_one_clear_line_and_no_junk(cache: Cache, tmp_path: Path):
    await image(cache, tar(file("small", b"x"), file("large", bytes(3 << 20))))
    disk = tmp_path / "disk"
    disk.mkdir()
    run("mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk))
    try:
        with pytest.raises(StorageFull) as caught:
            await unpack(cache, NAME, disk / "out")
        assert caught.value.message == f"{disk}/out/large: No space left on device"
        assert left(disk) == []
        with pytest.raises(StorageError, match="is a mount point, which cannot be replaced"):
            await unpack(cache, NAME, disk)
    finally:
        run("umount", str(disk))


async def test_memory_is_bounded_whatever_the_layer_holds(cache: Cache, tmp_path: Path):
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as made:
        info, _ = file("zeros")
        info.size = 256 << 20
        made.addfile(info, io.BytesIO(bytes(info.size)))
    await image(cache, archive.getvalue(), media_type=mediatypes.OCI_LAYER_ZSTD)
    del archive
    tracemalloc.start()
    try:
        await unpack(cache, NAME, tmp_path / "out")
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


async def test_warnings_come_once_for_all(cache: Cache, tmp_path: Path):
    await image(cache, tar(*(file(f"{n}", xattrs={"trusted.overlay.x": "1"}) for n in range(3))))
    events: list[Event] = []
    await unpack(cache, NAME, tmp_path / "out", report=events.append)
    warnings = [each.message for each in events if isinstance(each, Warned)]
    assert warnings == ["left out, since it is not permitted here: 3 extended attributes"]
