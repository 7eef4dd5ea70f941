"""The image layout: names are never lost, blobs are whole, and skopeo reads it (image-spec, image-layout.md)."""

from __future__ import annotations

import asyncio
import errno
import fcntl
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

from ocispec import mediatypes
from ocispec.descriptor import REF_NAME, Descriptor
from ocispec.digest import Digest
from ocispec.errors import DigestMismatch, PathUnknown, StorageError
from ocispec.platform import Platform
from storage.layout import ImageLayout
from storage.partials import Partials, folder_of


@pytest.fixture
def layout(tmp_path: Path) -> ImageLayout:
    return ImageLayout(tmp_path / "cache")


def manifest(data: bytes = b"{}") -> Descriptor:
    return Descriptor(mediatypes.OCI_MANIFEST, Digest.of(data), len(data))


async def test_a_blob_is_read_back_from_the_place_the_specification_names(layout: ImageLayout):
    digest = Digest.of(b"hello")
    await layout.add(digest, b"hello")
    assert (layout.root / "blobs" / "sha256" / digest.hex).read_bytes() == b"hello"
    assert await layout.read(digest) == b"hello"


async def test_sha512_blobs_lie_under_their_own_algorithm(layout: ImageLayout):
    digest = Digest.of(b"hello", "sha512")
    await layout.add(digest, b"hello")
    assert layout.path(digest).parent.name == "sha512"
    assert await layout.read(digest) == b"hello"


async def test_a_blob_with_other_bytes_than_its_digest_names_is_refused(layout: ImageLayout):
    with pytest.raises(DigestMismatch, match="content hashes to"):
        await layout.add(Digest.of(b"hello"), b"other")
    assert not layout.root.exists()


async def test_reading_what_is_not_there_says_so(layout: ImageLayout):
    with pytest.raises(PathUnknown):
        await layout.read(Digest.of(b"x"))


async def test_a_damaged_blob_is_never_given_out(layout: ImageLayout):
    digest = Digest.of(b"hello")
    await layout.add(digest, b"hello")
    layout.path(digest).write_bytes(b"jello")
    with pytest.raises(StorageError, match="damaged"):
        await layout.read(digest)


async def test_reading_is_bounded(layout: ImageLayout):
    await layout.add(Digest.of(b"hello"), b"hello")
    with pytest.raises(StorageError, match="longer than 4 bytes"):
        await layout.read(Digest.of(b"hello"), limit=4)


async def test_missing_names_each_absent_blob_once_and_counts_a_wrong_size_as_absent(layout: ImageLayout):
    have, torn, absent = manifest(b"have"), manifest(b"torn"), manifest(b"absent")
    await layout.add(have.digest, b"have")
    await layout.add(torn.digest, b"torn")
    layout.path(torn.digest).write_bytes(b"to")
    assert await layout.missing([absent, have, torn, absent]) == [absent, torn]


async def test_a_name_moves_to_its_new_image_and_others_stay(layout: ImageLayout):
    one, two = manifest(b"1"), manifest(b"22")
    await layout.set_name("docker.io/library/a:1", one)
    await layout.set_name("docker.io/library/b:1", one)
    await layout.set_name("docker.io/library/a:1", two)
    assert {each.annotations[REF_NAME]: each.digest for each in await layout.entries()} == {
        "docker.io/library/a:1": two.digest,
        "docker.io/library/b:1": one.digest,
    }
    found = await layout.find("docker.io/library/a:1")
    assert found
    assert found.digest == two.digest
    assert await layout.find("docker.io/library/c:1") is None


async def test_the_layout_says_what_it_is(layout: ImageLayout):
    await layout.set_name("a:1", manifest())
    assert json.loads((layout.root / "oci-layout").read_bytes()) == {"imageLayoutVersion": "1.0.0"}
    index = json.loads((layout.root / "index.json").read_bytes())
    assert (index["schemaVersion"], index["mediaType"]) == (2, mediatypes.OCI_INDEX)


