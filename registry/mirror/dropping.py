"""Removing what somebody names, as long as it is no more than what was fetched."""

from __future__ import annotations

from ocispec.digest import Digest
from ocispec.errors import ManifestUnknown, NameUnknown, Unsupported
from registry.mirror import tree
from registry.mirror.expiry import expire
from registry.mirror.index import Content, Index
from registry.mirror.naming import Image
from registry.mirror.usage import Usage


async def drop_image(usage: Usage, image: Image) -> list[Content]:
    """Removes an image from its repository, with what no other manifest there needs; returns what has gone.

    Raises:
        ManifestUnknown, NameUnknown: it is not here.
        Unsupported: it is pinned, or was pushed.
        StorageError: it cannot be removed.
    """
    roots = await _roots(usage, image)
    mine = await tree.needed(usage.engine, image.name, roots)
    others = [each for each in await tree.manifests(usage.engine, image.name) if each not in mine]
    going = mine - await tree.needed(usage.engine, image.name, others) | roots
    if image.reference is None:
        going |= {link.digest for link in await usage.index.do(Index.links_of, image.name)}
    contents = await usage.index.do(Index.contents, going)
    gone: list[Content] = []

    async def remove() -> None:
        gone.extend(await usage.remover.remove(list(contents.values()), lambda name: name == image.name))

    await usage.alone(remove)
    if not roots & {each.digest for each in gone}:
        raise Unsupported(f"{image} is pinned, or was pushed, and stays")
    await _count(usage, image, gone)
    return gone


async def drop_old(usage: Usage, before: float) -> list[Content]:
    """Removes what was last used before a time, in seconds since the epoch, also while upstream is down."""
    gone: list[Content] = []

    async def remove() -> None:
        gone.extend(await expire(usage.space.whole, before, usage.index, usage.remover, "command"))

    await usage.alone(remove)
    return gone


async def drop_to(usage: Usage, goal: int) -> int:
    """Removes what was used least lately until there are no more than `goal` bytes; returns how many went."""
    freed = 0

    async def remove() -> None:
        nonlocal freed
        freed = await usage.evictor.make_room(usage.space.whole, goal, "command")

    await usage.alone(remove)
    return freed


async def _roots(usage: Usage, image: Image) -> set[Digest]:
    here = set(await tree.manifests(usage.engine, image.name))
    if not here:
        raise NameUnknown(f"nothing of {image.name} is here")
    if image.reference is None:
        return here
    tagged = {tag: digest async for tag, digest in tree.tags(usage.engine, image.name)}
    found = image.reference if isinstance(image.reference, Digest) else tagged.get(image.reference)
    if found not in here:
        raise ManifestUnknown(f"{image} is not here")
    return {found}


async def _count(usage: Usage, image: Image, gone: list[Content]) -> None:
    upstream = next((share.upstream for share in usage.space.shares if share.has(image.name)), "")
    await usage.index.do(Index.count, upstream, "command", len(gone), sum(each.size for each in gone))
