"""How much a mirror may keep, and how long: of each upstream, and in all."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from ocispec.reference import RepositoryName


async def _always() -> None:
    """Somebody who is always there."""


@dataclass(frozen=True, slots=True)
class Share:
    """What one upstream may have of the space.

    Attributes:
        upstream: its name, for metrics and logs.
        prefix: what the names of its repositories begin with here; empty where all are its.
        cap: how many bytes it may have; None: any number.
        ttl: how many seconds something is kept after its last use; 0: for ever.
        reachable: raises RegistryError while upstream does not answer: what is here is then all that there is.
    """

    upstream: str
    prefix: str = ""
    cap: int | None = None
    ttl: float = 0.0
    reachable: Callable[[], Awaitable[object]] = _always

    def has(self, name: RepositoryName) -> bool:
        return name.startswith(self.prefix)


@dataclass(frozen=True, slots=True)
class Space:
    """The whole space.

    Attributes:
        shares: those of the upstreams.
        cap: how many bytes all of them may have; None: any number.
        pins: images that stay (see `Pin.parse`), those of the configuration.
    """

    shares: tuple[Share, ...]
    cap: int | None = None
    pins: tuple[str, ...] = ()

    @property
    def whole(self) -> Share:
        """All upstreams as one."""
        return Share("", cap=self.cap)
