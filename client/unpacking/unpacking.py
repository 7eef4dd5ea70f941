"""Unpack: the layers of an image put together into a root file system."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, TypeVar

from client.caching.cache import Cache
from client.progress import Event, Report, Warned, silent
from client.unpacking.attributes import Omitted
from client.unpacking.images import Image, found
from client.unpacking.layers import put
from client.unpacking.staging import staged
from client.unpacking.tree import Tree
from client.unpacking.working import Stop, stoppable
from ocispec.digest import Digest
from ocispec.errors import CacheError
from ocispec.platform import Platform
from ocispec.reference import Reference
from storage.ingest import storage_errors
from storage.threads import acquire, finish

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class LayerUnpacked(Event):
    """A layer is verified and in the tree; the tree has so many entries and bytes of files' content now."""

    kind: ClassVar[str] = "layer_unpacked"
    digest: Digest
    entries: int
    size: int


@dataclass(frozen=True, slots=True)
class Unpacked:
    """What was unpacked.

    Attributes:
        name: of the image, in its normal form.
        digest: of its manifest.
        platform: that it runs on, None where its config does not tell.
        folder: where it is, symlinks on the way resolved.
        layers: how many it has.
        entries: how many their archives have, whiteouts not among them.
        size: of the files' content, in bytes.
        omitted: what is not permitted here, and was left out.
    """

    name: str
    digest: Digest
    platform: Platform | None
    folder: Path
    layers: int
    entries: int
    size: int
    omitted: Omitted


async def unpack(
    cache: Cache,
    reference: str | Reference,
    folder: str | os.PathLike[str],
    *,
    platform: str | Platform | None = None,
    report: Report = silent,
) -> Unpacked:
    """Puts the layers of a cached image together into a root file system, each verified against digest and diff id.

    Owners, devices and extended attributes are set where that is permitted; what is not is counted, in one `Warned`.
    No layer can touch anything outside of `folder`. Nobody else can enter it before it is whole; then the image's own
    root says who can, and programs in it may have set-id bits.

    Cancelled at any point, nothing of it is there, or all.

    Args:
        cache: where the image is.
        reference: its name there.
        folder: where it is to be; not there, or empty. Its parent has to be there.
        platform: which image of those under the name; the one for this machine, or the first, unless told.
        report: hears `LayerUnpacked` and `Warned`.

    Raises:
        CacheError: the image is not in the cache, not whole, or no container image.
        PlatformUnknown: it is there for other platforms only.
        DigestMismatch: a layer is damaged, or its content is not what the image's config tells.
        LayerInvalid: a layer cannot, or must not, be unpacked.
        StorageFull: there is no space left.
        StorageError: the folder has content, or cannot be written; or the cache is damaged.
    """
    async with reading(cache), staged(folder) as stage:
        image = await found(cache, reference, platform)
        fd = await acquire(os.close, os.dup, stage.fd)
        unpacked, _ = await fill(fd, stage.folder, image, report, _nothing)
        await finish(stage.commit)
        return unpacked


def reading(cache: Cache) -> AbstractAsyncContextManager[None]:
    """Keeps the blobs of a cache while they are read."""
    with storage_errors(cache.root):
        if not cache.root.is_dir():
            raise CacheError(f"there is no cache {cache.root}")
    return cache.layout.in_use()


async def fill(root: int, place: Path, image: Image, report: Report, look: Callable[[Tree], T]) -> tuple[Unpacked, T]:
    """Unpacks into an empty, open folder, and returns what `look` sees in it; see `unpack` for errors.

    Args:
        root: descriptor of the folder; it is closed in any case.
        place: how messages call it.
        image: what is unpacked.
        report: see `unpack`.
        look: called in a worker thread before the folders get their modes, which may forbid to look into them.
    """
    stop = Stop()
    tree = Tree(root, stop)
    try:
        for layer in image.layers:
            await stoppable(stop, put, layer, tree, place)
            report(LayerUnpacked(None, layer.descriptor.digest, tree.entries, tree.size))
        seen = await stoppable(stop, _end, tree, place, look)
    finally:
        await finish(tree.close)
    variant = image.variant
    if told := str(tree.omitted):
        report(Warned(None, f"left out, since it is not permitted here: {told}"))
    done = Unpacked(
        image.name, variant.digest, variant.platform, place, len(image.layers), tree.entries, tree.size, tree.omitted
    )
    return done, seen


def _end(tree: Tree, place: Path, look: Callable[[Tree], T]) -> T:
    with storage_errors(place):
        seen = look(tree)
        tree.settle()
    return seen


def _nothing(_tree: Tree) -> None:
    """Sees nothing."""
