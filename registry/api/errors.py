"""The one place where an error becomes an answer: the specification's JSON envelope."""

from __future__ import annotations

import json

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from ocispec.errors import GrammarError, LayerhouseError, RegistryError, UnknownError, Unsupported, envelope


def render(error: LayerhouseError) -> Response:
    """Returns the answer for an error of the tree.

    What is no `RegistryError` is a fault of ours: its message is for the log, not for the client.
    """
    shown = error if isinstance(error, RegistryError) else UnknownError("the registry met a fault of its own")
    body = json.dumps(envelope(shown)).encode()
    return Response(body, error.status, {"Content-Type": "application/json", **error.headers})


def add_handlers(app: FastAPI) -> None:
    """Renders everything that FastAPI's routing and validation refuse the same way."""

    @app.exception_handler(LayerhouseError)
    async def of_the_tree(_request: Request, error: LayerhouseError) -> Response:
        if not isinstance(error, RegistryError):
            raise error
        return render(error)

    @app.exception_handler(HTTPException)
    async def of_routing(request: Request, error: HTTPException) -> Response:
        refused = Unsupported(f"{request.method} is not supported at this address")
        refused.headers.update(error.headers or {})
        answer = render(refused)
        answer.status_code = error.status_code
        return answer

    @app.exception_handler(RequestValidationError)
    async def of_validation(_request: Request, error: RequestValidationError) -> Response:
        answer = render(Unsupported("; ".join(f"{each['loc'][-1]}: {each['msg']}" for each in error.errors())))
        answer.status_code = GrammarError.status
        return answer
