"""The same image, unpacked by umoci."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from client.caching.cache import Cache
from client.unpacking.unpacking import unpack
from ocispec import mediatypes
from tests.client.unpacking.making import TIME, device, fifo, file, folder, hard_link, image, symlink, tar, tree
from tests.support.processes import run

BASE = [
    folder("./", mtime=TIME),
    folder("usr", 0o755, mtime=TIME + 1),
    folder("usr/lib", 0o700, uid=7, gid=8, mtime=TIME + 2, xattrs={"user.note": "x"}),
    file("usr/lib/su", "program", 0o4755, uid=5, gid=6, mtime=TIME + 0.25, xattrs={"user.a": "b", "trusted.c": "d"}),
    file("usr/lib/gid", "program", 0o2711, uid=5, gid=6),
    hard_link("usr/again", "usr/lib/su"),
    symlink("lib", "usr/lib", uid=3, gid=4, mtime=TIME + 9),
    symlink("out", "/etc/passwd"),
    symlink("up", "../../../.."),
    fifo("fifo", 0o640, uid=1),
    folder("dev"),
    device("dev/null", 1, 3),
    device("dev/disk", 8, 1, tarfile.BLKTYPE, gid=6),
    folder("tmp", 0o1777),
    folder("opaque"),
    file("opaque/one", "1"),
    file("opaque/deep/two", "2"),
    file("gone", "x"),
    folder("gone-too"),
    file("gone-too/x"),
    folder("becomes-file"),
    file("becomes-file/x"),
    file("becomes-folder", "x"),
    file("ümläut ☃ " + "long" * 40, "x"),
    file("empty"),
]
SECOND = [
    folder("opaque", 0o711, mtime=TIME + 5),
    file("opaque/.wh..wh..opq"),
    file("opaque/new", "3"),
    file(".wh.gone"),
    file(".wh.gone-too"),
    file("becomes-file", "now"),
    folder("becomes-folder", mtime=TIME + 6),
    file("becomes-folder/y", "z"),
    folder("usr", 0o750, mtime=TIME + 7),
    file("usr/lib/su", "other", 0o755),
    symlink("empty", "usr"),
    file("root", "x" * 100_000, mtime=TIME - 2**31),
]
THIRD = [file("usr/lib/late", "x"), file("usr/.wh.again"), hard_link("usr/lib/same", "usr/lib/late")]


@pytest.mark.peer("umoci")
@pytest.mark.parametrize("media_type", [mediatypes.OCI_LAYER_GZIP, mediatypes.OCI_LAYER])
async def test_umoci_makes_the_same_tree(cache: Cache, tmp_path: Path, media_type: str):
    # umoci's names of images are tags: it knows no whole reference.
    await image(cache, tar(*BASE), tar(*SECOND), tar(*THIRD), name="tree", media_type=media_type)
    run("umoci", "unpack", "--image", f"{cache.root}:tree", str(tmp_path / "umoci"))
    await unpack(cache, "tree", tmp_path / "ours")
    ours, theirs = tree(tmp_path / "ours"), tree(tmp_path / "umoci/rootfs")
    # Whatever is in an image's root, umoci gives the root itself the time of now.
    assert ours.pop(".")[:3] == theirs.pop(".")[:3]
    # So it does with folders that no entry tells of.
    assert ours.pop("opaque/deep", None) is None
    assert ours == theirs
    assert len(ours) > 20
