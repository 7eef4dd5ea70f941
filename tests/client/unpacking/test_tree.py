"""How layers add up (image-spec, layer.md)."""

from __future__ import annotations

import errno
import os
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from ocispec.errors import LayerInvalid
from tests.client.unpacking.making import TIME, device, fifo, file, folder, hard_link, symlink, tar, tree


def names(root: Path) -> list[str]:
    return sorted(str(each.relative_to(root)) for each in root.rglob("*"))


def test_a_file_has_everything_its_entry_tells(grow: Callable):
    out = grow()
    xattrs = {"user.note": "a", "trusted.note": "b"}
    out.put(tar(file("bin/su", "program", 0o4751, uid=12, gid=34, mtime=TIME + 0.5, xattrs=xattrs)))
    mode, uid, gid, time, content, found, _ = tree(out.end())["bin/su"]
    assert (mode, uid, gid, content) == ("0o104751", 12, 34, b"program")
    assert time == TIME * 10**9 + 500_000_000
    assert found == {"user.note": b"a", "trusted.note": b"b"}


def test_capabilities_outlive_the_change_of_the_owner(grow: Callable):
    info, _ = file("ping", mode=0o755, uid=5)
    value = b"\x01\x00\x00\x02\x00\x20\x00\x00" + bytes(12)
    record = b" SCHILY.xattr.security.capability=" + value + b"\n"
    record = str(len(record) + 2).encode() + record
    pax = tarfile.TarInfo("pax")
    pax.type, pax.size = tarfile.XHDTYPE, len(record)
    head = pax.tobuf() + record.ljust(512, b"\0")
    out = grow()
    out.put(head + info.tobuf() + bytes(1024))
    assert os.getxattr(out.end() / "ping", "security.capability") == value


def test_every_kind_of_entry_is_made(grow: Callable):
    out = grow()
    out.put(
        tar(
            fifo("fifo", mode=0o1666, uid=3),
            device("null", 1, 3, uid=4, xattrs={"trusted.x": "1"}),
            device("disk", 8, 1, tarfile.BLKTYPE),
            symlink("link", "no/where", uid=5, gid=6, xattrs={"trusted.x": "1"}),
            folder("sticky", 0o1777),
            hard_link("same", "link"),
        )
    )
    found = tree(out.end())
    assert found["fifo"][:4] == ("0o11666", 3, 0, TIME * 10**9)
    assert found["null"][:6] == ("0o20620", 4, 0, TIME * 10**9, os.makedev(1, 3), {"trusted.x": b"1"})
    assert found["disk"][0] == "0o60620"
    assert found["link"] == ("0o120777", 5, 6, TIME * 10**9, "no/where", {"trusted.x": b"1"}, ("link", "same"))
    assert found["sticky"][0] == "0o41777"


