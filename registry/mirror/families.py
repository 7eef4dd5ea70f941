"""The metrics of a mirror's space. Upstreams are those of the configuration, so that there is a bounded number."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

from ocispec.errors import StorageError
from registry.mirror.index import Index, Removed
from registry.mirror.space import Share, Space
from registry.observing.metrics import Family, Labels
from registry.sqlitefiles import SharedFile

_log = logging.getLogger("registry")
_NAME = "registry_mirror"


async def families(space: Space, index: SharedFile[Index]) -> Iterable[Family]:
    """Reads them off the index, which all processes share, so each gives the same."""
    shares = [space.whole, *space.shares]
    try:
        kept = {share: await index.do(Index.kept, share.prefix) for share in shares}
        removed = await index.do(Index.removed)
    except StorageError as error:
        _log.error("the figures of the mirror's space cannot be read: %s", error.message)
        return ()
    known = {share.upstream for share in shares}
    return (
        _gauge("kept_bytes", "Bytes that were fetched and are kept.", {space.whole: kept[space.whole]}),
        _gauge("cap_bytes", "Bytes that may be kept.", _caps([space.whole])),
        _gauge(
            "upstream_kept_bytes",
            "Bytes kept of an upstream's; what several have counts for each.",
            {share: kept[share] for share in space.shares},
        ),
        _gauge("upstream_cap_bytes", "Bytes that may be kept of an upstream's.", _caps(space.shares)),
        *_counters([each for each in removed if each.upstream in known]),
    )


def _gauge(name: str, help_: str, values: dict[Share, int]) -> Family:
    labels: dict[Labels, float] = {
        (("upstream", share.upstream),) if share.upstream else (): float(size) for share, size in values.items()
    }
    return Family.gauge(f"{_NAME}_{name}", help_, labels, "max")


def _caps(shares: Iterable[Share]) -> dict[Share, int]:
    return {share: share.cap for share in shares if share.cap is not None}


def _counters(removed: Sequence[Removed]) -> Iterable[Family]:
    labels: list[Labels] = [(("cause", each.cause), ("upstream", each.upstream)) for each in removed]
    size = {label: float(each.bytes) for label, each in zip(labels, removed, strict=True)}
    contents = {label: float(each.contents) for label, each in zip(labels, removed, strict=True)}
    told = "Bytes that were removed, and why; without an upstream, for all of them together."
    yield Family.counter(f"{_NAME}_removed_bytes", told, size, "max")
    yield Family.counter(f"{_NAME}_removed_contents", "Manifests and blobs that were removed.", contents, "max")
