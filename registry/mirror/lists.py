"""Lists of a mirrored repository: its tags, and what refers to its manifests. Upstream's, remembered for a while.

Where upstream cannot be asked, what it said last is served, or what is here, and the answer says so.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

from ocispec.descriptor import Descriptor
from ocispec.digest import Digest
from ocispec.errors import GrammarError, NameUnknown, RegistryError
from ocispec.reference import RepositoryName, Tag
from registry.mirror.asked import tell_stale
from registry.mirror.flights import Flights
from registry.mirror.remembering import Remembered
from registry.mirror.upstream import Refused, Upstream
from storage.repository import Page, Referrers, TagLink, Tags

_log = logging.getLogger("registry")
# Tags and descriptors that are remembered, of all lists together.
_MOST = 200_000
# Who pages through a list asks for it again and again.
_LEAST = 5.0
_WITHIN = 30.0


class Lists:
    """Lists that upstream gave.

    Args:
        upstream: gives them.
        flights: one question at a time.
        fresh: how many seconds a list is believed; some seconds at least.
    """

    def __init__(self, upstream: Upstream, flights: Flights, fresh: float) -> None:
        self._upstream = upstream
        self._flights = flights
        self._fresh = max(fresh, _LEAST)
        self._kept: Remembered[tuple[RepositoryName, Digest | None], Sequence[Any]] = Remembered(_MOST)

    async def tags(self, name: RepositoryName, there: RepositoryName) -> Sequence[str]:
        """Returns all tags in lexical order; errors as `referrers`."""

        async def ask() -> Sequence[str]:
            return sorted({each for each in await self._upstream.tags(there) if _is_tag(each)})

        return await self._of((name, None), ask)

    async def referrers(self, name: RepositoryName, there: RepositoryName, subject: Digest) -> Sequence[Descriptor]:
        """Returns what refers to a manifest.

        Raises:
            NameUnknown, …: upstream has no such repository, or grants no access.
            Unavailable, TooManyRequests: it cannot be asked, and never was.
        """
        return await self._of((name, subject), partial(self._upstream.referrers, there, subject))

    async def _of(
        self, key: tuple[RepositoryName, Digest | None], ask: Callable[[], Awaitable[Sequence[Any]]]
    ) -> Sequence[Any]:
        found = self._kept.get(key, self._fresh)
        if found is not None:
            return found
        try:
            return await self._flights.join(("list", *key), partial(self._asked, key, ask))
        except RegistryError as error:
            old = self._kept.get(key)
            if old is None or is_gone(error):
                raise
            tell_stale()
            return old

    async def _asked(
        self, key: tuple[RepositoryName, Digest | None], ask: Callable[[], Awaitable[Sequence[Any]]]
    ) -> Sequence[Any]:
        async with self._upstream.briefly(_WITHIN):
            found = await ask()
        self._kept.put(key, found, 1 + len(found))
        return found


class MirroredTags:
    """Implements `storage.repository.Tags`."""

    def __init__(self, name: RepositoryName, there: RepositoryName, here: Tags, lists: Lists) -> None:
        self._name = name
        self._there = there
        self._here = here
        self._lists = lists

    async def page(self, after: str, limit: int) -> Page:
        try:
            names = await self._lists.tags(self._name, self._there)
        except RegistryError as error:
            if is_gone(error):
                raise
            return await self._page_here(after, limit, error)
        return Page.of([each for each in names if each > after][: limit + 1], limit)

    async def link(self, tag: Tag) -> TagLink:
        return await self._here.link(tag)

    async def delete(self, tag: Tag) -> None:
        await self._here.delete(tag)

    async def _page_here(self, after: str, limit: int, error: RegistryError) -> Page:
        try:
            page = await self._here.page(after, limit)
        except NameUnknown:
            raise error from None
        _log.debug("%s: the tags that are here are listed: %s", self._name, error.message)
        tell_stale()
        return page


class MirroredReferrers:
    """Implements `storage.repository.Referrers`."""

    def __init__(self, name: RepositoryName, there: RepositoryName, here: Referrers, lists: Lists) -> None:
        self._name = name
        self._there = there
        self._here = here
        self._lists = lists

    async def of(self, subject: Digest) -> tuple[Descriptor, ...]:
        try:
            return tuple(await self._lists.referrers(self._name, self._there, subject))
        except RegistryError as error:
            found = await self._here.of(subject)
            # Nobody may take it for unsigned because upstream cannot be asked.
            if not found and error.status != NameUnknown.status:
                raise
            _log.debug("%s: the referrers that are here are listed: %s", self._name, error.message)
            tell_stale()
            return found


def is_gone(error: RegistryError) -> bool:
    """Whether upstream knows better than what is here; anything else is a reason to serve that."""
    return error.status == NameUnknown.status and not isinstance(error, Refused)


def _is_tag(text: str) -> bool:
    try:
        Tag.parse(text)
    except (RegistryError, GrammarError):
        return False
    return True
