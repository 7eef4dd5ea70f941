"""Blobs from a registry into an image layout."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from typing import TypeVar

from client.progress import LayerDone, LayerProgress, LayerSkipped, LayerStarted, Report
from client.remote import Remote, within
from ocispec.descriptor import Descriptor
from ocispec.errors import BlobUnknown
from ocispec.mediatypes import is_foreign
from storage.layout import ImageLayout

T = TypeVar("T")


async def download(remote: Remote, layout: ImageLayout, wanted: Descriptor, report: Report) -> int:
    """Fetches one blob, verifies it while it arrives, and puts it into the layout.

    Returns:
        How many bytes came: 0 for a foreign layer that the registry does not have.

    Raises:
        DigestMismatch, ContentTruncated: the bytes are not those the descriptor names; nothing is kept.
        StorageError: the layout cannot be written.
        LayerhouseError: see `Remote.blob`.
    """
    name = remote.reference
    report(LayerStarted(name, wanted.digest, wanted.size))
    try:
        await _fetch(
            remote, layout, wanted, lambda count: report(LayerProgress(name, wanted.digest, count, wanted.size))
        )
    except BlobUnknown:
        if not (is_foreign(wanted.media_type) and wanted.urls):
            raise
        report(LayerSkipped(name, wanted.digest, wanted.urls))
        return 0
    report(LayerDone(name, wanted.digest, wanted.size, cached=False))
    return wanted.size


async def _fetch(remote: Remote, layout: ImageLayout, wanted: Descriptor, received: Callable[[int], None]) -> None:
    with within(remote.place(wanted.digest)):
        async with layout.ingest(wanted.digest, wanted.size) as blob:
            async with remote.blob(wanted.digest) as pieces:
                async for piece in pieces:
                    await blob.write(piece)
                    received(blob.received)
            await blob.commit()


async def side_by_side(action: Callable[[T], Awaitable[None]], items: Collection[T], limit: int) -> None:
    """Runs `action` on every item, at most `limit` at once.

    Raises:
        BaseException: the first that an action raised, alone; the others were cancelled and have ended.
    """
    waiting = iter(items)

    async def work() -> None:
        for item in waiting:
            await action(item)

    failed: BaseException | None = None
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(limit, len(items))):
                group.create_task(work())
    except BaseExceptionGroup as errors:
        failed = errors.exceptions[0]
    if failed:
        raise failed
