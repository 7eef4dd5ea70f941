"""Uploads that nobody goes on with are removed (`storage.maintenance.uploadpurging`)."""

from __future__ import annotations

import asyncio
import logging
import time
from functools import partial

from ocispec.errors import StorageError
from registry.config import Settings
from registry.config.storage import UploadPurging
from registry.leadership import lead
from storage.store import Store

_log = logging.getLogger("registry")


async def purge(store: Store, settings: Settings) -> None:
    """Removes stale uploads now and at every interval, in one of the worker processes; in a dry run, only tells them.

    A registry that is read-only keeps them: nothing changes in its storage (Distribution purges there too). It ends
    where nothing is to be done; a purge that fails is logged, and tried again at the next interval.
    """
    maintenance = settings.storage.maintenance
    if not maintenance.uploadpurging.enabled or maintenance.readonly.enabled:
        return
    work = partial(_at_every_interval, store, maintenance.uploadpurging)
    try:
        await (work() if settings.layerhouse.workers == 1 else lead(settings.state_directory / "purging.lock", work))
    except StorageError as error:
        _log.error("stale uploads are not purged: %s", error.message)


async def _at_every_interval(store: Store, purging: UploadPurging) -> None:
    while True:
        try:
            await _purge(store, purging)
        except StorageError as error:
            _log.error("stale uploads could not be purged: %s", error.message)
        await asyncio.sleep(purging.interval.total_seconds())


async def _purge(store: Store, purging: UploadPurging) -> None:
    count, before = 0, time.time() - purging.age.total_seconds()
    done = "would be purged, and stays (dry run)" if purging.dryrun else "was purged"
    async for upload in store.purge_uploads(before, dry_run=purging.dryrun):
        _log.info("the stale upload %s %s", upload, done)
        count += 1
    if count:
        _log.info("%d stale uploads would be purged" if purging.dryrun else "purged %d stale uploads", count)
