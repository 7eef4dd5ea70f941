"""What is told while images move, in lines that are as good in a log as on a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeAlias

from client.display import size_text
from client.transfers.content import Node
from client.wording import counted
from ocispec.descriptor import Descriptor
from registry.archives.nodes import blobs_of

Told: TypeAlias = Callable[[str], None]
"""Hears a line."""


def image(name: object, nodes: Iterable[Node]) -> str:
    """Returns how much an image is."""
    parts = tuple(nodes)
    blobs = blobs_of(parts)
    size = size_text(sum(each.size for each in blobs))
    return f"{name}: {counted(len(parts), 'manifest')}, {counted(len(blobs), 'blob')}, {size}"


def blob(descriptor: Descriptor, what: str) -> str:
    """Returns what became of a blob."""
    return f"  {descriptor.digest.short}  {size_text(descriptor.size):>8}  {what}"
