"""Pins: images that stay, however long nobody uses them and however full it is."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from ocispec.digest import Digest
from ocispec.reference import RepositoryName
from registry.auth.rules import matching
from registry.config.pins import Pin
from registry.mirror import tree
from storage.engine import Engine


class Pins:
    """All that is pinned.

    Args:
        texts: see `Pin.parse`, which raises ValueError.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self._pins = [(matching([pin.name]), pin) for pin in map(Pin.parse, texts)]

    def of(self, name: RepositoryName) -> list[Pin]:
        """Those that concern a repository."""
        return [pin for matches, pin in self._pins if matches(name)]

    async def roots(self, engine: Engine, name: RepositoryName) -> set[Digest]:
        """Returns which of its manifests a repository keeps for a pin; raises StorageError."""
        pins = self.of(name)
        manifests = set(await tree.manifests(engine, name)) if pins else set()
        if any(pin.tag is None and pin.digest is None for pin in pins):
            return manifests
        digests = {pin.digest for pin in pins if pin.digest}
        fits = [_fitting(pin.tag) for pin in pins if pin.tag and not pin.digest]
        if fits:
            digests |= {digest async for tag, digest in tree.tags(engine, name) if any(fit(tag) for fit in fits)}
        return digests & manifests


def _fitting(tag: str) -> Callable[[str], object]:
    return re.compile(re.escape(tag).replace(r"\*", ".*")).fullmatch