def test_times_of_folders_are_set_last(grow: Callable):
    out = grow()
    out.put(tar(folder("./", mtime=1), folder("a", mtime=2), folder("a/b", mtime=3), file("a/b/c"), file("a/d")))
    out.put(tar(file("a/b/.wh.c"), file("a/e")))
    found = {name: told[3] // 10**9 for name, told in tree(out.end()).items()}
    assert (found["."], found["a"], found["a/b"]) == (1, 2, 3)


def test_an_image_has_one_tree(grow: Callable):
    """Folders that no layer tells of have the same time wherever, and whenever, it is unpacked."""
    trees = []
    for _ in range(2):
        out = grow()
        out.put(tar(file("a/b/c")))
        trees.append(tree(out.end()))
    assert trees[0] == trees[1]
    assert trees[0]["a"][3] == 0


def test_a_later_layer_replaces(grow: Callable):
    out = grow()
    out.put(
        tar(file("f", "old"), folder("d", xattrs={"user.x": "1"}), file("d/kept"), symlink("s", "f"), file("g", "1"))
    )
    out.put(tar(file("f", "new"), folder("d", 0o711), symlink("g", "f"), file("s", "file")))
    root = out.end()
    assert (root / "f").read_text() == "new"
    assert (root / "s").read_text() == "file"
    assert (root / "g").readlink() == Path("f")
    assert (root / "d/kept").exists()
    assert tree(root)["d"][:1] == ("0o40711",)
    assert os.listxattr(root / "d") == []


def test_a_file_takes_the_place_of_a_folder_and_back(grow: Callable):
    out = grow()
    out.put(tar(folder("x"), file("x/below/deep"), file("x", "file"), folder("x"), file("x/other")))
    assert names(out.root) == ["x", "x/other"]
    out.put(tar(file("x"), folder("y"), symlink("y", "x"), fifo("y"), folder("y"), file("y/z")))
    assert names(out.end()) == ["x", "y", "y/z"]


def test_a_whiteout_hides_what_lies_below(grow: Callable):
    out = grow()
    out.put(tar(file("a"), file("b/c/d"), symlink("l", "a"), file("keep")))
    out.put(tar(file(".wh.a"), file(".wh.b"), file(".wh.l"), file("no/.wh.such"), file(".wh.nothing")))
    assert names(out.end()) == ["keep"]


@pytest.mark.parametrize("first", [True, False])
def test_a_whiteout_spares_its_own_layer(grow: Callable, *, first: bool):
    out = grow()
    out.put(tar(file("a", "old"), file("d/old"), file("d/e/old"), folder("d", 0o700)))
    whiteouts, others = [file(".wh.a"), file(".wh.d")], [file("a", "new"), file("d/e/new")]
    out.put(tar(*(whiteouts + others if first else others + whiteouts)))
    root = out.end()
    assert names(root) == ["a", "d", "d/e", "d/e/new"]
    assert (root / "a").read_text() == "new"
    assert (root / "d").stat().st_mode & 0o7777 == 0o755


@pytest.mark.parametrize("first", [True, False])
def test_an_opaque_folder_hides_all_that_lies_below(grow: Callable, *, first: bool):
    out = grow()
    out.put(tar(file("a/b/c/bar"), file("a/x"), file("z")))
    others = [folder("a", 0o711), folder("a/b"), folder("a/b/c"), file("a/b/c/foo")]
    opaque = [file("a/.wh..wh..opq")]
    out.put(tar(*(opaque + others if first else others + opaque)))
    root = out.end()
    assert names(root) == ["a", "a/b", "a/b/c", "a/b/c/foo", "z"]
    assert (root / "a").stat().st_mode & 0o7777 == 0o711


def test_the_root_may_be_opaque(grow: Callable):
    out = grow()
    out.put(tar(file("a"), file("b/c")), tar(file(".wh..wh..opq"), file("d")), tar(file("nowhere/.wh..wh..opq")))
    assert names(out.end()) == ["d"]


def test_what_aufs_kept_for_itself_is_passed_over(grow: Callable):
    out = grow()
    out.put(tar(file(".wh..wh.aufs", "x"), folder(".wh..wh.plnk"), file(".wh..wh.plnk/1.2", "x"), file("a")))
    assert names(out.end()) == ["a"]


def test_nothing_lies_in_a_whiteout(grow: Callable):
    with pytest.raises(LayerInvalid, match=r"'\.wh\.d/x': lies in a whiteout"):
        grow().put(tar(file(".wh.d/x")))


def test_symlinks_to_folders_lead_within_the_root(grow: Callable):
    """As debian has it since /lib is a symlink: an earlier layer's link, a later layer's file."""
    out = grow()
    out.put(
        tar(folder("usr/lib"), symlink("lib", "usr/lib"), symlink("abs", "/usr/lib/../lib"), symlink("up", "../.."))
    )
    out.put(tar(file("lib/one"), file("abs/two"), file("up/usr/three"), symlink("new", "made/later"), file("new/four")))
    out.put(tar(file("lib/.wh.two")))
    assert {"usr/lib/one", "usr/three", "made/later/four"} <= set(names(out.end()))
    assert not (out.root / "usr/lib/two").exists()


def test_a_hard_link_through_a_symlinked_folder_stays_inside(grow: Callable):
    out = grow()
    out.put(tar(file("usr/lib/a", "x"), symlink("lib", "/usr/lib"), hard_link("b", "lib/a"), hard_link("lib/c", "./b")))
    found = tree(out.end())
    assert found["b"][6] == ("b", "usr/lib/a", "usr/lib/c")


def test_a_file_that_was_archived_twice_is_linked_to_itself(grow: Callable):
    out = grow()
    out.put(tar(file("a", "x"), hard_link("a", "a")))
    assert (out.end() / "a").read_text() == "x"


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("nothing", "'l': expected a link to a file, 'nothing' is missing"),
        ("l", "'l': expected a link to a file, 'l' is missing"),
        ("l/f", "'l': expected a link to a file, 'l/f' is none"),
        ("d", "'l': expected a link to a file, 'd' is none"),
        ("/", "'l': expected a link to a file, '/' is none"),
        ("no/where", "'l': expected a link to a file, 'no/where' is none"),
    ],
)
def test_a_hard_link_to_what_is_no_file_is_refused(grow: Callable, target: str, message: str):
    with pytest.raises(LayerInvalid) as caught:
        grow().put(tar(folder("d"), hard_link("l", target)))
    assert caught.value.message == message


