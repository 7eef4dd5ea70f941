"""Layers that try to get out: nothing outside of the root changes, whatever they say."""

from __future__ import annotations

import contextlib
import os
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client.unpacking.folders import MAX_DEPTH
from ocispec.errors import LayerInvalid
from tests.client.unpacking.conftest import Growing
from tests.client.unpacking.making import device, file, folder, hard_link, symlink, tar, tree


class Victim:
    """What lies beside the tree, and how it looked before."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "outside"
        self.folder.mkdir()
        self.secret = self.folder / "secret"
        self.secret.write_text("not yours")
        self.secret.chmod(0o600)
        (self.folder / "below").mkdir()
        self._around = folder
        self._before = tree(self.folder)

    def check(self) -> None:
        assert tree(self.folder) == self._before
        assert all(each.name.startswith("out") for each in self._around.iterdir())


@pytest.fixture
def victim(tmp_path: Path):
    found = Victim(tmp_path)
    yield found
    found.check()


def test_cve_2021_29136_a_symlink_in_place_of_the_root(grow: Callable, victim: Victim):
    """umoci replaced the root itself, and wrote everything after it to where the link leads."""
    for name in ("/.", ".", "./", "/", "//./"):
        with pytest.raises(LayerInvalid, match="the root is a folder, got a symlink"):
            grow().put(tar(symlink(name, str(victim.folder)), file("pwned")))


def test_cve_2021_32760_a_mode_set_through_a_link(grow: Callable, victim: Victim):
    """containerd changed the mode of a file on the host, through a hard link to a symlink to it."""
    out = grow()
    out.put(tar(symlink("link", str(victim.secret)), hard_link("again", "link", mode=0o6777, uid=65534)))
    out.put(tar(hard_link("more", "again", mode=0o6777), folder("d"), symlink("d/link", "../../outside/secret", uid=9)))
    assert (out.end() / "more").readlink() == victim.secret


def test_cve_2025_47290_a_folder_that_becomes_a_symlink_meanwhile(grow: Callable, victim: Victim, tmp_path: Path):
    """containerd checked a path, and opened it when it led elsewhere."""
    swapped: list[str] = []

    def swap() -> None:
        if (tmp_path / "out/d").is_dir() and not swapped:
            (tmp_path / "out/d").rename(tmp_path / "out/kept")
            (tmp_path / "out/d").symlink_to(victim.folder)
            swapped.append("yes")

    out = grow(stop=swap)
    for layer in (
        tar(folder("d"), file("d/secret", "pwned"), file("x"), file("d/below/pwned", "pwned")),
        tar(file("d/.wh..wh..opq")),
        tar(folder("d"), file("d/.wh.secret")),
    ):
        with pytest.raises(OSError, match=r"Not a directory|Too many levels"):
            out.put(layer)
    assert swapped


def test_cve_2025_4517_a_path_too_long_to_be_resolved(grow: Callable, victim: Victim):
    """tarfile's check gave up beyond PATH_MAX, and its write did not."""
    step, members, path = "d" * 247, [], ""
    for letter in "abcdefghijklmnop":
        members += [folder(path + step), symlink(path + letter, step)]
        path += f"{step}/"
    short = "/".join("abcdefghijklmnop")
    members += [symlink(f"{short}/{'l' * 254}", "../" * 16), symlink("escape", f"{short}/{'l' * 254}/../../outside")]
    members += [hard_link("flag", "escape/secret"), file("flag", "pwned")]
    with pytest.raises(LayerInvalid, match="'flag': expected a link to a file, 'escape/secret' is none"):
        grow().put(tar(*members))
    with pytest.raises(LayerInvalid, match="expected a name of 1 to 4096 bytes"):
        grow().put(tar(file("x/" * 3000 + "x")))


