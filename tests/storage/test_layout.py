"""The image layout: names are never lost, blobs are whole, and skopeo reads it (image-spec, image-layout.md)."""

from __future__ import annotations

import asyncio
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


async def test_purge_removes_only_what_a_crash_left_long_ago(layout: ImageLayout):
    scratch = layout.root / ".ingest"
    await layout.add(Digest.of(b"x"), b"x")
    (scratch / "old").write_bytes(b"")
    (scratch / "new").write_bytes(b"")
    os.utime(scratch / "old", (time.time() - 7200, time.time() - 7200))
    await layout.purge(3600)
    assert [each.name for each in scratch.iterdir()] == ["new"]
    await ImageLayout(layout.root / "nowhere").purge(0)


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
