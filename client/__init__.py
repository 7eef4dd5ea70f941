"""Pull container images from any registry, from Python.

    import asyncio
    import client

    pulled = asyncio.run(client.pull("diamol/ch03-web-ping"))
    print(pulled.digest)

- `pull`, `push`, `copy`, `resolve`: between registries and the cache.
- `save`, `load`: images of the cache to archives, and from them; `unpack`, `bundle`: to where they can run.
- `Session`: how hosts are reached, for many calls; `Cache`: what is on this machine.
- `Reference`, `Platform`: names, parsed.
- `Event` and what is below it: what a `report` hears.
- `errors`: the one tree of errors; every one is a `LayerhouseError`.

All coroutines may be cancelled at any await: the cache stays sound, and no tag or folder is half made.
Names are imported when they are first used, so that importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from client.archive.loading import Loaded, load
    from client.archive.saving import save
    from client.caching.cache import Cache, CachedImage, Variant
    from client.progress import (
        BlobSent,
        Event,
        LayerDone,
        LayerProgress,
        LayerSkipped,
        LayerStarted,
        Pulled,
        Pushed,
        Report,
        Resolved,
        Waiting,
        Warned,
    )
    from client.session import Session
    from client.transfers.copying import copy
    from client.transfers.pulling import pull, resolve
    from client.transfers.pushing import push
    from client.transfers.resolving import Resolution
    from client.unpacking.bundling import Bundled, bundle
    from client.unpacking.unpacking import LayerUnpacked, Unpacked, unpack
    from ocispec import errors
    from ocispec.platform import Platform
    from ocispec.reference import Reference

__all__ = [
    "BlobSent",
    "Bundled",
    "Cache",
    "CachedImage",
    "Event",
    "LayerDone",
    "LayerProgress",
    "LayerSkipped",
    "LayerStarted",
    "LayerUnpacked",
    "Loaded",
    "Platform",
    "Pulled",
    "Pushed",
    "Reference",
    "Report",
    "Resolution",
    "Resolved",
    "Session",
    "Unpacked",
    "Variant",
    "Waiting",
    "Warned",
    "bundle",
    "copy",
    "errors",
    "load",
    "pull",
    "push",
    "resolve",
    "save",
    "unpack",
]

_ROOMS = {
    "client.archive.loading": ("Loaded", "load"),
    "client.archive.saving": ("save",),
    "client.caching.cache": ("Cache", "CachedImage", "Variant"),
    "client.transfers.copying": ("copy",),
    "client.progress": (
        "BlobSent",
        "Event",
        "LayerDone",
        "LayerProgress",
        "LayerSkipped",
        "LayerStarted",
        "Pulled",
        "Pushed",
        "Report",
        "Resolved",
        "Waiting",
        "Warned",
    ),
    "client.transfers.pulling": ("pull", "resolve"),
    "client.transfers.pushing": ("push",),
    "client.transfers.resolving": ("Resolution",),
    "client.session": ("Session",),
    "client.unpacking.bundling": ("Bundled", "bundle"),
    "client.unpacking.unpacking": ("LayerUnpacked", "Unpacked", "unpack"),
    "ocispec.platform": ("Platform",),
    "ocispec.reference": ("Reference",),
}


def __getattr__(name: str) -> Any:
    if name == "errors":
        return import_module("ocispec.errors")
    for room, names in _ROOMS.items():
        if name in names:
            return getattr(import_module(room), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
