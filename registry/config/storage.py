"""`storage`: where the images lie, and what may be done with them."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated, ClassVar

from registry.config.values import Duration, Interval, Section, Unserved

DRIVERS = frozenset({"filesystem", "inmemory"})
BESIDE_DRIVERS = frozenset({"delete", "redirect", "cache", "tag", "maintenance"})


class Filesystem(Section):
    rootdirectory: Path = Path("/var/lib/registry")
    maxthreads: Annotated[int | None, Unserved("threads come and go with the work", is_harmless=True)] = None


class InMemory(Section):
    """Images in memory: gone when the process ends."""


class Delete(Section):
    enabled: bool = False


class Redirect(Section):
    disable: Annotated[bool, Unserved("blobs are served from here, never by a redirect", is_harmless=True)] = False


class Cache(Section):
    """Distribution's cache of blob descriptors. Nothing here is believed against storage, so there is none."""

    blobdescriptor: Annotated[
        str | None, Unserved("the tree itself answers, which is as fast and never stale", is_harmless=True)
    ] = None
    blobdescriptorsize: Annotated[int | None, Unserved("there is no cache of blob descriptors", is_harmless=True)] = (
        None
    )
    layerinfo: Annotated[str | None, Unserved("there is no cache of blob descriptors", is_harmless=True)] = None


class TagLimits(Section):
    concurrencylimit: Annotated[int | None, Unserved("tags are looked up one after the other", is_harmless=True)] = None


class UploadPurging(Section):
    enabled: bool = True
    age: Duration = timedelta(hours=168)
    interval: Interval = timedelta(hours=24)
    dryrun: bool = False


class ReadOnly(Section):
    enabled: bool = False


class Maintenance(Section):
    uploadpurging: UploadPurging = UploadPurging()
    readonly: ReadOnly = ReadOnly()


class Storage(Section):
    refused: ClassVar = dict.fromkeys(
        ("azure", "gcs", "oss", "s3", "s3aws", "swift"), "this driver is not built yet, expected filesystem or inmemory"
    )

    filesystem: Filesystem = Filesystem()
    inmemory: InMemory | None = None
    delete: Delete = Delete()
    redirect: Redirect = Redirect()
    cache: Cache = Cache()
    tag: TagLimits = TagLimits()
    maintenance: Maintenance = Maintenance()

    @property
    def driver(self) -> str:
        """The name of the driver in use."""
        return "filesystem" if self.inmemory is None else "inmemory"
