"""Push: images of the cache, or of an archive, into a registry."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from client.archive import sources
from client.caching.cache import Cache
from client.caching.census import census, name_of
from client.progress import Pushed, Report, Warned
from client.session import Session, entered
from client.transfers.content import LayoutContent
from client.transfers.copying import Load, Mounts, alone, send
from client.transfers.picking import Picked, Wanted, pick
from client.transfers.pulling import as_platform, as_reference
from client.transfers.supply import Local, Source
from ocispec.descriptor import REF_NAME, Descriptor
from ocispec.digest import Digest
from ocispec.errors import ArchiveInvalid, CacheError, DigestInvalid, NameInvalid, TagInvalid
from ocispec.platform import Platform
from ocispec.reference import Reference, RepositoryName
from storage.layout import ImageLayout
from storage.threads import finish

_MAX_MOUNTS = 2
_NO_NAME = (NameInvalid, TagInvalid, DigestInvalid)


async def push(
    source: str | Path | Reference,
    target: str | Reference | None = None,
    *,
    platform: str | Platform | None = None,
    all_platforms: bool = False,
    cache: Cache | None = None,
    session: Session | None = None,
    report: Report | None = None,
) -> list[Pushed]:
    """Sends an image of the cache, or images of an archive, to a registry; cancelled, it leaves the tag as it was.

    Args:
        source: a name in the cache; else a file, or an OCI layout's folder.
        target: the name that it gets at the registry; the one that it has unless told.
        platform: of an index, the image for this platform alone.
        all_platforms: of an index, all that it names; an error where that is not all there.
        cache: where images are; `Cache()` unless told.
        session: as `client.pull`.
        report: as `client.pull`.

    Returns:
        The last event of each image.

    Raises:
        CacheError: there is no such image, or what is wanted of it is not whole.
        LayerhouseError: the tree in `ocispec.errors`; the message tells host, image, digest and cause in one line.
    """
    wanted, goal = Wanted(as_platform(platform), all_platforms), as_reference(target) if target else None
    async with entered(session, report) as within:
        return await push_any(within, cache or Cache(), str(source), goal, wanted)


async def push_any(
    session: Session, cache: Cache, source: str, target: Reference | None, wanted: Wanted
) -> list[Pushed]:
    """Pushes what `source` names, an image in the cache where there is one, else a file or folder; see `push`."""
    try:
        root = await cache.entry(source)
    except (CacheError, *_NO_NAME) as error:
        path = Path(source)
        if await finish(path.exists):
            return await push_archive(session, path, target, wanted)
        told = error.message if isinstance(error, CacheError) else f"{source[:200]!r} can be no image's name"
        raise CacheError(f"{told}; nor is there a file of that name") from error
    return [await _push(session, cache, root, target or _own(root.annotations[REF_NAME], source), wanted)]


async def push_in(session: Session, cache: Cache, reference: Reference, wanted: Wanted | None = None) -> Pushed:
    """Pushes an image of the cache, within a session, to the repository its name tells; see `push`."""
    return await _push(session, cache, await cache.entry(reference), reference, wanted or Wanted())


async def push_archive(session: Session, path: Path, target: Reference | None, wanted: Wanted) -> list[Pushed]:
    """Pushes the images of a file or folder: one to `target`, or all to where their names tell; see `push`.

    Raises:
        ArchiveInvalid: it is no archive, or has no image, or several for one target, or one without a name for none.
    """
    async with sources.opened(path) as archive:
        content = archive.content

        async def missing(asked: Iterable[Descriptor]) -> list[Descriptor]:
            return [each for each in asked if not content.holds(each)]

        if target and len(archive.images) > 1:
            names = ", ".join(str(name or top.digest) for name, top in archive.images)
            raise ArchiveInvalid(f"{path}: {target} can be one image alone, it holds {names[:500]}")
        goals = [(target or _own(name, str(path)), top) for name, top in archive.images]
        if not goals:
            raise ArchiveInvalid(f"{path}: there is no image in it")
        done = []
        for goal, top in goals:
            picked = await pick(str(path), content, missing, top, wanted)
            done.append(await _sent(session, goal, picked, Local(content), lambda _: ()))
    return done


def _own(name: str | None, source: str) -> Reference:
    """Returns where an image goes by its own name."""
    try:
        return Reference.parse(name or "")
    except _NO_NAME as error:
        raise ArchiveInvalid(f"{source}: its image has no name that tells a registry: say where it goes") from error


async def _push(session: Session, cache: Cache, root: Descriptor, goal: Reference, wanted: Wanted) -> Pushed:
    content = LayoutContent(cache.layout)
    # A prune at the same time must not take what is about to be sent.
    async with cache.layout.in_use():
        name = root.annotations.get(REF_NAME, str(goal))
        picked = await pick(name, content, cache.layout.missing, root, wanted)
        return await _sent(session, goal, picked, Local(content), await _mounts(cache.layout, goal))


async def _sent(
    session: Session,
    goal: Reference,
    picked: Picked,
    source: Source,
    mounts: Mounts,
) -> Pushed:
    if picked.alone:
        session.report(Warned(goal, f"{goal}: pushing {alone(picked.platform)}"))
    return await send(session, Load(source, picked.nodes, mounts=mounts), goal)


async def _mounts(layout: ImageLayout, goal: Reference) -> Mounts:
    """Tells which other repositories of the registry may have a blob: those from which the cache has it."""
    near = []
    for entry in await layout.entries():
        try:
            name = Reference.parse(name_of(entry))
        except _NO_NAME:
            continue
        if name.host == goal.host and name.repository != goal.repository:
            near.append(entry)
    found: defaultdict[Digest, dict[RepositoryName, None]] = defaultdict(dict)
    known = await census(layout, near)
    for digest, need in known.needs.items():
        for each in need.entries:
            found[digest][Reference.parse(name_of(known.entries[each])).repository] = None
    return lambda digest: tuple(found.get(digest, ()))[:_MAX_MOUNTS]
