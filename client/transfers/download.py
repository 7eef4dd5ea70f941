"""Blobs from a registry into an image layout."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager

from client.progress import LayerDone, LayerProgress, LayerSkipped, LayerStarted, Report, silent
from client.registries.api import within
from client.registries.remote import Remote
from client.registries.retrying import Patience
from client.tasks import side_by_side
from client.transfers.slots import Slots
from client.transfers.transfer import Source, Transfer
from ocispec.descriptor import Descriptor
from ocispec.errors import BlobUnknown, DigestMismatch, LayerhouseError, StorageFull, TransferError
from ocispec.mediatypes import is_foreign
from storage.layout import ImageLayout
from storage.leftovers import Kind, Leftover, remove
from storage.partials import Partial, Partials, folder_of
from storage.threads import finish

PROGRESS_EVERY = 0.1


class Downloads:
    """Fetches blobs into one layout, as the transfers of a session may.

    Args:
        layout: where they go.
        slots: bound what runs at once.
        patience: how often something is tried again.
        report: is told of every blob.
        foreign: gives the source of a foreign layer that the registry does not have, by its address; None to leave
            such layers out.
    """

    def __init__(
        self,
        layout: ImageLayout,
        slots: Slots,
        patience: Patience,
        report: Report,
        foreign: Callable[[str], Source] | None = None,
    ) -> None:
        self._layout = layout
        self._partials = Partials(layout.root)
        self._slots = slots
        self._patience = patience
        self._report = report
        self._foreign = foreign

    async def fetch_all(self, remote: Remote, wanted: Collection[Descriptor], told: Collection[Descriptor]) -> int:
        """Fetches blobs side by side, and tells of those in `told`; returns how many bytes came, see `fetch`.

        Where the layout is full, nothing is left of any blob that did not become whole.
        """
        shown = {each.digest for each in told}
        quiet = Downloads(self._layout, self._slots, self._patience, silent, self._foreign)
        fetched = 0

        async def one(blob: Descriptor) -> None:
            nonlocal fetched
            came = await (self if blob.digest in shown else quiet).fetch(remote, blob)
            fetched += came

        try:
            await side_by_side(one, wanted, self._slots.total)
        except StorageFull:
            await finish(self._make_room, wanted)
            raise
        return fetched

    def _make_room(self, wanted: Collection[Descriptor]) -> None:
        """Removes what came of blobs that are not whole, unless another process is at them."""
        for each in wanted:
            remove(Leftover(Kind.PARTIAL, folder_of(self._layout.root, each.digest), 0, 0.0))

    async def fetch(self, remote: Remote, wanted: Descriptor) -> int:
        """Fetches one blob, goes on where an earlier try ended, verifies it, and puts it into the layout.

        While another task or process fetches the same blob, it waits and then uses that one. Cancelled, what came stays
        and is used by the next try.

        Returns:
            How many bytes came: 0 where another one fetched it, and for a foreign layer that was left out.

        Raises:
            DigestMismatch: twice, the bytes were not those the descriptor names; the second time all of them came from
                the registry itself. They lie in the layout's quarantine.
            ContentTruncated: the bytes ended early, again and again.
            StorageFull, StorageError: the layout cannot be written; nothing is left of the blob where it is full.
            LayerhouseError: see `Remote.part`.
        """
        with within(remote.place(wanted.digest)):
            try:
                return await self._twice(remote, remote, wanted)
            except BlobUnknown:
                if not (is_foreign(wanted.media_type) and wanted.urls):
                    raise
        if self._foreign is None:
            self._report(LayerSkipped(remote.reference, wanted.digest, wanted.urls))
            return 0
        *others, last = wanted.urls
        with within(remote.place(wanted.digest)):
            for url in others:
                try:
                    return await self._twice(remote, self._foreign(url), wanted)
                except TransferError as error:
                    remote.told(f"{error.message}; going on with the next address")
            return await self._twice(remote, self._foreign(last), wanted)

    async def _twice(self, remote: Remote, source: Source, wanted: Descriptor) -> int:
        try:
            return await self._fetch(remote, source, wanted, mirrors=True)
        except DigestMismatch as error:
            first = error
        try:
            came = await self._fetch(remote, source, wanted, mirrors=False)
        except DigestMismatch as error:
            raise DigestMismatch(f"{error.message}; fetched twice: {first.message}") from error
        remote.told(f"{remote.place(wanted.digest)}: {first.message}; fetched once more it was right")
        return came

    async def _fetch(self, remote: Remote, source: Source, wanted: Descriptor, *, mirrors: bool) -> int:
        async with self._partials.opened(wanted.digest, wanted.size) as partial:
            if not await self._layout.missing([wanted]):
                await finish(partial.discard)
                self._report(LayerDone(remote.reference, wanted.digest, wanted.size, cached=True))
                return 0
            before = partial.came
            self._report(LayerStarted(remote.reference, wanted.digest, wanted.size, before))
            transfer = Transfer(source, wanted.digest, partial, self._slots, self._patience, mirrors=mirrors)
            await self._brought(transfer, remote, partial, wanted)
            await self._partials.keep(partial, self._layout.path(wanted.digest))
        self._report(LayerDone(remote.reference, wanted.digest, wanted.size, cached=False))
        return wanted.size - before

    async def _brought(self, transfer: Transfer, remote: Remote, partial: Partial, wanted: Descriptor) -> None:
        try:
            async with self._told(remote, partial, wanted):
                await transfer.run()
                await finish(partial.verify)
        except DigestMismatch:
            await self._partials.quarantine(partial, wanted.digest)
            raise
        except LayerhouseError as error:
            if isinstance(error, StorageFull) or not partial.came:
                await finish(partial.discard)
            raise

    @asynccontextmanager
    async def _told(self, remote: Remote, partial: Partial, wanted: Descriptor) -> AsyncIterator[None]:
        """Tells how much came, now and then: worker threads take the bytes, and nothing waits for them."""

        def tell() -> None:
            self._report(LayerProgress(remote.reference, wanted.digest, partial.came, wanted.size))

        async def tick() -> None:
            while True:
                await asyncio.sleep(PROGRESS_EVERY)
                tell()

        ticking = asyncio.create_task(tick())
        try:
            yield
        finally:
            ticking.cancel()
            await asyncio.gather(ticking, return_exceptions=True)
        tell()
