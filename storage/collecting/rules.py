"""What counts as garbage."""

from __future__ import annotations

from dataclasses import dataclass

from ocispec.errors import PathUnknown
from storage.engine import Engine


@dataclass(frozen=True, slots=True)
class Rules:
    """What a collection takes.

    Attributes:
        before: seconds since the epoch; only what was last written before goes.
        untagged: whether manifests go that neither a tag nor anything in use names.
        force: whether a manifest that cannot be read counts as one that names nothing.
    """

    before: float
    untagged: bool = False
    force: bool = False

    async def age(self, engine: Engine, path: str) -> bool | None:
        """Whether the object is old enough to go; None where there is none. Raises StorageError."""
        try:
            return (await engine.stat(path)).modified < self.before
        except PathUnknown:
            return None
