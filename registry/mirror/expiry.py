"""What a mirror fetched expires (Distribution's `proxy.ttl`), and comes anew when somebody asks again.

Distribution removes the bytes of what expired, also those that another repository still has (its issue #2367). Here the
repository forgets them, and bytes go only where no repository has them any more.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeAlias

from ocispec.digest import Digest
from ocispec.errors import PathUnknown, RegistryError, StorageError
from ocispec.reference import RepositoryName
from storage import links, paths
from storage.collecting.folders import digests, repositories
from storage.engine import Engine
from storage.names import names
from storage.threads import paced

_log = logging.getLogger("registry")
# How often what expired is looked for, in seconds: ten times in its life, and once an hour at most.
_SHARE, _SELDOM, _OFTEN = 10, 3600.0, 1.0
# Beside a link: Distribution passes it over.
_FETCHED = "fetched"

Reachable: TypeAlias = Callable[[], Awaitable[object]]


async def expire_for_ever(engine: Engine, ttl: float, reachable: Reachable) -> None:
    """Removes what is older than `ttl` seconds, again and again; 0 keeps all for ever. See `expire`."""
    while ttl:
        try:
            count = await expire(engine, time.time() - ttl, reachable)
        except (RegistryError, StorageError) as error:
            _log.warning("nothing expires: %s", error.message)
        else:
            _log.log(logging.INFO if count else logging.DEBUG, "%d manifests and blobs of the mirror expired", count)
        await asyncio.sleep(max(_OFTEN, min(ttl / _SHARE, _SELDOM)))


async def expire(engine: Engine, before: float, reachable: Reachable) -> int:
    """Removes what was fetched before a time in seconds since the epoch; returns how many manifests and blobs.

    A fetch beside it may link bytes that are just being removed: they are fetched anew when somebody asks for them.

    Args:
        engine: where it lies.
        before: the time.
        reachable: raises RegistryError while upstream does not answer: what is here is then all that there is.

    Raises:
        StorageError: something cannot be read or removed.
    """
    old = {name: each async for name, _ in repositories(engine) if any(each := await _old(engine, name, before))}
    if not old:
        return 0
    await reachable()
    for name, (manifests, blobs) in old.items():
        await _forget(engine, name, manifests, blobs)
    expired = {digest for groups in old.values() for group in groups for digest in group}
    await _remove_bytes(engine, expired, before)
    return len(expired)


async def _old(engine: Engine, name: RepositoryName, before: float) -> tuple[set[Digest], set[Digest]]:
    """Manifests and blobs of a repository that were fetched before."""
    manifests, blobs = _rooms(name)
    return {each async for each in _fetched(engine, manifests, before)}, {
        each async for each in _fetched(engine, blobs, before)
    }


async def _fetched(engine: Engine, folder: str, before: float) -> AsyncIterator[Digest]:
    async for digest in paced(await digests(engine, folder)):
        try:
            fetched = (await engine.stat(f"{folder}/{digest.algorithm}/{digest.hex}/{_FETCHED}")).modified
        except PathUnknown:
            continue
        if fetched < before:
            yield digest


async def _forget(engine: Engine, name: RepositoryName, manifests: set[Digest], blobs: set[Digest]) -> None:
    if manifests:
        await _forget_tags(engine, name, manifests)
    for digest in manifests:
        await engine.delete(paths.revision(name, digest), durable=False)
    for digest in blobs:
        await engine.delete(paths.layer(name, digest), durable=False)


async def _forget_tags(engine: Engine, name: RepositoryName, manifests: set[Digest]) -> None:
    async for tag in names(engine, paths.tags(name)):
        if await links.read(engine, f"{paths.tags(name)}/{tag}/current/link") in manifests:
            await engine.delete(f"{paths.tags(name)}/{tag}", durable=False)


async def _remove_bytes(engine: Engine, expired: set[Digest], before: float) -> None:
    async for name, _ in repositories(engine):
        for folder in _rooms(name):
            expired = expired.difference(await digests(engine, folder))
    async for digest in paced(expired):
        data = paths.blob_data(digest)
        try:
            young = (await engine.stat(data)).modified >= before
        except PathUnknown:
            continue
        if not young:
            await engine.delete(data.rpartition("/")[0], durable=False)


def _rooms(name: RepositoryName) -> tuple[str, str]:
    """Where the links of a repository's manifests and blobs lie."""
    return f"{paths.manifests(name)}/revisions", f"{paths.repository(name)}/{paths.LAYERS}"
