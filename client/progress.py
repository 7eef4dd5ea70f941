"""What a pull or a push tells while it works."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

from ocispec.digest import Digest
from ocispec.platform import Platform
from ocispec.reference import Reference


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to the image `reference`; None where it concerns a host."""

    kind: ClassVar[str]
    reference: Reference | None


@dataclass(frozen=True, slots=True)
class Waiting(Event):
    """`host` asks to wait for some seconds, and all transfers from it do."""

    kind: ClassVar[str] = "waiting"
    host: str
    seconds: float
    cause: str


@dataclass(frozen=True, slots=True)
class Warned(Event):
    """Something went another way than asked for, and the work goes on: a mirror that failed, for one."""

    kind: ClassVar[str] = "warned"
    message: str


@dataclass(frozen=True, slots=True)
class Resolved(Event):
    """It is known which image the name stands for.

    Attributes:
        digest: of what the name points at, an index or an image.
        platform: of the chosen image, None where only its config tells.
        layers: how many different layers it has.
        size: of its config and layers, in bytes.
    """

    kind: ClassVar[str] = "resolved"
    digest: Digest
    platform: Platform | None
    layers: int
    size: int


@dataclass(frozen=True, slots=True)
class LayerStarted(Event):
    """A layer of `size` bytes is on its way; `received` of them were here from an earlier pull. Or a blob goes out."""

    kind: ClassVar[str] = "layer_started"
    digest: Digest
    size: int
    received: int = 0


@dataclass(frozen=True, slots=True)
class LayerProgress(Event):
    """`received` of a layer's `size` bytes came so far, or of a blob's went out."""

    kind: ClassVar[str] = "layer_progress"
    digest: Digest
    received: int
    size: int


@dataclass(frozen=True, slots=True)
class LayerDone(Event):
    """A layer is verified and in the cache; `cached` where it was there before."""

    kind: ClassVar[str] = "layer_done"
    digest: Digest
    size: int
    cached: bool


@dataclass(frozen=True, slots=True)
class LayerSkipped(Event):
    """A foreign layer, which the registry does not have; it can be had at `urls`."""

    kind: ClassVar[str] = "layer_skipped"
    digest: Digest
    urls: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Pulled(Event):
    """The image is whole in the cache, under its name.

    Attributes:
        digest: of what the name points at, an index or an image.
        image: digest of the image itself.
        platform: of the image, None where only its config tells.
        fetched: bytes of blobs that came over the network.
        size: of its config and layers, in bytes.
    """

    kind: ClassVar[str] = "pulled"
    digest: Digest
    image: Digest
    platform: Platform | None
    fetched: int
    size: int


@dataclass(frozen=True, slots=True)
class BlobSent(Event):
    """A blob is in the repository; `how` is `uploaded`, `exists` or `mounted` (from another repository)."""

    kind: ClassVar[str] = "blob_sent"
    digest: Digest
    size: int
    how: str


@dataclass(frozen=True, slots=True)
class Pushed(Event):
    """The image is whole in the repository, under its name.

    Attributes:
        digest: of what the name points at, an index or an image.
        sent: bytes of blobs that were uploaded.
        size: of all its blobs, in bytes.
    """

    kind: ClassVar[str] = "pushed"
    digest: Digest
    sent: int
    size: int


Report: TypeAlias = Callable[[Event], None]


def silent(_event: Event) -> None:
    """Shows nothing."""
