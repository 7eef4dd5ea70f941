"""What an endpoint is sent: Distribution's envelope of events, version 2, with one event in it."""

from __future__ import annotations

import json
import socket
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from ocispec import mediatypes
from ocispec.errors import ManifestInvalid
from ocispec.manifest import Manifest
from registry.events import Event, Target, What

MEDIA_TYPE = "application/vnd.docker.distribution.events.v2+json"
# Headers may have 64 KiB: what a client says of itself shall not fill the queue.
_SHOWN = 1024


@dataclass(frozen=True, slots=True)
class Source:
    """Which registry an event comes from.

    Attributes:
        addr: its host's name and the port it listens on.
        instance: another one for each process, and after each start.
    """

    addr: str
    instance: str = field(default_factory=lambda: str(uuid4()))

    @classmethod
    def here(cls, listening: str) -> Source:
        """Of a registry that listens on `HOST:PORT`, or on something else that has no port."""
        port = listening.rpartition(":")[2]
        return cls(f"{socket.gethostname()}:{port}" if port.isdecimal() else socket.gethostname())


@dataclass(frozen=True, slots=True)
class Envelopes:
    """Writes envelopes.

    Attributes:
        source: this registry.
        references: whether the events of a manifest list what stands in it.
    """

    source: Source
    references: bool = False

    def render(self, event: Event) -> bytes:
        """Returns the JSON; reads the manifest where its references are wanted, which may take milliseconds."""
        told = {
            "id": event.id,
            "timestamp": datetime.fromtimestamp(event.time, UTC).isoformat().replace("+00:00", "Z"),
            "action": str(event.what),
            "target": self._target(event),
            "request": {
                "id": event.request_id,
                "addr": event.address,
                "host": event.host[:_SHOWN],
                "method": event.method,
                "useragent": event.useragent[:_SHOWN],
            },
            "actor": {"name": event.actor} if event.actor else {},
            "source": {"addr": self.source.addr, "instanceID": self.source.instance},
        }
        return json.dumps({"events": [told]}, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")

    def _target(self, event: Event) -> dict[str, Any]:
        target = event.target
        size = len(target.manifest.raw) if target.manifest else target.size or 0
        members = {
            "mediaType": media_type(event),
            "digest": str(target.digest or ""),
            "size": size,
            "length": size,
            "repository": target.repository,
            "fromRepository": target.source,
            "url": _url(event) if event.what is not What.DELETE else None,
            "tag": target.tag,
            "references": _references(target) if self.references else None,
        }
        # As Distribution has it: a descriptor's members always stand, the others where they tell something.
        return {name: value for name, value in members.items() if value or name in ("mediaType", "digest", "size")}


def media_type(event: Event) -> str:
    """The target's media type: none where something was deleted, and the same one for all blobs."""
    if event.what is What.DELETE:
        return ""
    return event.target.manifest.media_type if event.target.manifest else mediatypes.OCTET_STREAM


def _url(event: Event) -> str:
    kind = "manifests" if event.target.manifest else "blobs"
    return f"{event.base}/v2/{event.target.repository}/{kind}/{event.target.digest}"


def _references(target: Target) -> list[dict[str, Any]]:
    if target.manifest is None:
        return []
    try:
        manifest = Manifest.parse(target.manifest.raw, target.manifest.media_type)
    except ManifestInvalid:
        # Stored by another registry, which was less strict.
        return []
    return [each.to_json() for each in (*manifest.blobs, *manifest.manifests)]
