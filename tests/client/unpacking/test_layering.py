"""Random stacks of layers, against a model that does what image-spec's layer.md says, in the simplest way."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from client.unpacking.folders import DEFAULT
from ocispec.errors import LayerInvalid
from tests.client.unpacking import making
from tests.client.unpacking.conftest import Growing

NAMES = st.lists(st.sampled_from("abc"), min_size=1, max_size=3).map("/".join)
TARGETS = st.lists(st.sampled_from(["a", "b", "c", "..", ".", ""]), min_size=1, max_size=4).map("/".join).filter(bool)


@dataclass(frozen=True)
class Item:
    """An entry: its kind, its name, what it says besides."""

    kind: str
    name: str
    says: Any = None

    def member(self) -> making.Member:
        match self.kind:
            case "file":
                return making.file(self.name, f"{self.says}", 0o600 + self.says)
            case "folder":
                return making.folder(self.name, 0o700 + self.says)
            case "symlink":
                return making.symlink(self.name, self.says)
            case "hard link":
                return making.hard_link(self.name, self.says)
            case "whiteout":
                head, _, tail = self.name.rpartition("/")
                return making.file(f"{head}/.wh.{tail}" if head else f".wh.{tail}")
            case _:
                return making.file(f"{self.name}/.wh..wh..opq")


PLAIN = st.one_of(
    st.builds(Item, st.just("file"), NAMES, st.integers(0, 7)),
    st.builds(Item, st.just("folder"), NAMES, st.integers(0, 7)),
)
LINKS = st.one_of(
    st.builds(Item, st.just("symlink"), NAMES, TARGETS), st.builds(Item, st.just("hard link"), NAMES, NAMES)
)
WHITEOUTS = st.builds(Item, st.sampled_from(["whiteout", "opaque"]), NAMES)


@dataclass(eq=False)
class File:
    mode: int
    data: str


@dataclass(eq=False)
class Link:
    target: str


@dataclass(eq=False)
class Dir:
    mode: int = DEFAULT.mode
    inside: dict[str, Any] = field(default_factory=dict)


class RefusedError(Exception):
    """The layer cannot be put there."""


class Model:
    """A tree of objects; every path is resolved name by name, from its beginning."""

    def __init__(self) -> None:
        self.root = Dir()

    def put(self, layer: list[Item]) -> None:
        for each in layer:
            if each.kind in ("whiteout", "opaque"):
                self.hide(each)
        for each in layer:
            if each.kind not in ("whiteout", "opaque"):
                self.place(each)

    def hide(self, item: Item) -> None:
        names = item.name.split("/")
        found = self.walk(names if item.kind == "opaque" else names[:-1], make=False)
        if found and item.kind == "opaque":
            found.inside.clear()
        elif found:
            found.inside.pop(names[-1], None)

    def place(self, item: Item) -> None:
        *above, name = item.name.split("/")
        if item.kind == "hard link":
            *source_above, source = item.says.split("/")
            origin = self.walk(source_above, make=False)
            if not origin or not isinstance(origin.inside.get(source), File | Link):
                raise RefusedError
            parent, node = self.walk(above, make=True), origin.inside[source]
            if self.holds(parent.inside.get(name), origin) or origin.inside.get(source) is not node:
                raise RefusedError
        else:
            parent = self.walk(above, make=True)
            node = {"file": File, "folder": Dir, "symlink": Link}[item.kind](
                *((0o600 + item.says, str(item.says)) if item.kind == "file" else ()),
                *((0o700 + item.says,) if item.kind == "folder" else ()),
                *((item.says,) if item.kind == "symlink" else ()),
            )
        there = parent.inside.get(name)
        if isinstance(there, Dir) and isinstance(node, Dir):
            there.mode = node.mode
        else:
            parent.inside[name] = node

    def holds(self, node: Any, wanted: Dir) -> bool:
        return isinstance(node, Dir) and (node is wanted or any(self.holds(e, wanted) for e in node.inside.values()))

    def walk(self, names: list[str], *, make: bool) -> Any:
        path, links, todo = [self.root], 0, list(names)
        while todo:
            name = todo.pop(0)
            if name == "..":
                path = path[:-1] or [self.root]
                continue
            there = path[-1].inside.get(name)
            if isinstance(there, Dir):
                path.append(there)
            elif isinstance(there, Link):
                links += 1
                if links > 40:
                    raise RefusedError
                path = [self.root] if there.target.startswith("/") else path
                todo = [each for each in there.target.split("/") if each not in ("", ".")] + todo
            elif there is None and make:
                path[-1].inside[name] = Dir()
                path.append(path[-1].inside[name])
            elif make:
                raise RefusedError
            else:
                return None
        return path[-1]

    def told(self) -> dict[str, Any]:
        found, names = {}, {}
        for path, node in self.listed(self.root, ""):
            names.setdefault(id(node), []).append(path)
            match node:
                case File():
                    found[path] = (oct(0o100000 + node.mode), node.data.encode(), names[id(node)])
                case Link():
                    found[path] = (oct(0o120777), os.path.normpath(node.target), names[id(node)])
                case Dir():
                    found[path] = (oct(0o040000 + node.mode), None, names[id(node)])
        return {path: (mode, data, tuple(sorted(same))) for path, (mode, data, same) in found.items()}

    def listed(self, node: Any, path: str) -> Iterator[tuple[str, Any]]:
        yield path or ".", node
        for name, each in node.inside.items() if isinstance(node, Dir) else ():
            yield from self.listed(each, f"{path}/{name}" if path else name)


def unpacked(layers: list[list[Item]]) -> dict[str, Any]:
    """What really comes out."""
    place = Path(tempfile.mkdtemp())
    try:
        growing = Growing(place / "out")
        try:
            growing.put(*(making.tar(*(each.member() for each in layer)) for layer in layers))
            found = making.tree(growing.end())
        finally:
            growing.tree.close()
        assert [each.name for each in place.iterdir()] == ["out"]
        return {
            path: (told[0], os.path.normpath(told[4]) if isinstance(told[4], str) else told[4], tuple(sorted(told[6])))
            for path, told in found.items()
        }
    finally:
        shutil.rmtree(place)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(st.lists(WHITEOUTS, max_size=3), st.lists(st.one_of(PLAIN, LINKS), max_size=6)),
        min_size=1,
        max_size=4,
    )
)
def test_layers_add_up_as_the_specification_says(stack: list[tuple[list[Item], list[Item]]]):
    layers = [whiteouts + others for whiteouts, others in stack]
    model = Model()
    try:
        for each in layers:
            model.put(each)
    except RefusedError:
        try:
            unpacked(layers)
        except LayerInvalid:
            return
        raise AssertionError("expected a refusal") from None
    assert unpacked(layers) == model.told()


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(st.one_of(PLAIN, WHITEOUTS), max_size=7), min_size=2, max_size=3))
def test_where_in_its_layer_a_whiteout_stands_changes_nothing(layers: list[list[Item]]):
    model = Model()
    try:
        for each in layers:
            model.put(each)
        found = unpacked(layers)
    except (RefusedError, LayerInvalid):
        assume(False)
    assert found == model.told()
