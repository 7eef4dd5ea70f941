"""The folders and symlinks of a tree that is put together, and how a name in an image leads to one of them.

They are kept in memory, so that no name an image gives is ever handed to the system as a path: a name is resolved here
as a chroot into the tree would resolve it, and what comes out is opened folder by folder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import overload

from client.unpacking.headers import Attributes, shown
from ocispec.errors import LayerInvalid

MAX_DEPTH = 256
MAX_LINKS = 40  # as Linux has it
MAX_NAME = 255
MAX_PATH = 4096

DEFAULT = Attributes(0o755)


@dataclass(eq=False, slots=True)
class Folder:
    """A folder in the tree.

    Attributes:
        name: in its parent; empty for the root.
        parent: None for the root.
        depth: how many folders lie above it.
        attributes: set at the very end: what is put into a folder changes its time, and its mode may forbid to.
        layer: number of the layer that told them.
        folders: by name.
        symlinks: target by name.
    """

    name: bytes = b""
    parent: Folder | None = None
    depth: int = 0
    attributes: Attributes = DEFAULT
    layer: int = 0
    folders: dict[bytes, Folder] = field(default_factory=dict)
    symlinks: dict[bytes, bytes] = field(default_factory=dict)

    def add(self, name: bytes) -> Folder:
        """Returns a new folder in this one.

        Raises:
            LayerInvalid: it would lie too deep.
        """
        if self.depth >= MAX_DEPTH:
            raise LayerInvalid(f"{shown(name)} lies more than {MAX_DEPTH} folders deep")
        self.folders[name] = Folder(name, self, self.depth + 1)
        return self.folders[name]

    def forget(self, name: bytes) -> bool:
        """Drops what has a name here; returns whether it was a folder."""
        self.symlinks.pop(name, None)
        return self.folders.pop(name, None) is not None

    def names(self) -> list[bytes]:
        """Returns the names that lead to it from the root."""
        return [each.name for each in self.line()][-2::-1]

    def line(self) -> Iterator[Folder]:
        """Yields it and the folders above, the root last."""
        here: Folder | None = self
        while here:
            yield here
            here = here.parent


Make = Callable[[Folder, bytes], Folder]


def parts(name: bytes) -> list[bytes]:
    """Returns the names a path consists of, none for the root; a path from `/` begins at the root as well.

    Raises:
        LayerInvalid: it is empty, too long, or has a part that is `..` or no file's name.
    """
    if not name or len(name) > MAX_PATH:
        raise LayerInvalid(f"{shown(name)}: expected a name of 1 to {MAX_PATH} bytes, got {len(name)}")
    if b"\0" in name:
        raise LayerInvalid(f"{shown(name)}: a name holds a zero byte")
    found = split(name)
    if b".." in found:
        raise LayerInvalid(f"{shown(name)}: a name must not lead upwards")
    if any(len(each) > MAX_NAME for each in found):
        raise LayerInvalid(f"{shown(name)}: a part of the name is longer than {MAX_NAME} bytes")
    return found


def split(path: bytes) -> list[bytes]:
    return [each for each in path.split(b"/") if each not in (b"", b".")]


@overload
def resolve(start: Folder, names: Sequence[bytes], make: Make) -> Folder: ...
@overload
def resolve(start: Folder, names: Sequence[bytes]) -> Folder | None: ...
def resolve(start: Folder, names: Sequence[bytes], make: Make | None = None) -> Folder | None:
    """Returns the folder that `names` lead to from the root `start`; symlinks lead within the tree, `/` being the root.

    Args:
        start: the root.
        names: of folders, or symlinks to them.
        make: makes a folder that is missing; where there is none, the answer is None.

    Raises:
        LayerInvalid: more than `MAX_LINKS` symlinks, as in a circle; or `make` refuses.
    """
    here, links, todo = start, 0, list(reversed(names))
    while todo:
        name = todo.pop()
        if name == b"..":
            here = here.parent or start
        elif name in here.folders:
            here = here.folders[name]
        elif (target := here.symlinks.get(name)) is not None:
            links += 1
            if links > MAX_LINKS:
                raise LayerInvalid(f"{shown(b'/'.join(names))}: more than {MAX_LINKS} symlinks on the way")
            here = start if target.startswith(b"/") else here
            todo += reversed(split(target))
        elif make is None:
            return None
        else:
            here = make(here, name)
    return here


def follow(start: Folder, names: Sequence[bytes]) -> tuple[Folder, bytes] | None:
    """Like `resolve`, for a file whose own name may be a symlink's too: its folder and its name there.

    None where a folder on the way is missing, or a symlink leads to a folder.
    """
    for _ in range(MAX_LINKS):
        if not names or names[-1] == b"..":
            return None
        parent = resolve(start, names[:-1])
        target = parent.symlinks.get(names[-1]) if parent else None
        if parent is None or target is None:
            return (parent, names[-1]) if parent else None
        names = ([] if target.startswith(b"/") else parent.names()) + split(target)
    raise LayerInvalid(f"{shown(b'/'.join(names))}: more than {MAX_LINKS} symlinks on the way")
