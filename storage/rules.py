"""What a hosted repository asks of a manifest beside being one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ocispec.descriptor import Descriptor
from ocispec.manifest import Manifest


def _any(_manifest: Manifest) -> None:
    """Takes every manifest."""


def _none(_child: Descriptor) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Rules:
    """What a manifest has to meet before it is stored; what is stored already is not asked again.

    Attributes:
        accept: raises an error of the tree for a manifest that is not wanted; called in a worker thread.
        children: which children of an index have to lie in the repository before it is taken.
    """

    accept: Callable[[Manifest], None] = _any
    children: Callable[[Descriptor], bool] = _none


ANY = Rules()
"""No rule: every manifest is taken."""
