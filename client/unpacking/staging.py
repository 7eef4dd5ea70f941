"""A folder that is filled out of sight, beside its place, and appears there whole or not at all."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from uuid import uuid4

from ocispec.errors import StorageError
from storage.ingest import storage_errors
from storage.threads import acquire, finish

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Stage:
    """The folder while it is filled; nobody else can enter it. Everything blocks.

    Attributes:
        folder: where it will appear; symlinks in what the caller named are resolved.
        fd: descriptor of the folder that is filled.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(os.path.realpath(folder))
        with storage_errors(self.folder):
            _expect_room(self.folder)
        with storage_errors(self.folder.parent):
            self._parent = os.open(self.folder.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._name = f".pullclient-{uuid4().hex}"
        try:
            with storage_errors(self.folder):
                os.mkdir(self._name, 0o700, dir_fd=self._parent)
                self.fd = os.open(self._name, _FOLDER, dir_fd=self._parent)
        except StorageError:
            os.close(self._parent)
            raise

    def commit(self) -> None:
        """Lets the folder appear in its place.

        Raises:
            StorageError: something else appeared there meanwhile.
        """
        with storage_errors(self.folder):
            os.rename(self._name, self.folder.name, src_dir_fd=self._parent, dst_dir_fd=self._parent)

    def close(self) -> None:
        """Removes what was not committed."""
        os.close(self.fd)
        try:
            with storage_errors(self.folder), suppress(FileNotFoundError):
                self._remove()
        finally:
            os.close(self._parent)

    def _remove(self) -> None:
        try:
            shutil.rmtree(self._name, dir_fd=self._parent)
        except PermissionError:
            # Some folders have got their modes already, which may forbid it even to their owner.
            for _, names, _, fd in os.fwalk(self._name, dir_fd=self._parent):
                for name in names:
                    if stat.S_ISDIR(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode):
                        os.chmod(name, 0o700, dir_fd=fd, follow_symlinks=False)
            shutil.rmtree(self._name, dir_fd=self._parent)


@asynccontextmanager
async def staged(folder: str | os.PathLike[str]) -> AsyncIterator[Stage]:
    """Gives a stage for a folder that is not there or empty; what is not committed is gone afterwards.

    Raises:
        StorageError: the folder has content, is a mount point or none at all, or its parent cannot be written.
    """
    stage = await acquire(Stage.close, Stage, Path(folder))
    try:
        yield stage
    finally:
        await finish(stage.close)


def _expect_room(folder: Path) -> None:
    try:
        with os.scandir(folder) as inside:
            if next(inside, None) is not None:
                raise StorageError(f"{folder} is not empty: expected a new or an empty folder")
    except FileNotFoundError:
        return
    except NotADirectoryError as error:
        raise StorageError(f"{folder} is no folder: expected a new or an empty one") from error
    # The whole folder takes its place; nobody would see that in the old one.
    if folder.is_mount() or folder.samefile(Path.cwd()):
        what = "a mount point" if folder.is_mount() else "the present folder"
        raise StorageError(f"{folder} is {what}, which cannot be replaced: name a new folder inside it")