async def test_naming_again_the_same_image_writes_nothing(layout: ImageLayout):
    await layout.set_name("a:1", manifest())
    before = (layout.root / "index.json").stat()
    await layout.set_name("a:1", manifest())
    assert (layout.root / "index.json").stat().st_ino == before.st_ino


async def test_what_other_tools_wrote_into_the_index_is_kept(layout: ImageLayout):
    foreign = {"mediaType": "x/y", "digest": str(Digest.of(b"x")), "size": 1, "data": "eA==", "annotations": None}
    layout.root.mkdir()
    document = {"schemaVersion": 2, "manifests": [foreign], "annotations": {"k": "v"}}
    (layout.root / "index.json").write_text(json.dumps(document))
    await layout.set_name("a:1", manifest())
    after = json.loads((layout.root / "index.json").read_bytes())
    assert after["manifests"][0] == foreign
    assert after["annotations"] == {"k": "v"}


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"manifests":{}}', b'{"manifests":[1]}', b'{"a":1,"a":2}'])
async def test_a_damaged_index_is_named_and_never_overwritten(layout: ImageLayout, content: bytes):
    layout.root.mkdir()
    (layout.root / "index.json").write_bytes(content)
    with pytest.raises(StorageError, match=r"index\.json is damaged"):
        await layout.entries()
    if content != b'{"manifests":[1]}':
        with pytest.raises(StorageError, match=r"index\.json is damaged"):
            await layout.set_name("a:1", manifest())
        assert (layout.root / "index.json").read_bytes() == content


async def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path):
    (tmp_path / "file").write_text("")
    layout = ImageLayout(tmp_path / "file" / "cache")
    with pytest.raises(StorageError, match="cache"):
        await layout.set_name("a:1", manifest())


@settings(max_examples=20, deadline=None)
@given(st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=6), min_size=2, max_size=5))
def test_concurrent_adders_never_lose_an_entry(adders: list[list[int]]):
    async def add(root: Path, numbers: list[int]) -> None:
        layout = ImageLayout(root)
        for number in numbers:
            await layout.set_name(f"a:{number}", manifest(str(number).encode()))

    async def all_at_once(root: Path) -> set[str]:
        async with asyncio.TaskGroup() as group:
            for numbers in adders:
                group.create_task(add(root, numbers))
        return {each.annotations[REF_NAME] for each in await ImageLayout(root).entries()}

    with tempfile.TemporaryDirectory() as folder:
        assert asyncio.run(all_at_once(Path(folder))) == {f"a:{each}" for numbers in adders for each in numbers}


ADDER = """
import asyncio, sys
from pathlib import Path
from ocispec.descriptor import Descriptor
from ocispec.digest import Digest
from storage.layout import ImageLayout

async def main(root, first):
    layout = ImageLayout(Path(root))
    for number in range(int(first), int(first) + 20):
        await layout.set_name(f"a:{number}", Descriptor("x/y", Digest.of(b"x"), 1))

asyncio.run(main(*sys.argv[1:]))
"""


async def test_adders_in_several_processes_never_lose_an_entry(layout: ImageLayout):
    adders = [subprocess.Popen([sys.executable, "-c", ADDER, layout.root, str(n * 20)]) for n in range(3)]
    assert [await asyncio.to_thread(each.wait) for each in adders] == [0, 0, 0]
    assert {each.annotations[REF_NAME] for each in await layout.entries()} == {f"a:{n}" for n in range(60)}


async def test_the_lock_of_a_process_that_hangs_is_not_waited_for_forever(layout: ImageLayout):
    await layout.set_name("a:1", manifest())
    impatient = ImageLayout(layout.root, lock_wait=0)
    held = os.open(layout.root / ".lock", os.O_RDWR)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(StorageError, match="another process"):
            await impatient.set_name("a:2", manifest())
    finally:
        os.close(held)
    await impatient.set_name("a:2", manifest())


async def test_a_cancelled_wait_for_the_lock_lets_go_of_it(layout: ImageLayout):
    await layout.set_name("a:1", manifest())
    held = os.open(layout.root / ".lock", os.O_RDWR)
    fcntl.flock(held, fcntl.LOCK_EX)
    waiting = asyncio.create_task(layout.set_name("a:2", manifest()))
    await asyncio.wait({waiting}, timeout=0.05)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    os.close(held)
    await layout.set_name("a:3", manifest())
    assert await layout.find("a:2") is None


