"""Which layers images share: two of them side by side, or all of them as a tree.

A layer is fetched once, however many images have it. Two images share the chain of layers up from the base as long as
the instructions of their Dockerfiles, and the files these use, are the same; after the first difference every layer is
another one, unless its bytes happen to be the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby, takewhile
from typing import Any

from client.caching.cache import Cache, Variant, chosen
from client.caching.history import Step
from client.session import Session
from client.transfers.resolving import RemoteSource, choose
from ocispec.descriptor import Descriptor
from ocispec.digest import Digest
from ocispec.errors import CacheError, ManifestInvalid
from ocispec.manifest import ImageConfig
from ocispec.mediatypes import IMAGE_CONFIGS, is_foreign
from ocispec.platform import Platform
from ocispec.reference import Reference


@dataclass(frozen=True, slots=True)
class Side:
    """One of two images.

    Attributes:
        name: as it was asked for, in its normal form.
        image: the image.
        cached: whether it lies in the cache; else its registry told of it.
    """

    name: str
    image: Variant
    cached: bool

    def to_json(self) -> dict[str, Any]:
        platform = str(self.image.platform) if self.image.platform else None
        return {
            "name": self.name,
            "digest": str(self.image.digest),
            "platform": platform,
            "layers": len(self.image.layers),
            "size": self.image.size,
            "cached": self.cached,
        }


@dataclass(frozen=True, slots=True)
class Comparison:
    """What image `b` has in common with `a`.

    Attributes:
        base: the layers that both have, from the base up to the first difference.
        elsewhere: layers of `b` above it that `a` has somewhere.
        only_a, only_b: the layers that the other does not have.
        parting: how `b` goes on after `base`; None where it ends there.
        moved: how many bytes of blobs a pull of `b` fetches where `a` is there whole.
    """

    a: Side
    b: Side
    base: tuple[Step, ...]
    elsewhere: tuple[Step, ...]
    only_a: tuple[Step, ...]
    only_b: tuple[Step, ...]
    parting: Step | None
    moved: int

    def to_json(self) -> dict[str, Any]:
        lists = {"base": self.base, "elsewhere": self.elsewhere, "onlyA": self.only_a, "onlyB": self.only_b}
        return {
            "a": self.a.to_json(),
            "b": self.b.to_json(),
            **{name: [each.to_json() for each in steps] for name, steps in lists.items()},
            "moved": self.moved,
        }


def compare(a: Side, b: Side) -> Comparison:
    """Compares two images layer by layer."""
    mine, theirs = _layers(a.image), _layers(b.image)
    common = len(list(takewhile(lambda pair: pair[0] == pair[1], zip(*map(_digests, (mine, theirs)), strict=False))))
    in_a, in_b = set(_digests(mine)), set(_digests(theirs))
    above = theirs[common:]
    fetched = [each for digest, each in b.image.blobs.items() if digest not in a.image.blobs]
    return Comparison(
        a,
        b,
        base=tuple(theirs[:common]),
        elsewhere=tuple(each for each in above if _digest(each) in in_a),
        only_a=tuple(each for each in mine[common:] if _digest(each) not in in_b),
        only_b=tuple(each for each in above if _digest(each) not in in_a),
        parting=above[0] if above else None,
        moved=sum(each.size for each in fetched if not (is_foreign(each.media_type) and each.urls)),
    )


def size_of(steps: Iterable[Step]) -> int:
    """Returns the bytes of their layers, each layer once."""
    return sum({each.layer.digest: each.size for each in steps if each.layer}.values())


async def side(session: Session, cache: Cache, reference: Reference | str, platform: Platform | None) -> Side:
    """Finds an image in the cache; else asks its registry for its manifest and config, and fetches no layer.

    Raises:
        PlatformUnknown: no image under that name runs on the platform.
        LayerhouseError: see `Remote.manifest`.
    """
    try:
        image = await cache.inspect(reference)
    except CacheError:
        return await _remote_side(session, Reference.parse(str(reference)), platform)
    return Side(image.name, chosen(image, platform), cached=True)


@dataclass(frozen=True, slots=True)
class Branch:
    """Layers that lie on each other in every image above them.

    Attributes:
        layers: from below.
        images: those that end here, as they were given.
        branches: how others go on.
    """

    layers: tuple[Descriptor, ...]
    images: tuple[int, ...]
    branches: tuple[Branch, ...]

    @property
    def count(self) -> int:
        """How many images lie on these layers."""
        return len(self.images) + sum(each.count for each in self.branches)


def tree(images: Sequence[Variant]) -> tuple[Branch, ...]:
    """Puts images together by the layers that they share from the base up; branches hold positions in `images`."""
    return _branches([(each.layers, position) for position, each in enumerate(images)])


_Chain = tuple[tuple[Descriptor, ...], int]


def _branches(chains: Sequence[_Chain]) -> tuple[Branch, ...]:
    def first(chain: _Chain) -> Digest | None:
        return chain[0][0].digest if chain[0] else None

    order = {key: n for n, key in enumerate(dict.fromkeys(map(first, chains)))}
    groups = groupby(sorted(chains, key=lambda chain: order[first(chain)]), key=first)
    return tuple(_branch(list(group)) for _, group in groups)


def _branch(chains: Sequence[_Chain]) -> Branch:
    alike = takewhile(
        lambda layers: len({each.digest for each in layers}) == 1, zip(*(c for c, _ in chains), strict=False)
    )
    count = len(list(alike))
    ending = tuple(position for layers, position in chains if len(layers) == count)
    going_on = [(layers[count:], position) for layers, position in chains if len(layers) > count]
    return Branch(chains[0][0][:count], ending, _branches(going_on))


def _layers(image: Variant) -> list[Step]:
    return [each for each in image.steps if each.layer]


def _digest(step: Step) -> Digest | None:
    return step.layer.digest if step.layer else None


def _digests(steps: Iterable[Step]) -> list[Digest | None]:
    return [_digest(each) for each in steps]


async def _remote_side(session: Session, reference: Reference, platform: Platform | None) -> Side:
    source = RemoteSource(session.remote(reference))
    found = await choose(reference, source, platform)
    wanted, config = found.image.manifest.config, None
    if wanted and wanted.media_type in IMAGE_CONFIGS:
        try:
            config = ImageConfig.parse(await source.config(wanted))
        except ManifestInvalid:
            config = None
    image = Variant.of(found.image.descriptor.digest, found.image.manifest, found.platform, config)
    return Side(str(reference), image, cached=False)
