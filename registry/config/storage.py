"""`storage`: where the images lie, and what may be done with them."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

from pydantic import model_validator

from registry.config.values import Duration, Interval, Section, Unserved

DRIVERS = frozenset({"filesystem", "inmemory"})
_BESIDE_DRIVERS = frozenset({"delete", "redirect", "cache", "tag", "maintenance"})


class Filesystem(Section):
    rootdirectory: Path = Path("/var/lib/registry")
    maxthreads: Annotated[int | None, Unserved("threads come and go with the work")] = None


class InMemory(Section):
    """Images in memory: gone when the process ends."""


class Delete(Section):
    enabled: bool = False


class Redirect(Section):
    disable: Annotated[bool, Unserved("blobs are served from here, never by a redirect")] = False


class Cache(Section):
    """Distribution's cache of blob descriptors. Nothing here is believed against storage, so there is none."""

    blobdescriptor: Annotated[str | None, Unserved("the tree itself answers, which is as fast and never stale")] = None
    blobdescriptorsize: Annotated[int | None, Unserved("there is no cache of blob descriptors")] = None
    layerinfo: Annotated[str | None, Unserved("there is no cache of blob descriptors")] = None


class TagLimits(Section):
    concurrencylimit: Annotated[int | None, Unserved("tags are looked up one after the other")] = None


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
    filesystem: Filesystem = Filesystem()
    inmemory: InMemory | None = None
    delete: Delete = Delete()
    redirect: Redirect = Redirect()
    cache: Cache = Cache()
    tag: TagLimits = TagLimits()
    maintenance: Maintenance = Maintenance()

    @model_validator(mode="before")
    @classmethod
    def _has_a_driver_we_have(cls, values: Any) -> Any:
        for name in values if isinstance(values, dict) else ():
            if name not in _BESIDE_DRIVERS | DRIVERS:
                raise ValueError(f"the driver {name!r:.40} is not supported yet, expected filesystem")
        return values
