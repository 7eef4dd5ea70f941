"""The management API, below `/_layerhouse/v1/`: what Distribution cannot tell or do; `docs/api.md` shows it."""

from __future__ import annotations

from importlib.metadata import version as installed
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, Field

from ocispec.errors import Denied, NameUnknown
from ocispec.reference import RepositoryName, Tag
from registry import context
from registry.api.dependencies import TheEvents, TheRepository, TheStore, limited, next_page
from registry.auth.caller import Action
from registry.details import TagDetails, details
from registry.events import Target, What
from storage.repository import Repository

MOST, MOST_TAGS = 1000, 100
"""How many repositories and tags one page holds at most: looking at a tag costs a hundred times as much."""

TAG = {"name": "Care", "description": "Of whole repositories, and of tags with all that is known of them."}
router = APIRouter(tags=["Care"], generate_unique_id_function=lambda route: route.name)
_V1 = "/_layerhouse/v1"
_REPOSITORIES = f"{_V1}/repositories"
_REPOSITORY = f"{_REPOSITORIES}/{{name:path}}"
_PAGE: dict[int | str, dict[str, Any]] = {
    200: {"description": "A page.", "headers": {"Link": {"schema": {"type": "string"}}}}
}


class Version(BaseModel):
    """Which registry this is."""

    name: Annotated[str, Field(examples=["layerhouse"])]
    version: Annotated[str, Field(examples=["1.0.0"])]
    api: Annotated[str, Field(description="Of this API: it stands in every path.", examples=["v1"])]


class Repositories(BaseModel):
    """A page of repositories."""

    repositories: Annotated[list[str], Field(examples=[["library/busybox", "team/app"]])]


class RepositoryDetails(BaseModel):
    """What a repository holds. Blobs that several repositories link lie on disk once."""

    name: Annotated[str, Field(examples=["team/app"])]
    tags: int
    manifests: Annotated[int, Field(description="With a tag or without.")]
    blobs: int
    uploads: Annotated[int, Field(description="In progress.")]


class Tags(BaseModel):
    """A page of tags."""

    name: Annotated[str, Field(examples=["team/app"])]
    tags: list[TagDetails]


async def readable(request: Request, repository: TheRepository) -> Repository:
    """What a caller may not read is answered as if it were not there; raises NameUnknown."""
    if not context.caller(request.scope).may(Action.PULL, repository.name):
        raise _unknown(repository.name)
    return repository


async def deletable(request: Request, repository: TheRepository) -> Repository:
    """Raises NameUnknown, or Denied: the caller may read the repository, and not delete it."""
    caller = context.caller(request.scope)
    if not caller.may(Action.DELETE, repository.name):
        if caller.may(Action.PULL, repository.name):
            raise Denied(f"you may not delete the repository {repository.name}")
        raise _unknown(repository.name)
    return repository


def _unknown(name: RepositoryName) -> NameUnknown:
    return NameUnknown(detail={"name": name})


Readable = Annotated[Repository, Depends(readable)]
Deletable = Annotated[Repository, Depends(deletable)]
PageSize = Annotated[str | None, Query(description=f"How many at most; {MOST} unless told, and at most.")]
TagPageSize = Annotated[str | None, Query(description=f"How many at most; {MOST_TAGS} unless told, and at most.")]
Last = Annotated[str, Query(description="Where the page before this one ended: only what comes behind it is listed.")]


@router.head(f"{_V1}/version", include_in_schema=False)
@router.get(f"{_V1}/version", response_description="Name, version, and that of this API.")
async def version() -> Version:
    """Which registry this is."""
    return Version(name="layerhouse", version=installed("layerhouse"), api="v1")


@router.head(_REPOSITORIES, include_in_schema=False)
@router.get(_REPOSITORIES, responses=_PAGE)
async def repositories(
    request: Request,
    response: Response,
    store: TheStore,
    *,
    n: PageSize = None,
    last: Last = "",
    q: Annotated[str, Query(description="Only names that contain this text; all names are looked at for it.")] = "",
) -> Repositories:
    """Repositories in lexical order: those that the caller may read."""
    most, caller = limited(n, MOST), context.caller(request.scope)
    page = await store.catalog(last, most, shown=lambda name: q in name and caller.may(Action.PULL, name))
    response.headers.update(next_page(request, _REPOSITORIES, page, most, **({"q": q} if q else {})))
    return Repositories(repositories=list(page.entries))


@router.head(f"{_REPOSITORY}/tags", include_in_schema=False, response_model_exclude_none=True)
@router.get(f"{_REPOSITORY}/tags", response_model_exclude_none=True, responses=_PAGE)
async def tags(
    request: Request, response: Response, repository: Readable, n: TagPageSize = None, last: Last = ""
) -> Tags:
    """Tags in lexical order, each with digest, time, size and platforms."""
    most = limited(n, MOST_TAGS)
    page = await repository.tags.page(last, most)
    response.headers.update(next_page(request, f"{_REPOSITORIES}/{repository.name}/tags", page, most))
    return Tags(name=repository.name, tags=await details(repository, map(Tag, page.entries)))


# A repository may be called team/tags: its address ends in a slash, where the other would list the tags of team.
@router.head(_REPOSITORY, include_in_schema=False)
@router.get(_REPOSITORY, response_description="Numbers of what it links.")
@router.head(f"{_REPOSITORY}/", include_in_schema=False)
@router.get(f"{_REPOSITORY}/", include_in_schema=False)
async def repository(repository: Readable, store: TheStore) -> RepositoryDetails:
    """How much a repository holds."""
    counts = await store.count(repository.name)
    return RepositoryDetails(
        name=repository.name,
        tags=counts.tags,
        manifests=counts.manifests,
        blobs=counts.blobs,
        uploads=counts.uploads,
    )


@router.delete(_REPOSITORY, status_code=204, response_class=Response, response_description="It is gone.")
async def delete_repository(request: Request, repository: Deletable, store: TheStore, events: TheEvents) -> None:
    """Deletes a repository: its tags, manifests, blobs' links and uploads.

    Repositories below its name stay. The garbage collector frees the blobs that no other repository links.
    """
    await store.remove(repository.name)
    await events.tell(What.DELETE, request.scope, Target(repository.name))
