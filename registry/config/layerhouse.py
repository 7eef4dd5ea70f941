"""`layerhouse`: what Distribution does not know."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, IPvAnyNetwork

from registry.config.access import Access
from registry.config.audit import Audit
from registry.config.http import host_and_port
from registry.config.limits import Limits
from registry.config.mirror import Mirror
from registry.config.tokens import Tokens
from registry.config.values import Duration, Section


class NotificationQueue(Section):
    """How many events an endpoint may lag behind before the oldest are dropped."""

    limit: Annotated[int, Field(gt=0)] = Field(
        default=100_000, description="How many events an endpoint may lag behind; of more, the oldest are dropped."
    )


class GarbageCollect(Section):
    """How long something has to lie unused before it is collected."""

    graceperiod: Duration = Field(
        default=timedelta(hours=1),
        description="What is younger stays when garbage is collected: a push that is on its way has blobs without a "
        "manifest, and manifests without a tag; `--grace-period`.",
    )


class Layerhouse(Section):
    """What Distribution does not know."""

    sparseimages: bool = Field(default=False, description="Whether an image is accepted before, or without, its blobs.")
    workers: Annotated[int, Field(gt=0, le=64)] = Field(
        default=1, description="How many processes serve, 64 at most; `--workers`."
    )
    statedirectory: Path | None = Field(
        default=None,
        description="Where queues, tokens and the like are kept; `.layerhouse` in the images' folder where nothing is "
        "said.",
    )
    trustedproxies: tuple[IPvAnyNetwork, ...] = Field(
        default=(),
        description="Addresses and networks of the proxies in front, like `[127.0.0.1, 10.0.0.0/8]`. What these, and "
        "these only, tell of a request counts: the client's address, the scheme and host that it asked for, and the "
        "path that was taken off (`X-Forwarded-For`, `-Proto`, `-Host` and `-Prefix`, or, where none of them stands, "
        "`Forwarded`). Who comes by a UNIX socket is one of them as soon as any is named.",
    )
    plainhttp: Annotated[str, AfterValidator(host_and_port)] | None = Field(
        default=None,
        description="A second address, `HOST:PORT`, where the same is served without TLS, like `127.0.0.1:5001`.",
    )
    notifications: NotificationQueue = NotificationQueue()
    garbagecollect: GarbageCollect = GarbageCollect()
    access: Access = Access()
    mirror: Mirror = Mirror()
    limits: Limits = Limits()
    audit: Audit = Audit()
    tokens: Tokens = Tokens()
