"""`layerhouse.limits`: how much a client may ask for, and how long it may take."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from pydantic import Field

from registry.config.values import Interval, Section

_Count = Annotated[int, Field(ge=0)]


class Limits(Section):
    """How much a client may ask for, and how long it may take.

    What is counted, is counted by each of the processes that serve (`layerhouse.workers`) for itself.
    """

    perclient: _Count = Field(
        default=256,
        description="How many requests of one address (of IPv6: of one /64) may be in progress. As many more, or 64 if "
        "those are more, wait up to 10 seconds, and what is in excess then is answered 429 with `Retry-After`; `0`: "
        "any number. Behind a proxy that is not one of `trustedproxies`, all clients have the proxy's address.",
    )
    total: _Count = Field(
        default=8192,
        description="How many connections may be open, but no more than a third of the files that a process may open. "
        "Of more, those that have waited longest for a request are closed; where none waits, a request is answered 503 "
        "with `Retry-After`. `0`: any number.",
    )
    headsize: Annotated[int, Field(ge=1024, le=1 << 20)] = Field(
        default=1 << 16, description="How many bytes the head of a request may have."
    )
    blobsize: _Count = Field(
        default=0,
        description="How many bytes a blob that is pushed may have; more is answered 413, as soon as that can be "
        "known. `0`: any number.",
    )
    headtimeout: Interval = Field(
        default=timedelta(seconds=75),
        description="How long a connection may take until the head of a request is there, from its beginning or from "
        "the answer before. Longer than a proxy in front keeps connections without a request.",
    )
    stalltimeout: Interval = Field(
        default=timedelta(minutes=5),
        description="How long a client may send nothing of a body that is waited for, or take nothing of an answer, "
        "until it is cut off.",
    )
    minimumrate: _Count = Field(
        default=1024,
        description="How many bytes a second, over `stalltimeout`, a client has to send of a body that is waited for; "
        "1 MiB in that time is enough at any rate. `0`: one byte in that time will do.",
    )
