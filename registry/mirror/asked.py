"""What a request tells the mirror, and what its answer has to tell of it: both travel with the task that answers.

A repository knows no requests, and a request passes through handlers that know no mirror.
"""

from __future__ import annotations

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


class Asking:
    """Around what answers a request: each one passes here, and a generator would cost it a microsecond."""

    __slots__ = ("_asked", "_token")

    def __init__(self, via: tuple[str, ...]) -> None:
        self._asked = Asked(via)

    def __enter__(self) -> Asked:
        self._token = _ASKED.set(self._asked)
        return self._asked

    def __exit__(self, *_: object) -> None:
        _ASKED.reset(self._token)


def asking(via: tuple[str, ...] = ()) -> Asking:
    """Around what answers a request that these instances handed on."""
    return Asking(via)


def via() -> tuple[str, ...]:
    """The instances that handed on the request for which this is done; none where it is done for nobody's."""
    asked = _ASKED.get(None)
    return () if asked is None else asked.via


def tell_stale() -> None:
    """Lets the answer say that it could not be confirmed."""
    asked = _ASKED.get(None)
    if asked is not None:
        asked.is_stale = True
