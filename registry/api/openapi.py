"""The OpenAPI description of every endpoint, and the page that shows it."""

from __future__ import annotations

from importlib.metadata import version as installed
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.openapi.utils import get_openapi
from fastapi.responses import HTMLResponse, JSONResponse
from pydantic import BaseModel

from registry.api import endpoints, management
from registry.api.page import page
from registry.api.urls import location

SCHEMA = "/_layerhouse/openapi.json"
DOCS = "/_layerhouse/docs"
_ABOUT = (
    "An OCI registry: the endpoints of the distribution specification, and those that care for repositories. "
    "Every GET may be asked as HEAD. Every error is the specification's envelope."
)
# The page needs nothing but itself.
_POLICY = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
}
router = APIRouter()


class Error(BaseModel):
    """One thing that went wrong (distribution-spec, "Error Codes")."""

    code: str
    message: str
    detail: Any = None


class Errors(BaseModel):
    """What every error is answered with."""

    errors: list[Error]


@router.head(SCHEMA, include_in_schema=False)
@router.get(SCHEMA, include_in_schema=False)
async def description(request: Request) -> JSONResponse:
    """The description, for tools."""
    return JSONResponse(_described(request))


@router.head(DOCS, include_in_schema=False)
@router.get(DOCS, include_in_schema=False)
async def docs(request: Request) -> HTMLResponse:
    """The description, for people: one page that works without any network."""
    return HTMLResponse(page(_described(request)), headers=_POLICY)


def _described(request: Request) -> dict[str, Any]:
    """Returns the description, with the address by which the client reaches this registry."""
    app: FastAPI = request.app
    app.openapi_schema = app.openapi_schema or _generated()
    return {**app.openapi_schema, "servers": [{"url": location(request, "/").rstrip("/") or "/"}]}


def _generated() -> dict[str, Any]:
    told = APIRouter(responses={"default": {"model": Errors, "description": "An error."}})
    told.include_router(management.router)
    told.include_router(endpoints.described)
    version = installed("layerhouse")
    tags = [management.TAG, *endpoints.TAGS]
    schema = get_openapi(title="Layerhouse", version=version, description=_ABOUT, routes=told.routes, tags=tags)
    for operation in (each for operations in schema["paths"].values() for each in operations.values()):
        for parameter in operation.get("parameters", ()):
            _refine(parameter)
    return schema


def _refine(parameter: dict[str, Any]) -> None:
    """Tells of what handlers read themselves, to refuse it with errors of the specification, what they expect."""
    known = {"name": endpoints.NAME, "from": endpoints.NAME, "n": endpoints.NUMBER}
    if parameter["name"] in known:
        examples = {name: value for name, value in parameter["schema"].items() if name == "examples"}
        parameter["schema"] = {**known[parameter["name"]], **examples}
