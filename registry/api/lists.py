"""Lists: the base, tags, referrers, and Distribution's catalogue."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from ocispec import mediatypes
from ocispec.digest import Digest
from registry import context
from registry.api.dependencies import READ, TheRepository, TheSettings, TheStore, limited, next_page
from registry.auth.caller import Action

router = APIRouter()


@router.api_route("/v2/", methods=READ)
@router.api_route("/v2", methods=READ)
async def base() -> JSONResponse:
    """end-1: the registry speaks this protocol."""
    return JSONResponse({})


@router.api_route("/v2/_catalog", methods=READ)
async def catalog(
    request: Request, store: TheStore, settings: TheSettings, n: str | None = None, last: str = ""
) -> JSONResponse:
    """Distribution's catalogue: names of all repositories, in lexical order."""
    most = limited(n, settings.catalog.maxentries)
    caller = context.caller(request.scope)
    page = await store.catalog(last, most, shown=lambda name: caller.may(Action.PULL, name))
    return JSONResponse({"repositories": page.entries}, headers=next_page(request, "/v2/_catalog", page, most))


@router.api_route("/v2/{name:path}/tags/list", methods=READ)
async def tags(
    request: Request, repository: TheRepository, settings: TheSettings, n: str | None = None, last: str = ""
) -> JSONResponse:
    """end-8a, end-8b: tags in lexical order."""
    most = limited(n, settings.tags.maxtags)
    page = await repository.tags.page(last, most)
    path = f"/v2/{repository.name}/tags/list"
    return JSONResponse({"name": repository.name, "tags": page.entries}, headers=next_page(request, path, page, most))


@router.api_route("/v2/{name:path}/referrers/{digest}", methods=READ)
async def referrers(repository: TheRepository, digest: str, artifactType: str | None = None) -> JSONResponse:  # noqa: N803 - the specification's name
    """end-12a, end-12b: an index of the manifests that have this one as their subject."""
    found = await repository.referrers.of(Digest.parse(digest))
    shown = [each.to_json() for each in found if artifactType in (None, each.artifact_type)]
    return JSONResponse(
        {"schemaVersion": 2, "mediaType": mediatypes.OCI_INDEX, "manifests": shown},
        headers={"OCI-Filters-Applied": "artifactType"} if artifactType is not None else {},
        media_type=mediatypes.OCI_INDEX,
    )
