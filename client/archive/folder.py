"""Save into an OCI layout: a new folder appears whole, one that is there gets the images added."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

from client.archive.choosing import Chosen
from client.archive.images import entry_of
from ocispec.errors import PathUnknown, StorageError
from storage import durable
from storage.ingest import storage_errors
from storage.layout import ImageLayout
from storage.threads import finish

# Everything else in a layout's root is a lock, or was on its way: a new layout goes out without.
_LASTING = frozenset({"oci-layout", "index.json", "blobs"})


async def save(images: list[Chosen], target: Path) -> None:
    """Writes images into the layout `target`; see `client.archive.saving.save`."""
    if await finish(_there, target):
        layout = ImageLayout(target)
        async with layout.in_use():
            await _fill(layout, images)
        return
    new = target.with_name(f".pullclient-{uuid4().hex}")
    try:
        with storage_errors(target):
            await finish(new.mkdir)
        await _fill(ImageLayout(new), images)
        await finish(_publish, new, target)
    finally:
        await finish(durable.remove, new)


async def _fill(layout: ImageLayout, images: list[Chosen]) -> None:
    for image in images:
        for blob in await layout.missing(image.blobs):
            async with image.content.stream(blob) as pieces, layout.ingest(blob.digest, blob.size) as incoming:
                async for piece in pieces:
                    await incoming.write(piece)
                await incoming.commit()
        for node in image.nodes:
            await layout.add(node.descriptor.digest, node.manifest.raw)
    for image in images:
        await layout.set_name(str(image.reference), entry_of(image.reference, image.top.descriptor))


def _there(target: Path) -> bool:
    """Whether a layout is there; raises StorageError where something else is."""
    with storage_errors(target):
        if not target.parent.is_dir():
            raise PathUnknown(f"{target}: its folder does not exist")
        if (target / "oci-layout").is_file() or not target.exists():
            return target.exists()
        if not target.is_dir():
            raise StorageError(f"{target} is a file, expected an OCI layout's folder or nothing")
        if any(target.iterdir()):
            raise StorageError(f"{target} is no OCI layout, expected one, an empty folder or nothing")
        return False


def _publish(new: Path, target: Path) -> None:
    with storage_errors(target):
        for each in new.iterdir():
            if each.name not in _LASTING:
                durable.remove(each)
        # An empty folder may be there, which this replaces.
        new.rename(target)
        durable.sync_folder(target.parent)