async def test_names_go_together_or_not_at_all_and_all_else_in_the_index_stays(layout: ImageLayout):
    foreign = {"mediaType": "x/y", "digest": str(Digest.of(b"x")), "size": 1, "data": "eA==", "annotations": None}
    torn = [1, {"annotations": []}, {"annotations": {REF_NAME: 7}}]
    layout.root.mkdir()
    document = {"schemaVersion": 2, "manifests": [foreign, *torn], "annotations": {"k": "v"}}
    (layout.root / "index.json").write_text(json.dumps(document))
    for name in ("a:1", "a:2", "a:3"):
        await layout.set_name(name, manifest())
    before = (layout.root / "index.json").read_bytes()
    with pytest.raises(PathUnknown, match=r"index\.json has no name 'a:4'"):
        await layout.remove_names(["a:1", "a:4"])
    assert (layout.root / "index.json").read_bytes() == before
    await layout.remove_names(["a:1", "a:3"])
    after = json.loads((layout.root / "index.json").read_bytes())
    assert after["manifests"][:4] == [foreign, *torn]
    assert [each["annotations"][REF_NAME] for each in after["manifests"][4:]] == ["a:2"]
    assert after["annotations"] == {"k": "v"}


async def test_taking_names_out_of_a_damaged_index_leaves_it_as_it_is(layout: ImageLayout):
    layout.root.mkdir()
    (layout.root / "index.json").write_bytes(b"{")
    with pytest.raises(StorageError, match="move it away and pull again"):
        await layout.remove_names(["a:1"])
    assert (layout.root / "index.json").read_bytes() == b"{"


@settings(max_examples=20, deadline=None)
@given(st.sets(st.integers(0, 9), min_size=1), st.sets(st.integers(10, 19), min_size=1))
def test_names_that_come_and_go_at_once_never_take_others_along(going: set[int], coming: set[int]):
    async def change(root: Path) -> set[str]:
        for number in range(10):
            await ImageLayout(root).set_name(f"a:{number}", manifest())
        async with asyncio.TaskGroup() as group:
            for number in going:
                group.create_task(ImageLayout(root).remove_names([f"a:{number}"]))
            for number in coming:
                group.create_task(ImageLayout(root).set_name(f"a:{number}", manifest()))
        return {each.annotations[REF_NAME] for each in await ImageLayout(root).entries()}

    with tempfile.TemporaryDirectory() as folder:
        left = asyncio.run(change(Path(folder)))
    assert left == {f"a:{each}" for each in (set(range(10)) - going) | coming}


async def test_every_blob_is_walked_and_nothing_else(layout: ImageLayout):
    assert [each async for each in layout.blobs()] == []
    wanted = {Digest.of(str(n).encode()): str(n).encode() for n in range(600)}
    wanted[Digest.of(b"x", "sha512")] = b"x"
    for digest, data in wanted.items():
        layout.path(digest).parent.mkdir(parents=True, exist_ok=True)
        layout.path(digest).write_bytes(data)
    folder = layout.root / "blobs" / "sha256"
    (folder / "README").write_text("foreign")
    (folder / ("a" * 64)).mkdir()
    (folder / ("b" * 64)).symlink_to("nowhere")
    (layout.root / "blobs" / "md5").mkdir()
    found = [each async for each in layout.blobs()]
    assert {each.digest: each.size for each in found} == {digest: len(data) for digest, data in wanted.items()}
    assert len(found) == len(wanted)


async def test_a_folder_that_is_none_is_told(layout: ImageLayout):
    (layout.root / "blobs").mkdir(parents=True)
    (layout.root / "blobs" / "sha256").write_text("")
    with pytest.raises(StorageError, match="sha256: Not a directory"):
        _ = [each async for each in layout.blobs()]


