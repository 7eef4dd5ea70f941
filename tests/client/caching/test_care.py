"""Keeping the cache small, and never taking what somebody needs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client.caching import care
from client.caching.cache import Cache
from client.transfers.pulling import pull
from ocispec import mediatypes
from ocispec.descriptor import REF_NAME
from ocispec.digest import Digest
from ocispec.errors import CacheError, StorageError, StorageFull
from storage.layout import ImageLayout
from storage.partials import Partials, folder_of
from tests.client.filled import image, index, put, spoil
from tests.client.scripted import Reply, ScriptedRegistry

NAME, OTHER = "a.example/x:1", "a.example/y:1"
LONG_AGO = time.time() - 30 * 24 * 3600


async def blobs(cache: Cache) -> set[Digest]:
    return {each.digest async for each in cache.layout.blobs()}


async def names(cache: Cache) -> list[str]:
    return [each.annotations[REF_NAME] for each in await cache.layout.entries()]


def make_old(cache: Cache) -> None:
    for each in cache.root.rglob("*"):
        os.utime(each, (LONG_AGO, LONG_AGO))


async def test_an_empty_cache_takes_nothing_and_stays_unmade(cache: Cache):
    found = await cache.usage()
    assert (found.images, found.total) == ((), 0)
    assert (await cache.prune()).size == 0
    assert not cache.root.exists()


async def test_what_each_name_takes_alone_and_together(cache: Cache):
    one = await image(cache, [b"base" * 100, b"one"], name=NAME)
    await image(cache, [b"base" * 100, b"other"], name=OTHER)
    await put(cache, b"nobody's")
    found = await cache.usage()
    assert [each.name for each in found.images] == [NAME, OTHER]
    config = (await cache.inspect(NAME)).variants[0].manifest.config
    assert config
    assert found.images[0].own == 3 + one.size
    assert found.images[0].shared == found.shared == 400 + config.size
    assert found.images[0].total == found.images[0].own + found.images[0].shared
    assert (found.unreferenced.count, found.unreferenced.size) == (1, 8)
    assert found.to_json()["images"][0] == {
        "name": NAME,
        "own": 3 + one.size,
        "shared": found.shared,
        "total": found.images[0].total,
    }


async def test_two_names_of_one_image_share_all_of_it(cache: Cache):
    top = await image(cache, [b"x"], name=NAME)
    await cache.layout.set_name(OTHER, top)
    assert [each.own for each in (await cache.usage()).images] == [0, 0]


async def test_what_belongs_to_no_image_is_counted(cache: Cache):
    await image(cache, [b"x"], name=NAME)
    spoil(cache, Digest.of(b"x"))
    await cache.layout.check(Digest.of(b"x"), lambda _: None)
    folder = folder_of(cache.root, Digest.of(b"y"))
    folder.mkdir(parents=True)
    (folder / "data").write_bytes(b"part" * 1024)
    (cache.root / ".ingest" / "1").write_bytes(b"left")
    found = await cache.usage()
    assert {name: each.count for name, each in found.heaps.items()} == {
        "unreferenced": 0,
        "partial": 1,
        "quarantined": 1,
        "scratch": 1,
    }
    assert found.total == sum(each.stat().st_size for each in cache.root.rglob("*") if each.is_file()) - sum(
        (cache.root / name).stat().st_size for name in ("index.json", "oci-layout", ".lock")
    )


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 9), max_size=5), max_size=5),
    st.sets(st.integers(0, 4)),
    st.sets(st.integers(0, 9), max_size=3),
)
def test_own_and_shared_add_up_to_the_whole_and_own_is_what_a_removal_frees(
    images: list[list[int]], removed: set[int], lone: set[int]
):
    async def fill(cache: Cache) -> None:
        for n, layers in enumerate(images):
            await image(cache, [str(each).encode() * (each + 1) for each in layers], name=f"a.example/x:{n}")
        for each in lone:
            await put(cache, b"lone %d" % each)

    async def all_of_it(root: Path) -> None:
        cache = Cache(root)
        await fill(cache)
        sizes = {each.digest: each.size async for each in cache.layout.blobs()}
        found = await cache.usage()
        assert sum(each.own for each in found.images) + found.shared + found.unreferenced.size == sum(sizes.values())
        assert all(each.total <= found.total for each in found.images)
        going = [f"a.example/x:{n}" for n in removed if n < len(images)]
        own = sum(each.own for each in found.images if each.name in going)
        gone = await care.forget(cache.layout, going)
        assert (sum(each.size for each in gone) >= own) if len(going) > 1 else (sum(each.size for each in gone) == own)
        freed = await cache.prune(grace=0)
        assert freed.size == sum(each.size for each in gone) + found.unreferenced.size
        for n, layers in enumerate(images):
            if n not in removed:
                assert len((await cache.inspect(f"a.example/x:{n}")).variants[0].layers) == len(layers)

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(all_of_it(Path(folder)))


async def test_a_name_goes_and_its_blobs_stay_until_they_are_pruned(cache: Cache):
    await image(cache, [b"base", b"one"], name=NAME)
    await image(cache, [b"base", b"other"], name=OTHER)
    before = await blobs(cache)
    gone = await care.forget(cache.layout, [NAME])
    assert await names(cache) == [OTHER]
    assert await blobs(cache) == before
    assert Digest.of(b"one") in {each.digest for each in gone}
    assert Digest.of(b"base") not in {each.digest for each in gone}
    assert await cache.prune(grace=0) == care.Pruned(care.Heap(len(gone), sum(each.size for each in gone)))
    assert await blobs(cache) == before - {each.digest for each in gone}


async def test_names_go_with_the_blobs_that_are_theirs_alone(cache: Cache):
    await image(cache, [b"base", b"one"], name=NAME)
    lone = await put(cache, b"nobody's")
    await image(cache, [b"base", b"other"], name=OTHER)
    with pytest.raises(CacheError, match=r"no name 'a\.example/none:1'"):
        await care.discard(cache.layout, [NAME, "a.example/none:1"])
    before = await blobs(cache)
    gone = await care.discard(cache.layout, [NAME])
    assert (await names(cache), gone.count) == ([OTHER], 2)
    went = before - await blobs(cache)
    assert (len(went), Digest.of(b"one") in went) == (2, True)
    assert {lone.digest, Digest.of(b"base"), Digest.of(b"other")} <= await blobs(cache)


async def test_a_damaged_image_can_be_given_up_and_keeps_what_others_may_share_with_it(cache: Cache):
    torn = await image(cache, [b"base", b"one"], name=NAME)
    await image(cache, [b"base", b"other"], name=OTHER)
    spoil(cache, torn.digest)
    before = await blobs(cache)
    with pytest.raises(CacheError, match=r"a\.example/x:1 is damaged"):
        await care.discard(cache.layout, [OTHER])
    assert (await names(cache), await blobs(cache)) == ([NAME, OTHER], before)
    await care.discard(cache.layout, [NAME])
    assert before - await blobs(cache) == {torn.digest}


@pytest.mark.peer("tmpfs")
async def test_on_a_full_disk_names_still_go_and_make_room(tmp_path: Path):
    mounted = tmp_path / "small"
    mounted.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", mounted], check=True)
    try:
        cache = Cache(mounted / "cache")
        await image(cache, [b"x" * 100_000], name=NAME)
        await image(cache, [b"y" * 100_000], name=OTHER)
        with (mounted / "filler").open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(bytes(4096)):
                pass
        with pytest.raises(StorageFull, match=r"No space left on device; `rm --prune` frees some first"):
            await cache.remove(NAME)
        assert len(await names(cache)) == 2
        assert (await care.discard(cache.layout, [NAME])).size > 100_000
        assert await names(cache) == [OTHER]
        assert (await cache.inspect(OTHER)).variants
    finally:
        subprocess.run(["umount", mounted], check=True)


async def test_of_several_names_all_go_or_none(cache: Cache):
    await image(cache, [b"x"], name=NAME)
    with pytest.raises(CacheError, match=r"a\.example/none:1"):
        await cache.remove(NAME, "a.example/none:1")
    with pytest.raises(CacheError, match=r"no name 'a\.example/none:1'"):
        await care.forget(cache.layout, [NAME, "a.example/none:1"])
    assert await names(cache) == [NAME]
    await cache.remove(NAME)
    assert await names(cache) == []


async def test_blobs_that_came_lately_stay_unless_all_are_to_go(cache: Cache):
    await put(cache, b"old")
    make_old(cache)
    await put(cache, b"young")
    would = await care.prune(cache.layout, dry_run=True)
    assert await blobs(cache) == {Digest.of(b"old"), Digest.of(b"young")}
    did = await cache.prune()
    assert would == did
    assert ((did.blobs.count, did.size), (did.young.count, did.young.size)) == ((1, 3), (1, 5))
    assert await blobs(cache) == {Digest.of(b"young")}
    assert (await cache.prune(grace=0)).to_json()["freed"] == 5


async def test_old_partial_downloads_go_and_those_at_work_stay(cache: Cache):
    idle, busy, young = (Digest.of(each) for each in (b"idle", b"busy", b"young"))
    for each in (idle, busy):
        folder_of(cache.root, each).mkdir(parents=True)
        (folder_of(cache.root, each) / "data").write_bytes(b"some")
    make_old(cache)
    folder_of(cache.root, young).mkdir(parents=True)
    async with Partials(cache.root).opened(busy, 9):
        make_old(cache)
        (folder_of(cache.root, young) / "data").write_bytes(b"new")
        would = await care.prune(cache.layout, dry_run=True)
        assert (await cache.prune()).partial == would.partial == care.Heap(1, 4)
    assert sorted(each.name for each in (cache.root / ".partial" / "sha256").iterdir()) == sorted([busy.hex, young.hex])
    assert (await cache.prune(older=0)).partial.count == 2


async def test_quarantine_and_what_crashes_left_goes(cache: Cache):
    await image(cache, [b"x"], name=NAME)
    spoil(cache, Digest.of(b"x"))
    await cache.layout.check(Digest.of(b"x"), lambda _: None)
    (cache.root / ".ingest" / "old").write_bytes(b"12")
    make_old(cache)
    (cache.root / ".ingest" / "new").write_bytes(b"")
    gone = await cache.prune()
    assert (gone.quarantined.count, gone.scratch, gone.blobs.count) == (1, care.Heap(1, 2), 0)
    assert [each.name for each in (cache.root / ".ingest").iterdir()] == ["new"]


@pytest.mark.parametrize("harm", ["gone", "bad", "bad child"])
async def test_while_it_is_not_known_what_an_image_needs_nothing_goes(cache: Cache, harm: str):
    child = await image(cache, [b"x"])
    top = await index(cache, NAME, [child])
    if harm == "gone":
        cache.layout.path(top.digest).unlink()
    else:
        torn = child if harm == "bad child" else top
        spoil(cache, torn.digest)
        await cache.layout.check(torn.digest, lambda _: None)
    make_old(cache)
    before = await blobs(cache)
    for dry_run in (True, False):
        with pytest.raises(CacheError, match=r"a\.example/x:1 is damaged, .* and no blob was removed"):
            await care.prune(cache.layout, dry_run=dry_run)
    assert await blobs(cache) == before
    await cache.remove(NAME)
    make_old(cache)
    assert (await cache.prune()).blobs.count == len(before)


async def test_entries_of_other_tools_keep_their_blobs_and_hold_nothing_up(cache: Cache):
    unnamed = await image(cache, [b"unnamed"])
    absent = {"mediaType": mediatypes.OCI_MANIFEST, "digest": str(Digest.of(b"absent")), "size": 6}
    document = {"schemaVersion": 2, "manifests": [unnamed.to_json(), absent]}
    (cache.root / "index.json").write_text(json.dumps(document))
    await put(cache, b"nobody's")
    assert (await cache.prune(grace=0)).size == len(b"nobody's")
    assert Digest.of(b"unnamed") in await blobs(cache)
    assert [each.name[:9] for each in (await cache.usage()).images] == ["(no name)", "(no name)"]


async def test_a_damaged_index_frees_nothing(cache: Cache):
    await image(cache, [b"x"], name=NAME)
    make_old(cache)
    (cache.root / "index.json").write_bytes((cache.root / "index.json").read_bytes()[:-9])
    before = await blobs(cache)
    for work in (cache.usage(), cache.prune(grace=0), cache.remove(NAME)):
        with pytest.raises(StorageError, match=r"index\.json is damaged"):
            await work
    assert await blobs(cache) == before


PULLER = """
import asyncio, sys
from pathlib import Path
from ocispec.descriptor import Descriptor
from ocispec.digest import Digest
from storage.layout import ImageLayout

