"""The one guard of every mutation: what the configuration forbids, no route can forget to forbid (CVE-2026-41888)."""

from __future__ import annotations

from fastapi import Request

from ocispec.errors import Unsupported
from registry.api.dependencies import READ, TheSettings
from registry.outgoing import shown

UPLOADS = "uploads"
"""Tag of the routes whose DELETE only gives up what is not stored yet."""


async def guard(request: Request, settings: TheSettings) -> None:
    """Every route of the application depends on this.

    Raises:
        Unsupported: the registry, or the repository, is a mirror; or it is read-only, or deletes are disabled.
    """
    if request.method in READ:
        return
    if settings.proxy.remoteurl:
        raise Unsupported(f"this registry mirrors {shown(settings.proxy.remoteurl)}: it takes no pushes and no deletes")
    name = request.path_params.get("name", "")
    if mirrored := next((each for each in settings.layerhouse.mirror.upstreams if _is_of(name, each.name)), None):
        raise Unsupported(f"{name} is mirrored from {shown(mirrored.address)}: it takes no pushes and no deletes")
    if settings.storage.maintenance.readonly.enabled:
        raise Unsupported("the registry is read-only: storage.maintenance.readonly is enabled")
    deletes = request.method == "DELETE" and UPLOADS not in request.scope["route"].tags
    if deletes and not settings.storage.delete.enabled:
        raise Unsupported("deletes are disabled: set storage.delete.enabled")


def _is_of(name: str, upstream: str) -> bool:
    return name == upstream or name.startswith(f"{upstream}/")
