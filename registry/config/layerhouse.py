"""`layerhouse`: what Distribution does not know."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated

from pydantic import Field, IPvAnyNetwork

from registry.config.access import Access
from registry.config.values import Duration, Section


class NotificationQueue(Section):
    """How many events an endpoint may lag behind before the oldest are dropped."""

    limit: Annotated[int, Field(gt=0)] = 100_000


class GarbageCollect(Section):
    """How long something has to lie unused before it is collected."""

    graceperiod: Duration = timedelta(hours=1)


class Layerhouse(Section):
    """What Distribution does not know.

    Attributes:
        workers: how many processes serve.
        sparseimages: whether an image is accepted before, or without, its blobs.
        statedirectory: what is kept beside the images; `.layerhouse` in the root directory where nothing is said.
        trustedproxies: networks whose `X-Forwarded-*` and `Forwarded` headers count.
        access: who may do what.
    """

    sparseimages: bool = False
    workers: Annotated[int, Field(gt=0, le=64)] = 1
    statedirectory: Path | None = None
    trustedproxies: tuple[IPvAnyNetwork, ...] = ()
    notifications: NotificationQueue = NotificationQueue()
    garbagecollect: GarbageCollect = GarbageCollect()
    access: Access = Access()
