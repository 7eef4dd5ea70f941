"""Pull container images from any registry, from Python.

    import asyncio
    import client

    pulled = asyncio.run(client.pull("diamol/ch03-web-ping"))
    print(pulled.digest)

- `pull`, `resolve`: coroutines; cancelled at any await, they leave the cache sound.
- `save`, `load`: images of the cache to archives, and from them.
- `Cache`: what is on this machine; `Reference`, `Platform`: names, parsed.
- `Resolved`, `LayerStarted`, `LayerProgress`, `LayerDone`, `LayerSkipped`, `Pulled`: what `pull` reports.
- `errors`: the one tree of errors; every one is a `LayerhouseError`.

Names are imported when they are first used, so that importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from client.archive.loading import Loaded, load
    from client.archive.saving import save
    from client.cache import Cache, CachedImage, Variant
    from client.progress import (
        Event,
        LayerDone,
        LayerProgress,
        LayerSkipped,
        LayerStarted,
        Pulled,
        Report,
        Resolved,
    )
    from client.pulling import pull, resolve
    from client.resolving import Resolution
    from ocispec import errors
    from ocispec.platform import Platform
    from ocispec.reference import Reference

__all__ = [
    "Cache",
    "CachedImage",
    "Event",
    "LayerDone",
    "LayerProgress",
    "LayerSkipped",
    "LayerStarted",
    "Loaded",
    "Platform",
    "Pulled",
    "Reference",
    "Report",
    "Resolution",
    "Resolved",
    "Variant",
    "errors",
    "load",
    "pull",
    "resolve",
    "save",
]

_ROOMS = {
    "client.archive.loading": ("Loaded", "load"),
    "client.archive.saving": ("save",),
    "client.cache": ("Cache", "CachedImage", "Variant"),
    "client.progress": (
        "Event",
        "LayerDone",
        "LayerProgress",
        "LayerSkipped",
        "LayerStarted",
        "Pulled",
        "Report",
        "Resolved",
    ),
    "client.pulling": ("pull", "resolve"),
    "client.resolving": ("Resolution",),
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
