"""Pull: resolve, plan, download side by side, verify, commit to the cache."""

from __future__ import annotations

from client.cache import Cache
from client.download import download, side_by_side
from client.progress import LayerDone, Pulled, Report, Resolved, silent
from client.resolving import CachedSource, RemoteSource, Resolution, choose
from client.session import JOBS, Session
from ocispec.descriptor import Descriptor
from ocispec.platform import Platform
from ocispec.reference import Reference
from storage.layout import ImageLayout

_LEFT_BY_A_CRASH = 24 * 3600.0


async def pull(
    reference: str | Reference,
    *,
    platform: str | Platform | None = None,
    cache: Cache | None = None,
    jobs: int = JOBS,
    plain_http: bool = False,
    report: Report = silent,
) -> Pulled:
    """Fetches an image into the cache: only what is not there yet, and every byte of it verified.

    Cancelled at any point, it leaves the cache sound: blobs that are whole stay, and the name is set last.

    Args:
        reference: the image, as docker names it.
        platform: what it has to run on, like `linux/arm64`; this machine unless told.
        cache: where it goes; `Cache()` unless told.
        jobs: how many layers are fetched at once.
        plain_http: speak http to any host, not to this machine alone.
        report: is told every event, from within the event loop: it must not block.

    Returns:
        The last event.

    Raises:
        LayerhouseError: the tree in `ocispec.errors`; the message tells host, image, digest and cause in one line.
    """
    async with Session(jobs=jobs, plain_http=plain_http) as session:
        return await pull_in(session, cache or Cache(), as_reference(reference), as_platform(platform), report)


async def resolve(
    reference: str | Reference, *, platform: str | Platform | None = None, plain_http: bool = False
) -> Resolution:
    """Asks the registry which image a name stands for on a platform; arguments and errors as `pull`."""
    async with Session(plain_http=plain_http) as session:
        name = as_reference(reference)
        return await choose(name, RemoteSource(session.remote(name)), as_platform(platform))


async def pull_in(
    session: Session, cache: Cache, reference: Reference, platform: Platform | None, report: Report
) -> Pulled:
    """Pulls within a session, so that several images share its connections; see `pull`."""
    remote, layout = session.remote(reference), cache.layout
    await layout.purge(_LEFT_BY_A_CRASH)
    found = await choose(reference, CachedSource(reference, layout, remote), platform)
    report(_resolved(found))
    layers = {each.digest for each in found.image.manifest.layers}
    fetched = 0

    async def fetch(wanted: Descriptor) -> None:
        nonlocal fetched
        came = await download(remote, layout, wanted, report if wanted.digest in layers else silent)
        fetched += came

    await side_by_side(fetch, await _plan(found, layout, report), session.jobs)
    await _commit(found, layout)
    root, image = found.root.descriptor, found.image.descriptor
    pulled = Pulled(reference, root.digest, image.digest, found.platform, fetched, _size(found))
    report(pulled)
    return pulled


async def _plan(found: Resolution, layout: ImageLayout, report: Report) -> list[Descriptor]:
    """Returns the blobs that the layout does not have, and reports the layers that it has."""
    image = found.image.manifest
    missing = await layout.missing(image.blobs)
    absent = {each.digest for each in missing}
    for layer in {each.digest: each for each in image.layers}.values():
        if layer.digest not in absent:
            report(LayerDone(found.reference, layer.digest, layer.size, cached=True))
    return missing


async def _commit(found: Resolution, layout: ImageLayout) -> None:
    """Stores the manifests, each after what it names, then the name."""
    absent = {each.digest for each in await layout.missing(node.descriptor for node in found.chain)}
    for node in reversed(found.chain):
        if node.descriptor.digest in absent:
            await layout.add(node.descriptor.digest, node.manifest.raw)
    await layout.set_name(str(found.reference), found.root.descriptor)


def _resolved(found: Resolution) -> Resolved:
    layers = {each.digest for each in found.image.manifest.layers}
    return Resolved(found.reference, found.root.descriptor.digest, found.platform, len(layers), _size(found))


def _size(found: Resolution) -> int:
    return sum({each.digest: each.size for each in found.image.manifest.blobs}.values())


def as_reference(reference: str | Reference) -> Reference:
    return reference if isinstance(reference, Reference) else Reference.parse(reference)


def as_platform(platform: str | Platform | None) -> Platform | None:
    return Platform.parse(platform) if isinstance(platform, str) else platform
