"""How often what a mirror is asked for was here: Distribution's `registry_proxy_*`, and what upstreams still grant."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from registry.mirror.watching import Limits
from registry.observing.metrics import Family, Labels


@dataclass(slots=True)
class Count:
    """What was asked of one kind of content.

    Attributes:
        hits: how often it was here.
        misses: how often it was not.
        pulled: bytes that came from upstream.
        pushed: bytes of what clients asked for.
    """

    hits: int = 0
    misses: int = 0
    pulled: int = 0
    pushed: int = 0

    def hit(self, size: int) -> None:
        self.hits += 1
        self.pushed += size

    def missed(self, size: int) -> None:
        self.misses += 1
        self.pushed += size


@dataclass(frozen=True, slots=True)
class Counts:
    """What was asked of one process."""

    blobs: Count = field(default_factory=Count)
    manifests: Count = field(default_factory=Count)

    def families(self, limits: Iterable[tuple[str, Limits]]) -> Iterable[Family]:
        """Returns the metrics.

        Args:
            limits: of each upstream, by its name.
        """
        kinds: list[tuple[Labels, Count]] = [(_of("blob"), self.blobs), (_of("manifest"), self.manifests)]
        known = [((("upstream", each),), granted) for each, granted in limits]

        def counter(name: str, help_: str, value: Callable[[Count], int]) -> Family:
            return Family.counter(f"registry_proxy_{name}", help_, {kind: value(each) for kind, each in kinds})

        return (
            counter("requests", "What a mirror was asked for.", lambda each: each.hits + each.misses),
            counter("hits", "What was here.", lambda each: each.hits),
            counter("misses", "What was not here.", lambda each: each.misses),
            counter("pulled_bytes", "Bytes that came from upstream.", lambda each: each.pulled),
            counter("pushed_bytes", "Bytes of what clients asked for.", lambda each: each.pushed),
            Family.gauge(
                "registry_mirror_ratelimit_limit",
                "Pulls that an upstream grants in its window.",
                {label: each.limit for label, each in known if each.limit is not None},
                "min",
            ),
            Family.gauge(
                "registry_mirror_ratelimit_remaining",
                "Pulls that an upstream still grants.",
                {label: each.remaining for label, each in known if each.remaining is not None},
                "min",
            ),
        )


def _of(kind: str) -> Labels:
    return (("type", kind),)
