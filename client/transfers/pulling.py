"""Pull: resolve, plan, download side by side, verify, commit to the cache."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from client.caching.cache import Cache
from client.caching.care import PARTIALS_FOR
from client.progress import LayerDone, Pulled, Report, Resolved
from client.registries.foreign import ForeignSource
from client.session import Session, entered
from client.transfers.content import Node, descend
from client.transfers.download import Downloads
from client.transfers.resolving import CachedSource, RemoteSource, Resolution, Source, choose
from ocispec.descriptor import Descriptor
from ocispec.errors import StorageFull
from ocispec.mediatypes import is_foreign
from ocispec.platform import Platform
from ocispec.reference import Reference
from storage.layout import ImageLayout
from storage.partials import Partials
from storage.threads import finish

_LEFT_BY_A_CRASH = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Options:
    """What is wanted of an image.

    Attributes:
        platform: what it has to run on; this machine unless told.
        all_platforms: all images that an index names, and everything else in it.
        foreign: fetch layers that lie outside the registry too.
    """

    platform: Platform | None = None
    all_platforms: bool = False
    foreign: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """What belongs to a name.

    Attributes:
        reference: the name.
        nodes: manifests and indexes, each after those it names; what the name points at is the last.
        image: the chosen image; what the name points at where all are wanted.
        platform: of the image; None where only its config says so, or all are wanted.
    """

    reference: Reference
    nodes: tuple[Node, ...]
    image: Node
    platform: Platform | None

    @property
    def root(self) -> Node:
        return self.nodes[-1]

    @property
    def layers(self) -> list[Descriptor]:
        """Each layer once."""
        return list({each.digest: each for node in self.nodes for each in node.manifest.layers}.values())

    @property
    def blobs(self) -> list[Descriptor]:
        """Configs and layers, each once."""
        return list({each.digest: each for node in self.nodes for each in node.manifest.blobs}.values())

    @property
    def size(self) -> int:
        return sum(each.size for each in self.blobs)


async def pull(
    reference: str | Reference,
    *,
    platform: str | Platform | None = None,
    all_platforms: bool = False,
    foreign: bool = False,
    cache: Cache | None = None,
    session: Session | None = None,
    report: Report | None = None,
) -> Pulled:
    """Fetches an image into the cache: only what is not there yet, and every byte of it verified.

    Cancelled at any point, it leaves the cache sound: blobs that are whole stay, the next pull goes on where this one
    ended, and the name is set last.

    Args:
        reference: the image, as docker names it.
        platform: what it has to run on, like `linux/arm64`; this machine unless told.
        all_platforms: fetch all images that an index names, and everything else in it.
        foreign: fetch layers that lie outside the registry too.
        cache: where it goes; `Cache()` unless told.
        session: how hosts are reached; one for this call alone unless told.
        report: is told every event, from within the event loop: it must not block. A session tells its own.

    Returns:
        The last event.

    Raises:
        LayerhouseError: the tree in `ocispec.errors`; the message tells host, image, digest and cause in one line.
    """
    options = Options(as_platform(platform), all_platforms, foreign)
    async with entered(session, report) as within:
        return await pull_in(within, cache or Cache(), as_reference(reference), options, within.report)


async def resolve(
    reference: str | Reference, *, platform: str | Platform | None = None, session: Session | None = None
) -> Resolution:
    """Asks the registry which image a name stands for on a platform; arguments and errors as `pull`."""
    async with entered(session, None) as within:
        name = as_reference(reference)
        return await choose(name, RemoteSource(within.remote(name)), as_platform(platform))


async def pull_in(session: Session, cache: Cache, reference: Reference, options: Options, report: Report) -> Pulled:
    """Pulls within a session, so that several images share its connections; see `pull`."""
    remote, layout = session.remote(reference), cache.layout
    await layout.purge(_LEFT_BY_A_CRASH, PARTIALS_FOR)
    plan = await _plan(reference, CachedSource(reference, layout, remote), options)
    report(Resolved(reference, plan.root.descriptor.digest, plan.platform, len(plan.layers), plan.size))
    async with layout.in_use():
        missing = await _missing(plan, layout, options, report)
        fetched = await _downloads(session, layout, options, report).fetch_all(remote, missing, plan.layers)
        await _commit(plan, layout)
    root, image = plan.root.descriptor.digest, plan.image.descriptor.digest
    pulled = Pulled(reference, root, image, plan.platform, fetched, plan.size)
    report(pulled)
    return pulled


async def _plan(reference: Reference, source: Source, options: Options) -> Plan:
    if not options.all_platforms:
        found = await choose(reference, source, options.platform)
        return Plan(reference, tuple(reversed(found.chain)), found.image, found.platform)
    top = await source.manifest(reference.target)
    return Plan(reference, tuple(await descend(_Manifests(source), top.descriptor)), top, None)


class _Manifests:
    """The manifests of a source, for `descend`."""

    def __init__(self, source: Source) -> None:
        self._source = source

    async def read(self, wanted: Descriptor) -> bytes:
        return (await self._source.manifest(wanted.digest, wanted.media_type)).manifest.raw


async def _missing(plan: Plan, layout: ImageLayout, options: Options, report: Report) -> list[Descriptor]:
    """Returns the blobs that the layout does not have, and reports the layers that it has."""
    missing = await layout.missing(plan.blobs)
    absent = {each.digest for each in missing}
    for layer in plan.layers:
        if layer.digest not in absent:
            report(LayerDone(plan.reference, layer.digest, layer.size, cached=True))
    await finish(
        _check_space, layout.root, [each for each in missing if options.foreign or not is_foreign(each.media_type)]
    )
    return missing


def _check_space(root: Path, missing: list[Descriptor]) -> None:
    partials = Partials(root)
    needed = sum(each.size - partials.held(each.digest) for each in missing)
    present = next(each for each in (root, *root.absolute().parents) if each.exists())
    free = shutil.disk_usage(present).free
    if needed > free:
        raise StorageFull(f"{root}: the image needs {needed} bytes more, and {free} are free")


def _downloads(session: Session, layout: ImageLayout, options: Options, report: Report) -> Downloads:
    foreign = (lambda url: ForeignSource(url, session.send)) if options.foreign else None
    return Downloads(layout, session.slots, session.patience, report, foreign)


async def _commit(plan: Plan, layout: ImageLayout) -> None:
    """Stores the manifests, each after what it names, then the name."""
    absent = {each.digest for each in await layout.missing(node.descriptor for node in plan.nodes)}
    for node in plan.nodes:
        if node.descriptor.digest in absent:
            await layout.add(node.descriptor.digest, node.manifest.raw)
    await layout.set_name(str(plan.reference), plan.root.descriptor)


def as_reference(reference: str | Reference) -> Reference:
    return reference if isinstance(reference, Reference) else Reference.parse(reference)


def as_platform(platform: str | Platform | None) -> Platform | None:
    return Platform.parse(platform) if isinstance(platform, str) else platform