def test_a_hard_link_that_takes_its_own_folder_away_is_refused(grow: Callable):
    with pytest.raises(LayerInvalid, match="'d/f' is missing"):
        grow().put(tar(file("d/f"), hard_link("d", "d/f")))


def test_a_file_is_no_folder(grow: Callable):
    with pytest.raises(LayerInvalid, match="'f': expected a folder, a file has that name"):
        grow().put(tar(file("f"), file("f/x")))


def test_attributes_of_overlayfs_are_left_out(grow: Callable):
    out = grow()
    out.put(tar(folder("d", xattrs={"trusted.overlay.opaque": "y", "user.overlay.redirect": "/x", "user.x": "1"})))
    assert os.listxattr(out.end() / "d") == ["user.x"]
    assert str(out.tree.omitted) == "2 extended attributes"


def test_attributes_the_file_system_does_not_have_are_left_out(grow: Callable):
    out = grow()
    out.put(tar(file("f", xattrs={"no-such-kind.x": "1", "user.x": "1"}), fifo("p", xattrs={"user.no": "1"})))
    assert os.listxattr(out.end() / "f") == ["user.x"]
    assert out.tree.omitted.xattrs == 2


def test_other_errors_are_not_taken_for_missing_privileges(grow: Callable, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "setxattr", full)
    with pytest.raises(OSError, match="No space left"):
        grow().put(tar(file("f", xattrs={"user.x": "1"})))


def test_a_device_that_may_not_be_made_is_left_out(grow: Callable, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "mknod", refuse)
    out = grow()
    out.put(tar(file("null", "old"), device("null", 1, 3), file("after")))
    assert names(out.end()) == ["after"]
    assert str(out.tree.omitted) == "1 device"


def test_attributes_of_folders_are_bounded(grow: Callable):
    many = [folder(f"d{n}", xattrs={"user.x": "x" * 60_000}) for n in range(300)]
    with pytest.raises(LayerInvalid, match="take more than 16777216 bytes"):
        grow().put(tar(*many))


def test_a_default_acl_does_not_leak_into_what_comes_later(grow: Callable):
    """A folder's default ACL would be inherited by files that were archived without one."""
    info = folder("d")
    out = grow()
    out.put(tar(info))
    acl = b"\x02\0\0\0" + b"".join(
        tag + perm + b"\0\xff\xff\xff\xff" for tag, perm in ((b"\x01\0", b"\7"), (b"\x04\0", b"\7"), (b"\x20\0", b"\7"))
    )
    out.put(_with_xattr(b"d/", b"system.posix_acl_default", acl) + tar(file("d/f")))
    root = out.end()
    assert os.listxattr(root / "d") == ["system.posix_acl_default"]
    assert os.listxattr(root / "d/f") == []
    assert stat.S_IMODE((root / "d/f").stat().st_mode) == 0o644


def _with_xattr(name: bytes, key: bytes, value: bytes) -> bytes:
    record = b" SCHILY.xattr." + key + b"=" + value + b"\n"
    record = str(len(record) + 2).encode() + record
    pax = tarfile.TarInfo("pax")
    pax.type, pax.size = tarfile.XHDTYPE, len(record)
    info = tarfile.TarInfo(name.decode())
    info.type, info.mode = tarfile.DIRTYPE, 0o755
    return pax.tobuf() + record.ljust(512, b"\0") + info.tobuf()


@pytest.mark.parametrize("kind", ["fifo", "device", "folder", "missing", "circle"])
def test_only_a_file_is_read_as_one(grow: Callable, kind: str):
    made = {"fifo": [fifo("x")], "device": [device("x", 1, 5)], "folder": [folder("x")], "missing": []}
    out = grow()
    out.put(tar(*made.get(kind, [symlink("x", "..")])))
    assert out.tree.read(b"x", 10) == b""
    assert out.tree.read(b"x/y/z", 10) == b""


def test_a_file_is_read_through_symlinks_in_the_tree(grow: Callable):
    out = grow()
    out.put(
        tar(file("usr/etc/passwd", "root:x:0:0"), symlink("etc", "usr/etc"), symlink("usr/etc/p", "../../etc/passwd"))
    )
    assert out.tree.read(b"etc/passwd", 6) == b"root:x"
    assert out.tree.read(b"etc/p", 100) == b"root:x:0:0"