async def test_deleting_tells_how_much_it_freed(layout: ImageLayout):
    for data in (b"one", b"three"):
        await layout.add(Digest.of(data), data)
    assert await layout.delete([Digest.of(b"one"), Digest.of(b"absent")]) == 3
    assert [each.digest async for each in layout.blobs()] == [Digest.of(b"three")]


async def test_a_good_blob_stays_and_a_bad_one_goes_to_quarantine(layout: ImageLayout):
    data = b"good" * 9_000_000
    digest, hashed = Digest.of(data), list[int]()
    await layout.add(digest, data)
    assert await layout.check(digest, hashed.append)
    assert sum(hashed) == len(data)
    assert max(hashed) < len(data)
    with layout.path(digest).open("r+b") as file:
        file.write(b"b")
    assert not await layout.in_quarantine(digest)
    assert not await layout.check(digest, hashed.append)
    assert not layout.path(digest).exists()
    assert await layout.in_quarantine(digest)
    with pytest.raises(PathUnknown):
        await layout.check(digest, hashed.append)


async def test_a_blob_that_the_disk_lost_is_a_bad_one(layout: ImageLayout, monkeypatch: pytest.MonkeyPatch):
    digest = Digest.of(b"x")
    await layout.add(digest, b"x")
    refusals = iter([PermissionError(errno.EACCES, "Permission denied"), OSError(errno.EIO, "Input/output error")])
    with monkeypatch.context() as patched:

        def readv(_fd: int, _buffers: object) -> int:
            raise next(refusals)

        patched.setattr(os, "readv", readv)
        with pytest.raises(StorageError, match="Permission denied"):
            await layout.check(digest, lambda _: None)
        assert layout.path(digest).exists()
        assert not await layout.check(digest, lambda _: None)
    assert await layout.in_quarantine(digest)


async def test_right_bytes_that_came_while_the_wrong_ones_were_hashed_stay(layout: ImageLayout):
    digest = Digest.of(b"right")
    await layout.add(digest, b"right")
    layout.path(digest).write_bytes(b"wrong")

    def replace(_count: int) -> None:
        other = layout.root / "other"
        other.write_bytes(b"right")
        other.replace(layout.path(digest))

    assert not await layout.check(digest, replace)
    assert await layout.read(digest) == b"right"
    assert not await layout.in_quarantine(digest)


async def test_a_check_that_is_cancelled_moves_nothing(layout: ImageLayout):
    digest = Digest.of(b"right")
    await layout.add(digest, b"right")
    layout.path(digest).write_bytes(b"wrong")

    def cancel(_count: int) -> None:
        checking.cancel()

    checking = asyncio.create_task(layout.check(digest, cancel))
    with pytest.raises(asyncio.CancelledError):
        await checking
    assert layout.path(digest).read_bytes() == b"wrong"


USER = """
import asyncio, sys
from pathlib import Path
from storage.layout import ImageLayout

async def main(root):
    async with ImageLayout(Path(root)).in_use():
        print("in use", flush=True)
        await asyncio.to_thread(sys.stdin.readline)

asyncio.run(main(sys.argv[1]))
"""


async def test_nobody_is_alone_while_another_process_uses_the_layout(layout: ImageLayout):
    user = await asyncio.create_subprocess_exec(sys.executable, "-c", USER, layout.root, stdin=-1, stdout=-1)
    assert user.stdout
    assert await user.stdout.readline() == b"in use\n"
    async with layout.in_use():  # beside the other one
        pass
    with pytest.raises(StorageError, match=r"another process has held .*\.use for 0 s"):
        async with ImageLayout(layout.root, lock_wait=0).alone():
            pass

    def end() -> None:
        user.kill()
        told.append(user.pid)

    told: list[int] = []
    async with layout.alone(end):
        assert told == [user.pid]
        with pytest.raises(StorageError, match="another process"):
            async with ImageLayout(layout.root, lock_wait=0).in_use():
                pass
    await user.communicate()


async def test_a_cancelled_wait_for_being_alone_lets_go(layout: ImageLayout):
    async with layout.in_use():
        waiting = asyncio.Event()

        async def alone() -> None:
            async with layout.alone(waiting.set):
                pass

        task = asyncio.create_task(alone())
        await waiting.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    async with ImageLayout(layout.root, lock_wait=0).alone():
        pass


