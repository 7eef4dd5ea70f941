"""Tags of a repository and repositories of a registry, page by page (distribution-spec, "Content Discovery")."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urljoin

from client.registries.api import Api, counted, expect, origin
from client.wire.exchange import read
from ocispec import strictjson
from ocispec.errors import GrammarError, NameUnknown, RegistryError, ResponseInvalid
from ocispec.headers import Scope, next_link
from ocispec.members import as_list, as_object, as_string

MAX_PAGE = 4 * 1024 * 1024
MAX_PAGES = 100_000
PAGE = 1000
CATALOG = Scope("registry", "catalog", ("*",))


async def pages(api: Api, path: str, missing: type[RegistryError]) -> AsyncIterator[bytes]:
    """Yields the bodies of a list, as its `Link` leads from one to the next (RFC 8288).

    Args:
        api: the endpoint.
        path: of the first page.
        missing: raised where the registry has no such list and does not say more.

    Raises:
        ResponseInvalid: a page that is too long, a link to another host or to a page that was here before, or more
            than `MAX_PAGES`.
        LayerhouseError: as the registry answers.
    """
    seen: set[str] = set()
    place: str | None = path
    while place is not None:
        if place in seen or len(seen) >= MAX_PAGES:
            raise ResponseInvalid(f"the list has no end: after {len(seen)} pages it leads to {place[:200]!r}")
        seen.add(place)
        async with api.send("GET", place) as response:
            await expect(response, 200, missing)
            body = await read(counted(response), MAX_PAGE)
            place = _next(api, response.url, response.headers.get("link", ""))
        if body is None:
            raise ResponseInvalid(f"a page of the list is longer than {MAX_PAGE} bytes")
        yield body


async def tags(api: Api) -> AsyncIterator[str]:
    """Yields the tags of the endpoint's repository, in the order of the registry (end-8); errors as `pages`."""
    async for each in _names(api, f"{api.endpoint.repository}/tags/list?n={PAGE}", "tags"):
        yield each


async def catalog(api: Api) -> AsyncIterator[str]:
    """Yields the repositories of a registry; not of the specification, but most have it. Errors as `pages`."""
    async for each in _names(api, f"_catalog?n={PAGE}", "repositories"):
        yield each


async def _names(api: Api, path: str, member: str) -> AsyncIterator[str]:
    async for body in pages(api, path, NameUnknown):
        try:
            members: dict[str, Any] = as_object(strictjson.loads(body), "list")
            names = [as_string(each, f"{member}[{n}]") for n, each in enumerate(as_list(members.get(member), member))]
        except (strictjson.AmbiguousJSON, GrammarError) as error:
            raise ResponseInvalid(f"the registry's list cannot be read: {error}") from error
        for each in names:
            yield each


def _next(api: Api, here: str, header: str) -> str | None:
    if not header:
        return None
    try:
        target = next_link(header)
    except GrammarError as error:
        raise ResponseInvalid(error.message) from error
    if target is None:
        return None
    url = urljoin(here, target)
    if origin(url) != origin(api.endpoint.api):
        raise ResponseInvalid(f"the list leads to another host: {url[:200]!r}")
    return url