def test_cve_2025_4330_links_whose_targets_lead_out(grow: Callable, victim: Victim):
    """tarfile's filter let links to the outside through, and later entries used them."""
    out = grow()
    out.put(tar(folder("a"), symlink("a/out", "../../outside"), symlink("b", "a/out"), symlink("c", "b/..")))
    out.put(
        tar(file("b/secret", "inside"), file("c/outside/below/x", "inside"), symlink("d/link", f"{victim.folder}/"))
    )
    out.put(tar(file("d/link/secret", "inside", mode=0o777, uid=1)))
    root = out.end()
    assert (root / "outside/secret").read_text() == "inside"
    assert (root / str(victim.folder).lstrip("/") / "secret").read_text() == "inside"


def test_cve_2025_4138_a_symlink_that_is_read_through(grow: Callable, victim: Victim):
    out = grow()
    out.put(tar(symlink("etc", str(victim.folder)), symlink("passwd", "../../../../../../etc/passwd")))
    assert out.tree.read(b"etc/secret", 100) == b""
    assert out.tree.read(b"passwd", 100) == b""


def test_cve_2024_12718_times_and_modes_outside(grow: Callable, victim: Victim):
    """tarfile set mode and time of what a symlink led to, when it set those of folders at the end."""
    out = grow()
    out.put(tar(folder("d", mode=0o777, mtime=1), file("d/x")), tar(symlink("d", str(victim.folder))))
    assert (out.end() / "d").is_symlink()


def test_cve_2014_6407_links_to_outside(grow: Callable, victim: Victim):
    """docker followed symlinks and hard links of an image while it unpacked it."""
    outside = str(victim.secret)
    for target in (outside, "../outside/secret", "link/secret", f"/proc/self/root{outside}"):
        with pytest.raises(LayerInvalid):
            grow().put(tar(symlink("link", str(victim.folder)), hard_link("x", target)))


@pytest.mark.parametrize("name", ["../pwned", "a/../../pwned", "..", "a/..", "./../pwned", "/../pwned", ".wh..."])
def test_cve_2007_4559_names_that_lead_upwards(grow: Callable, victim: Victim, name: str):
    for made in (file, folder, lambda name: symlink(name, "x"), lambda name: device(name, 1, 3)):
        with pytest.raises(LayerInvalid):
            grow().put(tar(made(name)))


def test_a_whiteout_removes_nothing_outside(grow: Callable, victim: Victim):
    out = grow()
    out.put(tar(symlink("d", "../outside"), symlink("e", str(victim.folder)), symlink("up", "..")))
    out.put(tar(file("d/.wh.secret"), file("e/.wh..wh..opq"), file("d/.wh..wh..opq"), file("up/.wh.outside")))
    assert sorted(each.name for each in out.end().iterdir()) == ["d", "e", "up"]


@pytest.mark.parametrize("name", [".wh.", ".wh..", ".wh...", "d/.wh.."])
def test_a_whiteout_of_the_root_or_of_what_is_above_is_refused(grow: Callable, victim: Victim, name: str):
    with pytest.raises(LayerInvalid, match="expected the name of what it hides"):
        grow().put(tar(folder("d"), file(name)))


def test_replacing_a_symlink_by_a_file_does_not_write_through_it(grow: Callable, victim: Victim):
    out = grow()
    out.put(tar(symlink("x", str(victim.secret)), file("x", "mine"), symlink("y", str(victim.folder)), folder("y")))
    out.put(tar(file("y/secret", "mine")))
    root = out.end()
    assert (root / "x").read_text() == (root / "y/secret").read_text() == "mine"


def test_an_absolute_name_lies_in_the_root(grow: Callable, victim: Victim):
    out = grow()
    out.put(tar(file(str(victim.secret), "mine")))
    assert (out.end() / str(victim.secret).lstrip("/")).read_text() == "mine"


def test_a_zero_byte_ends_no_name_early(grow: Callable, victim: Victim):
    info = tarfile.TarInfo("x")
    info.pax_headers = {"path": "a\0b"}
    with pytest.raises(LayerInvalid, match="holds a zero byte"):
        grow().put(tar(info))


@pytest.mark.parametrize("target", ["", "x" * 4096])
def test_a_symlink_to_nothing_that_can_be_is_refused(grow: Callable, victim: Victim, target: str):
    with pytest.raises(LayerInvalid, match="expected a link to 1 to 4095 bytes"):
        grow().put(tar(symlink("x", target)))


