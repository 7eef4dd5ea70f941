"""What a mirror fetched expires when nobody has used it for a while (Distribution's `proxy.ttl`).

It comes anew when somebody asks again. Distribution removes the bytes of what expired, also those that another
repository still has (its issue #2367). Here the repository forgets them, and bytes go only where no repository has
them any more.
"""

from __future__ import annotations

import logging

from registry.mirror.index import Cause, Content, Index
from registry.mirror.removing import Remover
from registry.mirror.space import Share
from registry.sqlitefiles import SharedFile

_log = logging.getLogger("registry")
_AT_ONCE = 1000


async def expire(
    share: Share, before: float, index: SharedFile[Index], remover: Remover, cause: Cause = "ttl"
) -> list[Content]:
    """Removes what was last used before a time from the repositories of a share; returns what has gone.

    Raises:
        RegistryError: upstream does not answer: what is here is then all that there is, and stays.
        StorageError: something cannot be read or removed.
    """
    gone: list[Content] = []
    asked = False
    for manifests in (False, True):
        behind = (-1.0, "")
        while old := await _old(share, before, index, behind, manifests=manifests):
            if not asked:
                await share.reachable()
                asked = True
            behind = old[-1].used, str(old[-1].digest)
            gone += await remover.remove(old, share.has)
    size = sum(each.size for each in gone)
    if gone:
        await index.do(Index.count, share.upstream, cause, len(gone), size)
    level = logging.INFO if gone else logging.DEBUG
    _log.log(level, "%d manifests and blobs of the mirror expired, %d bytes", len(gone), size)
    return gone


async def _old(
    share: Share, before: float, index: SharedFile[Index], behind: tuple[float, str], *, manifests: bool
) -> list[Content]:
    page = await index.do(Index.oldest, share.prefix, manifests=manifests, behind=behind, limit=_AT_ONCE)
    return [each for each in page if each.used < before]
