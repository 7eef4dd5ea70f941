"""The one place where an error becomes an answer: the specification's JSON envelope."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.routing import Match

from ocispec.errors import LayerhouseError, RegistryError, StorageFull, UnknownError, Unsupported, envelope
from registry import context
from registry.api import pull

_log = logging.getLogger("registry")


def render(error: RegistryError) -> Response:
    """Returns the answer for an error that a client may see."""
    body = json.dumps(envelope(error)).encode()
    return Response(body, error.status, {"Content-Type": "application/json", **error.headers})


def _full() -> Response:
    answer = render(UnknownError(StorageFull.summary))
    answer.status_code = StorageFull.status
    return answer


def add_handlers(app: FastAPI, routers: Sequence[APIRouter]) -> None:
    """Renders what the handlers and FastAPI's routing refuse; leaves faults to who knows the request's id."""

    @app.exception_handler(LayerhouseError)
    async def of_the_tree(request: Request, error: LayerhouseError) -> Response:
        if isinstance(error, StorageFull):
            _log.error("no space is left: %s", error.message)
            return _full()
        if not isinstance(error, RegistryError):
            raise error
        context.set_error(request.scope, error)
        if isinstance(error, Unsupported):
            error.headers["Allow"] = _allowed(routers, request)
        return render(error)

    @app.exception_handler(HTTPException)
    async def of_routing(request: Request, error: HTTPException) -> Response:
        refused = Unsupported(f"{request.method} is not supported at this address")
        if error.status_code == Unsupported.status:
            refused.headers["Allow"] = _allowed(routers, request)
        answer = render(refused)
        answer.status_code = error.status_code
        return answer

    @app.exception_handler(Exception)
    async def of_ours(_request: Request, error: Exception) -> Response:
        # Else FastAPI would answer for itself, in plain text.
        raise error


def _allowed(routers: Sequence[APIRouter], request: Request) -> str:
    """Returns the methods of this address but the one refused (RFC 9110, section 15.5.6)."""
    routes = [route for router in routers for route in router.routes if isinstance(route, APIRoute)]
    here = (route for route in routes if route.matches(request.scope)[0] is not Match.NONE)
    methods = {method for route in here for method in route.methods or ()}
    if pull.PATH.fullmatch(request.scope["path"]):
        methods |= pull.METHODS
    return ", ".join(sorted(methods - {request.method}))