def test_symlinks_in_a_circle_end(grow: Callable, victim: Victim):
    out = grow()
    out.put(tar(symlink("a", "b"), symlink("b", "a"), symlink("c", "c/c/c")))
    for name in ("a/x", "c/x", "b/.wh.x"):
        with pytest.raises(LayerInvalid, match="more than 40 symlinks on the way"):
            out.put(tar(file(name)))
    with pytest.raises(LayerInvalid, match="more than 40 symlinks on the way"):
        out.tree.read(b"a", 10)


def test_a_tree_cannot_grow_deeper_than_it_can_be_removed(grow: Callable, victim: Victim):
    out = grow()
    out.put(tar(folder("/".join("d" * MAX_DEPTH)), symlink("s", "d/" * 100)))
    with pytest.raises(LayerInvalid, match="lies more than 256 folders deep"):
        out.put(tar(folder("s/" + "/".join("e" * MAX_DEPTH))))


def test_a_part_of_a_name_that_no_file_can_have_is_refused(grow: Callable, victim: Victim):
    with pytest.raises(LayerInvalid, match="a part of the name is longer than 255 bytes"):
        grow().put(tar(file("x" * 256)))


def test_what_a_user_outside_may_not_enter_stays_closed_until_the_end(grow: Callable, victim: Victim):
    """A program with set-id bits could be started by anybody before the tree is whole."""
    out = grow()
    out.put(tar(folder("./", mode=0o777), folder("d", mode=0o777), file("d/su", mode=0o4755)))
    assert (out.root / "d").stat().st_mode & 0o7777 == 0o700
    assert (out.end() / "d").stat().st_mode & 0o7777 == 0o777


@pytest.mark.parametrize("made", [file, lambda name: symlink(name, "x"), folder, lambda name: device(name, 1, 3)])
def test_a_name_taken_by_somebody_else_meanwhile_is_not_written_through(
    grow: Callable, victim: Victim, monkeypatch: pytest.MonkeyPatch, made: Callable
):
    """Between the look at a name and its making, a link appears there."""

    def unlink(name: bytes, *, dir_fd: int) -> None:
        with contextlib.suppress(FileNotFoundError):
            real(name, dir_fd=dir_fd)
        if name == b"x":
            os.symlink(victim.secret, name, dir_fd=dir_fd)

    real = os.unlink
    monkeypatch.setattr(os, "unlink", unlink)
    with pytest.raises((LayerInvalid, FileExistsError)):
        grow().put(tar(made("x")))


PARTS = st.sampled_from(
    ["a", "b", "c", "..", ".", "", "secret", "outside", ".wh.a", ".wh..wh..opq", ".wh...", ".wh.secret"]
)
PATHS = st.lists(PARTS, min_size=1, max_size=5).map("/".join)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_no_layer_at_all_gets_out(data: st.DataObject):
    with tempfile.TemporaryDirectory() as where:
        victim = Victim(Path(where))
        targets = st.one_of(
            PATHS, st.sampled_from([str(victim.folder), str(victim.secret), "../outside", "/", "../.."])
        )
        names = st.one_of(PATHS, st.just(f"{victim.folder}/secret"))
        member = st.one_of(
            st.builds(symlink, names, targets),
            st.builds(hard_link, names, targets, st.just(0o6777)),
            st.builds(file, names, st.just(b"pwned"), st.just(0o6777)),
            st.builds(folder, names, st.just(0o777)),
            st.builds(lambda name: device(name, 1, 3), names),
        )
        out = Growing(Path(where) / "out")
        try:
            for each in data.draw(st.lists(member, min_size=1, max_size=15)):
                with contextlib.suppress(LayerInvalid):
                    out.put(tar(each))
            with contextlib.suppress(LayerInvalid):
                assert b"not yours" not in out.tree.read(data.draw(PATHS).encode(), 100)
            out.end()
        finally:
            out.tree.close()
        victim.check()
