"""The engine: where bytes rest, under paths. `tests/conformance/test_engine.py` holds every engine to this contract.

A path is relative, `/`-separated, and made by `storage.paths` alone, out of validated values. An object is a sequence
of bytes at a path. Folders are no things of their own: they exist while something lies below them.

- **Whole or not at all.** `write` and `move` replace what was there in one step; a reader sees the former bytes or
  the new ones, never a mixture, and one who has opened an object keeps reading the bytes that he opened.
- **Durable when it returns.** After `write`, `move` and `delete` the result survives `kill -9` and power loss, unless
  `write` or `delete` was told that it need not.
- **Growing.** Only an upload grows, and only through `append`. One appender at a time holds an object, in whichever
  process. What it wrote outlives `kill -9` and is found by the next appender, in whichever process; power may take
  the end of it away. An engine whose store cannot append (an object store) keeps numbered parts under the path, folds
  the last one that is too small for the store into the next, counts them in `stat`, and joins them at `move`: so an
  object that grew is read only by its appender (`Appender.read`) until it has been moved.
- **Listing.** Names that are there while a listing runs are in it, once; one that comes or goes meanwhile may be. An
  object store lists after a key, folders as `name/`: there "a-b/" comes before "a/", here "a" before "a-b". The two
  orders differ for names that begin the last one of a batch alone, so such an engine looks these few up.
- **Cancelled** at an await, a call has happened whole or not at all; an appender keeps what it has counted in `size`.
- **Errors.** `PathUnknown` where nothing lies at the path; `StorageError` naming path and cause for all else.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from ocispec.digest import Hash

# Content up to this many bytes comes read, with the opening itself: one step for config blobs and small layers.
INLINE = 64 * 1024
PIECE = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Stat:
    """Length in bytes, and the time of the last change in seconds since the epoch."""

    size: int
    modified: float


class Content(Protocol):
    """An opened object: its bytes stay those of the moment of opening, whatever replaces or deletes it.

    Attributes:
        size: length in bytes.
        data: all bytes, where there are at most `INLINE`; else None.
        fd: descriptor of a regular file that holds the bytes from offset 0, or None where the engine has none.
            Who takes it with `detach` closes it.
    """

    @property
    def size(self) -> int: ...
    @property
    def data(self) -> bytes | None: ...
    def detach(self) -> int | None:
        """Hands the descriptor over, once; None where there is none."""

    def stream(self, offset: int, count: int) -> AsyncGenerator[bytes, None]:
        """Yields `count` bytes from `offset` in pieces of at most `PIECE`; raises StorageError where they end early.

        Who may stop before the end closes it, as with `contextlib.aclosing`.
        """

    async def close(self) -> None:
        """Lets go of the object; a second time does nothing."""


class Appender(Protocol):
    """The one writer of an object that grows.

    Attributes:
        size: how many bytes the object holds.
    """

    @property
    def size(self) -> int: ...
    async def write(self, data: bytes | bytearray | memoryview, running: Hash | None = None) -> None:
        """Appends `data` and updates `running` with it, in one visit to a worker thread.

        Raises:
            StorageError: no byte of `data` was kept; what `running` holds is then worth nothing.
        """

    async def truncate(self, size: int) -> None:
        """Forgets everything after the first `size` bytes."""

    def read(self, offset: int) -> AsyncIterator[bytes]:
        """Yields the bytes from `offset` to the end in pieces of at most `PIECE`."""


class Engine(Protocol):
    """A place where bytes rest; see the module for what every method promises."""

    async def start(self) -> None:
        """Makes the place ready, and clears what crashes left there long ago."""

    async def read(self, path: str, limit: int) -> bytes:
        """Returns a whole small object; raises ObjectTooLong where it is longer than `limit` bytes."""

    async def stat(self, path: str) -> Stat:
        """Raises PathUnknown, for a folder too."""

    async def open(self, path: str) -> Content: ...

    async def write(self, path: str, data: bytes, *, durable: bool = True) -> None: ...

    def append(self, path: str) -> AbstractAsyncContextManager[Appender]:
        """Opens an object for growing.

        Raises:
            PathUnknown: it was not begun with `write`, or was moved away while this call waited.
            UploadBusy: another appender held it for longer than a few seconds.
        """

    async def move(self, source: str, target: str) -> None: ...

    async def delete(self, path: str, *, durable: bool = True) -> None:
        """Removes the object, or everything below the folder, in one step; nothing there is no error."""

    async def discard(self, paths: Sequence[str]) -> None:
        """Removes many objects, each in one step, in no order; what is not there is no error.

        It need not be durable. The folder right above an object goes with it, where nothing else lies there.
        """

    async def prune(self, path: str) -> None:
        """Forgets a folder below which nothing lies, where the engine has such; one that is not empty stays."""

    async def children(self, path: str, after: str = "", limit: int | None = None) -> list[str]:
        """Returns names right below a folder, in lexical order; none where the folder does not exist.

        Args:
            path: the folder's.
            after: only names behind this text, which need not be one of them.
            limit: how many of them at most; fewer are all there are. A page costs as much as it shows, also in a
                folder of 100,000 names, unless the folder has just changed.
        """
