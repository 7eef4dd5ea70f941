"""A root file system that layers are put on, one after the other (image-spec, layer.md, "Applying Changesets").

Nothing outside of the root is ever touched, whatever the layers say: folders are opened one by one and never through
a symlink, everything else is made anew in an open folder and set through descriptors.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from client.unpacking.attributes import Omitted, make_device, set_at, set_on
from client.unpacking.folders import DEFAULT, Folder, follow, parts, resolve
from client.unpacking.headers import Entry, Kind, shown
from ocispec.errors import LayerInvalid

_WHITEOUT, _META, _OPAQUE = b".wh.", b".wh..wh.", b".wh..wh..opq"
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_MAX_TARGET = 4095
# Kept back until the end, for all folders together.
_MAX_XATTRS = 16 * 1024 * 1024

Stop = Callable[[], None]


class Tree:
    """A root file system in the making. Everything blocks; `close` it.

    Args:
        root: descriptor of an empty folder that nobody else can enter; it becomes the tree's own.
        stop: called again and again; raises to end the work.

    Attributes:
        entries: how many were put in so far, whiteouts not among them.
        size: of the files' content, in bytes.
        omitted: what was left out.
    """

    def __init__(self, root: int, stop: Stop) -> None:
        self.entries = 0
        self.size = 0
        self.omitted = Omitted()
        self._stop = stop
        self._root, self._top = root, Folder()
        self._layer = 0
        # What the present layer put where: a whiteout hides only what layers below have.
        self._fresh: dict[Folder, set[bytes]] = {}
        # The last folder that was used: most entries have the same one as the entry before.
        self._here: tuple[Folder, int] | None = None
        self._xattrs = 0

    def close(self) -> None:
        self._leave()
        os.close(self._root)

    def begin(self) -> None:
        """Begins with the next layer."""
        self._layer += 1
        self._fresh = {}

    def apply(self, entry: Entry, body: Iterator[memoryview]) -> None:
        """Puts an entry of the present layer in its place.

        Raises:
            LayerInvalid: it leads out of the tree, or to where it cannot be.
            OSError: as the system gives it.
        """
        self._stop()
        names = parts(entry.name)
        if not names:
            self._apply_root(entry)
            return
        *above, name = names
        if any(each.startswith(_META) for each in above) or (name.startswith(_META) and name != _OPAQUE):
            return  # What the AUFS of old kept for itself; docker passes over it too.
        if any(each.startswith(_WHITEOUT) for each in above):
            raise LayerInvalid(f"{shown(entry.name)}: lies in a whiteout")
        if name.startswith(_WHITEOUT):
            self._whiteout(above, name)
        else:
            self._place(above, name, entry, body)
            self.entries += 1

    def settle(self) -> None:
        """Gives the folders their attributes, when no layer is to come."""
        self._leave()
        self._settle(self._top, self._root)

    def read(self, name: bytes, limit: int) -> bytes:
        """Returns the beginning of a file in the tree, b"" where there is none; symlinks lead within the tree.

        Raises:
            LayerInvalid: symlinks lead in a circle.
        """
        found = follow(self._top, parts(name))
        return self._read(*found, limit) if found else b""

    def _read(self, parent: Folder, name: bytes, limit: int) -> bytes:
        fd = self._enter(parent)
        with suppress(FileNotFoundError):
            # Opening a device does something to it, and opening a FIFO waits for its writer.
            if stat.S_ISREG(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode):
                with open(os.open(name, _READ, dir_fd=fd), "rb") as file:  # noqa: PTH123 - a descriptor has no path
                    return file.read(limit)
        return b""

    # Entries

    def _apply_root(self, entry: Entry) -> None:
        # A symlink in place of the root lets everything after it out (CVE-2021-29136).
        if entry.kind is not Kind.FOLDER:
            raise LayerInvalid(
                f"{shown(entry.name)}: the root is a folder, got a {entry.kind.name.lower().replace('_', ' ')}"
            )
        self._tell(self._top, entry)

    def _place(self, above: Sequence[bytes], name: bytes, entry: Entry, body: Iterator[memoryview]) -> None:
        if entry.kind is Kind.HARD_LINK:
            self._link(above, name, entry)
            return
        parent = resolve(self._top, above, self._make)
        if entry.kind is Kind.FOLDER:
            self._tell(parent.folders.get(name) or self._make(parent, name, clear=True), entry)
        else:
            self._clear(parent, name)
            self._create(parent, name, entry, body)
        self._mark(parent, name)

    def _create(self, parent: Folder, name: bytes, entry: Entry, body: Iterator[memoryview]) -> None:
        fd, kind = self._enter(parent), entry.kind
        if kind is Kind.FILE:
            self._write(fd, name, entry, body)
            return
        if kind is Kind.SYMLINK:
            _check_target(entry)
            os.symlink(entry.target, name, dir_fd=fd)
            parent.symlinks[name] = entry.target
        elif kind is Kind.FIFO:
            os.mkfifo(name, 0o600, dir_fd=fd)
        elif not make_device(fd, name, kind, entry.device, self.omitted):
            return
        set_at(fd, name, kind, entry.attributes, self.omitted)

    def _write(self, folder: int, name: bytes, entry: Entry, body: Iterator[memoryview]) -> None:
        fd = os.open(name, _NEW, 0o600, dir_fd=folder)
        try:
            for piece in body:
                rest = piece
                while rest:
                    rest = rest[os.write(fd, rest) :]
            set_on(fd, entry.attributes, self.omitted)
        finally:
            os.close(fd)
        self.size += entry.size

    def _link(self, above: Sequence[bytes], name: bytes, entry: Entry) -> None:
        *source_above, source = parts(entry.target) or [b""]
        parent = resolve(self._top, above, self._make)
        origin = resolve(self._top, source_above)
        if origin is None or source in origin.folders or not source:
            raise LayerInvalid(f"{shown(entry.name)}: expected a link to a file, {shown(entry.target)} is none")
        try:
            self._link_at(origin, source, parent, name)
        except FileNotFoundError as error:
            told = f"expected a link to a file, {shown(entry.target)} is missing"
            raise LayerInvalid(f"{shown(entry.name)}: {told}") from error
        self._mark(parent, name)

    def _link_at(self, origin: Folder, source: bytes, parent: Folder, name: bytes) -> None:
        if (origin, source) == (parent, name):
            # As GNU tar writes a file that it was given twice.
            os.stat(name, dir_fd=self._enter(parent), follow_symlinks=False)
            return
        self._clear(parent, name)
        with self._opened(origin) as folder:
            # Unless told so, Python follows a symlink at the source.
            os.link(source, name, src_dir_fd=folder, dst_dir_fd=self._enter(parent), follow_symlinks=False)
        if source in origin.symlinks:
            parent.symlinks[name] = origin.symlinks[source]

    # Whiteouts

    def _whiteout(self, above: Sequence[bytes], name: bytes) -> None:
        hidden = name[len(_WHITEOUT) :]
        if hidden in (b"", b".", b".."):
            raise LayerInvalid(f"{shown(name)}: expected the name of what it hides")
        parent = resolve(self._top, above)
        if parent is None:
            return
        if name == _OPAQUE:
            self._hide_below(parent)
        else:
            self._hide(parent, hidden)

    def _hide(self, parent: Folder, name: bytes) -> None:
        """Removes what layers below the present one put there, also where the present one has it as well."""
        if name not in self._fresh.get(parent, ()):
            self._clear(parent, name)
        elif (folder := parent.folders.get(name)) is not None:
            self._hide_below(folder)
            if folder.layer != self._layer:
                folder.attributes, folder.layer = DEFAULT, self._layer

    def _hide_below(self, folder: Folder) -> None:
        with self._opened(folder) as fd:
            names = [os.fsencode(each) for each in os.listdir(fd)]  # noqa: PTH208 - a descriptor
        for name in names:
            self._stop()
            self._hide(folder, name)

    # Folders

    def _make(self, parent: Folder, name: bytes, *, clear: bool = False) -> Folder:
        if clear:
            self._clear(parent, name)
        fd = self._enter(parent)
        made = parent.add(name)
        try:
            os.mkdir(name, 0o700, dir_fd=fd)
        except FileExistsError as error:
            parent.forget(name)
            raise LayerInvalid(f"{shown(name)}: expected a folder, a file has that name") from error
        return made

    def _tell(self, folder: Folder, entry: Entry) -> None:
        self._xattrs += sum(len(name) + len(value) for name, value in entry.attributes.xattrs)
        if self._xattrs > _MAX_XATTRS:
            raise LayerInvalid(f"the extended attributes of its folders take more than {_MAX_XATTRS} bytes")
        folder.attributes, folder.layer = entry.attributes, self._layer

    def _clear(self, parent: Folder, name: bytes) -> None:
        """Removes whatever has the name."""
        # So the last folder that was used is the parent, and never one of those that go.
        fd = self._enter(parent)
        if parent.forget(name):
            shutil.rmtree(name, dir_fd=fd)
        else:
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=fd)

    def _mark(self, parent: Folder, name: bytes) -> None:
        for folder in parent.line():
            names = self._fresh.setdefault(folder, set())
            if name in names:
                return
            names.add(name)
            name = folder.name

    def _settle(self, folder: Folder, fd: int) -> None:
        self._stop()
        for name, each in folder.folders.items():
            below = os.open(name, _FOLDER, dir_fd=fd)
            try:
                self._settle(each, below)
            finally:
                os.close(below)
        set_on(fd, folder.attributes, self.omitted)

    # Descriptors

    def _enter(self, folder: Folder) -> int:
        """Returns a descriptor of the folder, good until the next call."""
        if self._here and self._here[0] is folder:
            return self._here[1]
        fd = self._open(folder)
        self._leave()
        self._here = folder, fd
        return fd

    def _leave(self) -> None:
        if self._here:
            os.close(self._here[1])
            self._here = None

    @contextmanager
    def _opened(self, folder: Folder) -> Iterator[int]:
        fd = self._open(folder)
        try:
            yield fd
        finally:
            os.close(fd)

    def _open(self, folder: Folder) -> int:
        if self._here and self._here[0] is folder.parent:
            return os.open(folder.name, _FOLDER, dir_fd=self._here[1])
        fd = os.open(".", _FOLDER, dir_fd=self._root)
        for name in folder.names():
            above = fd
            try:
                fd = os.open(name, _FOLDER, dir_fd=above)
            finally:
                os.close(above)
        return fd


def _check_target(entry: Entry) -> None:
    if not 0 < len(entry.target) <= _MAX_TARGET or b"\0" in entry.target:
        raise LayerInvalid(
            f"{shown(entry.name)}: expected a link to 1 to {_MAX_TARGET} bytes, got {shown(entry.target)}"
        )