async def main(root):
    layout = ImageLayout(Path(root))
    async with layout.in_use():
        found = await layout.missing([Descriptor("x/y", Digest.of(b"old"), 3)])
        await layout.add(Digest.of(b"new"), b"new")
        print(len(found), flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        for name in (b"old", b"new"):
            await layout.set_name(f"a:{name.decode()}", Descriptor("x/y", Digest.of(name), 3))

asyncio.run(main(sys.argv[1]))
"""


async def test_a_prune_waits_for_another_process_and_takes_nothing_that_it_found_or_brought(cache: Cache):
    await put(cache, b"old")
    puller = await asyncio.create_subprocess_exec(sys.executable, "-c", PULLER, cache.root, stdin=-1, stdout=-1)
    assert puller.stdout
    assert puller.stdin
    assert await puller.stdout.readline() == b"0\n"
    with pytest.raises(StorageError, match="another process"):
        await care.prune(ImageLayout(cache.root, lock_wait=0), grace=0)
    writing = puller.stdin

    def go_on() -> None:
        writing.write(b"\n")

    assert (await care.prune(cache.layout, grace=0, waiting=go_on)).blobs.count == 0
    await puller.communicate()
    assert await blobs(cache) == {Digest.of(b"old"), Digest.of(b"new")}
    assert await names(cache) == ["a:old", "a:new"]


async def test_a_pull_beside_prunes_ends_whole(registry: ScriptedRegistry, cache: Cache):
    layers = [str(n).encode() * 50_000 for n in range(4)]
    made = registry.publish("a/b", "1", layers)
    paused, go_on = asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        paused.set()
        await go_on.wait()

    registry.behaviours[f"/v2/a/b/blobs/{made.layers[3]}"] = Reply(200, layers[3], wait=wait)
    pulling = asyncio.create_task(pull(f"{registry.host}/a/b:1", cache=cache))
    await paused.wait()
    while len(await blobs(cache)) < 4:  # the config and three layers
        await asyncio.sleep(0.01)
    code = "import sys; from client.cli import app; app()"
    prune = [sys.executable, "-c", code, "prune", "--all", "--older", "0s", "--cache", str(cache.root)]
    pruning = await asyncio.create_subprocess_exec(*prune, stdout=-1, stderr=-1)
    assert pruning.stderr
    await pruning.stderr.readline()  # it waits, and says so; or it has ended
    go_on.set()
    await pulling
    await pruning.communicate()
    assert (await cache.inspect(f"{registry.host}/a/b:1")).variants


@pytest.mark.peer("skopeo")
async def test_skopeo_reads_what_stays_after_rm_and_prune(cache: Cache, tmp_path: Path):
    for name, layer in ((NAME, b"one"), (OTHER, b"other")):
        await image(cache, [b"base", layer], name=name)
    await cache.remove(NAME)
    assert (await cache.prune(grace=0)).blobs.count == 2
    copy = ["skopeo", "copy", f"oci:{cache.root}:{OTHER}", f"dir:{tmp_path / 'out'}"]
    await asyncio.to_thread(subprocess.run, copy, check=True, capture_output=True)
    assert (tmp_path / "out" / Digest.of(b"other").hex).read_bytes() == b"other"
    gone = ["skopeo", "copy", f"oci:{cache.root}:{NAME}", f"dir:{tmp_path / 'gone'}"]
    assert (await asyncio.to_thread(subprocess.run, gone, check=False, capture_output=True)).returncode


@pytest.mark.peer("skopeo")
async def test_what_skopeo_writes_into_the_cache_is_an_image_like_others(cache: Cache, tmp_path: Path):
    await image(cache, [b"base", b"one"], name=NAME)
    for target in (f"oci:{cache.root}:short", f"oci:{cache.root}"):
        copy = ["skopeo", "copy", f"oci:{cache.root}:{NAME}", target]
        await asyncio.to_thread(subprocess.run, copy, check=True, capture_output=True)
    before = await blobs(cache)
    await cache.prune(grace=0)
    assert await blobs(cache) == before
    assert (await cache.inspect("short")).name == "short"
    await cache.remove("short")
    assert NAME in [each.name for each in await cache.images()]
