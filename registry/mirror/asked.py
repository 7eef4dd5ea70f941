"""What a request tells the mirror, and what its answer has to tell of it: both travel with the task that answers.

A repository knows no requests, and a request passes through handlers that know no mirror.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(slots=True)
class Asked:
    """One request.

    Attributes:
        via: the instances that handed it on, as its `Via` has them, the first one first.
        is_stale: whether what is answered could not be confirmed.
    """

    via: tuple[str, ...] = ()
    is_stale: bool = False


_ASKED: ContextVar[Asked] = ContextVar("asked")


@contextmanager
def asking(via: tuple[str, ...] = ()) -> Iterator[Asked]:
    """Around what answers a request."""
    asked = Asked(via)
    token = _ASKED.set(asked)
    try:
        yield asked
    finally:
        _ASKED.reset(token)


def via() -> tuple[str, ...]:
    """The instances that handed on the request for which this is done; none where it is done for nobody's."""
    asked = _ASKED.get(None)
    return () if asked is None else asked.via


def tell_stale() -> None:
    """Lets the answer say that it could not be confirmed."""
    asked = _ASKED.get(None)
    if asked is not None:
        asked.is_stale = True
