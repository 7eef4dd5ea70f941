"""`storage`: where the images lie, and what may be done with them."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field

from registry.config.values import Duration, Interval, Section, Unserved

DRIVERS = frozenset({"filesystem", "inmemory"})
BESIDE_DRIVERS = frozenset({"delete", "redirect", "cache", "tag", "maintenance"})
_NO_CACHE = Unserved("the tree itself answers, which is as fast and never stale", is_harmless=True)


class Filesystem(Section):
    rootdirectory: Path = Field(
        default=Path("/var/lib/registry"), description="The folder that holds the images; `--root`."
    )
    maxthreads: Annotated[
        int | None, Unserved("each process takes as many as its cores allow, 32 at most", is_harmless=True)
    ] = Field(default=None, description="How many threads work on files at once.")


class InMemory(Section):
    """Images in memory: half of what the machine, or the container, has; gone when the process ends; one worker."""


class Delete(Section):
    enabled: bool = Field(default=False, description="Whether blobs, manifests, tags and repositories may be deleted.")


class Redirect(Section):
    disable: Annotated[bool, Unserved("blobs are served from here, never by a redirect", is_harmless=True)] = Field(
        default=False, description="Whether clients are not sent to an object store for blobs."
    )


class Cache(Section):
    """Distribution's cache of blob descriptors. Nothing here is believed against storage, so there is none."""

    blobdescriptor: Annotated[str | None, _NO_CACHE] = Field(
        default=None, description="Where sizes of blobs are remembered: `inmemory` or `redis`."
    )
    blobdescriptorsize: Annotated[int | None, _NO_CACHE] = Field(default=None, description="How many of them.")
    layerinfo: Annotated[str | None, _NO_CACHE] = Field(default=None, description="The old name of `blobdescriptor`.")


class TagLimits(Section):
    concurrencylimit: Annotated[int | None, Unserved("they are looked up one after the other", is_harmless=True)] = (
        Field(default=None, description="How many tags are looked up at once where a manifest is deleted.")
    )


class UploadPurging(Section):
    enabled: bool = Field(default=True, description="Whether uploads that nobody finished are removed.")
    age: Duration = Field(default=timedelta(hours=168), description="How old they are by then.")
    interval: Interval = Field(
        default=timedelta(hours=24), description="How often they are looked for; the first time at the start."
    )
    dryrun: bool = Field(default=False, description="Whether they are only told of in the log, and stay.")


class ReadOnly(Section):
    enabled: bool = Field(default=False, description="Whether pushes, deletes and all else that writes is refused.")


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