@pytest.mark.parametrize("made", [True, False])
async def test_a_layout_that_may_only_be_read_can_be_used(
    layout: ImageLayout, monkeypatch: pytest.MonkeyPatch, made: bool
):
    if made:
        async with layout.in_use():
            pass
    opening = os.open

    def read_only(path: Path, flags: int, mode: int = 0o777, **more: int) -> int:
        if flags & os.O_CREAT:
            raise OSError(errno.EROFS, "Read-only file system")
        return opening(path, flags, mode, **more)

    monkeypatch.setattr(os, "open", read_only)
    async with layout.in_use():
        if made:
            with pytest.raises(BlockingIOError):
                fcntl.flock(opening(layout.root / ".use", os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB)
    with pytest.raises(StorageError, match="Read-only file system"):
        async with layout.alone():
            pass


async def test_a_layout_that_cannot_be_is_told_before_it_is_used(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="file"):
        async with ImageLayout(tmp_path / "file").in_use():
            pass


async def test_purge_removes_only_what_a_crash_left_long_ago(layout: ImageLayout):
    scratch = layout.root / ".ingest"
    await layout.add(Digest.of(b"x"), b"x")
    (scratch / "old").write_bytes(b"")
    (scratch / "new").write_bytes(b"")
    os.utime(scratch / "old", (time.time() - 7200, time.time() - 7200))
    await layout.purge(3600, 3600)
    assert [each.name for each in scratch.iterdir()] == ["new"]
    await ImageLayout(layout.root / "nowhere").purge(0, 0)


@pytest.mark.peer("skopeo")
@pytest.mark.parametrize("architecture", ["amd64", "arm64"])
async def test_skopeo_copies_an_image_out_of_a_sparse_index_by_its_full_name(
    layout: ImageLayout, tmp_path: Path, architecture: str
):
    name = "docker.io/diamol/ch03-web-ping:latest"
    await layout.set_name(name, await sparse_index(layout, architecture))
    command = ["skopeo", "--override-os=linux", f"--override-arch={architecture}", "copy"]
    subprocess.run([*command, f"oci:{layout.root}:{name}", f"dir:{tmp_path / 'out'}"], check=True)


async def sparse_index(layout: ImageLayout, architecture: str) -> Descriptor:
    """An index of two platforms of which one is there."""
    config = json.dumps({"os": "linux", "architecture": architecture, "rootfs": {"type": "layers", "diff_ids": []}})
    image = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": mediatypes.OCI_MANIFEST,
            "config": Descriptor(mediatypes.OCI_CONFIG, Digest.of(config.encode()), len(config)).to_json(),
            "layers": [],
        }
    )
    for each in (config, image):
        await layout.add(Digest.of(each.encode()), each.encode())
    other = "arm64" if architecture == "amd64" else "amd64"
    children = [
        Descriptor(mediatypes.OCI_MANIFEST, Digest.of(b"absent"), 6, Platform("linux", other)),
        Descriptor(mediatypes.OCI_MANIFEST, Digest.of(image.encode()), len(image), Platform("linux", architecture)),
    ]
    index = json.dumps(
        {"schemaVersion": 2, "mediaType": mediatypes.OCI_INDEX, "manifests": [each.to_json() for each in children]}
    ).encode()
    await layout.add(Digest.of(index), index)
    return Descriptor(mediatypes.OCI_INDEX, Digest.of(index), len(index))


async def test_partial_downloads_expire_unless_somebody_holds_them(layout: ImageLayout):
    kept, held, old = (Digest.of(each) for each in (b"kept", b"held", b"old"))
    async with Partials(layout.root).opened(held, 9):
        for digest in (kept, old):
            async with Partials(layout.root).opened(digest, 9):
                pass
        for digest in (held, old):
            for path in (folder_of(layout.root, digest), *folder_of(layout.root, digest).iterdir()):
                os.utime(path, (1, 1))
        await layout.purge(0, 3600)
        assert [folder_of(layout.root, each).exists() for each in (kept, held, old)] == [True, True, False]
