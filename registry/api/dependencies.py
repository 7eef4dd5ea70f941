"""What handlers ask for: the store, the repository, the page."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlencode

from fastapi import Depends, Request

from ocispec.errors import PageSizeInvalid
from ocispec.headers import Link
from ocispec.reference import RepositoryName
from registry.api.urls import location
from registry.config import Settings
from registry.events import Events
from storage.repository import Page, Repository
from storage.store import Store

# FastAPI does not add HEAD to GET by itself (RFC 9110, section 9.1 asks for both).
READ = ["GET", "HEAD"]


async def store(request: Request) -> Store:
    found: Store = request.app.state.store
    return found


async def settings(request: Request) -> Settings:
    found: Settings = request.app.state.settings
    return found


async def events(request: Request) -> Events:
    found: Events = request.app.state.events
    return found


TheStore = Annotated[Store, Depends(store)]
TheSettings = Annotated[Settings, Depends(settings)]
TheEvents = Annotated[Events, Depends(events)]


async def repository(name: str, store: TheStore) -> Repository:
    return store.repository(RepositoryName.parse(name))


TheRepository = Annotated[Repository, Depends(repository)]


def limited(n: str | None, most: int) -> int:
    """Reads the query's `n`: at most `most`, which is also what stands for none.

    Raises:
        PageSizeInvalid: no whole number of at least 0.
    """
    if n is None:
        return most
    if not n.isascii() or not n.isdecimal():
        raise PageSizeInvalid(f"n={n[:40]!r}: expected a whole number of at least 0", detail={"n": n[:40]})
    return min(int(n.lstrip("0")[:19] or "0"), most)


def next_page(request: Request, path: str, page: Page, n: int, **query: str) -> dict[str, str]:
    """Returns the `Link` header to what follows, where something does (RFC 8288); `query` is what else it asks for."""
    if not page.more or not page.entries:
        return {}
    target = f"{location(request, path)}?{urlencode({'n': n, 'last': page.entries[-1], **query})}"
    return {"Link": str(Link(target, {"rel": "next"}))}
