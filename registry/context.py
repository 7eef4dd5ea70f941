"""What a request carries with it, from the middleware that finds it out to the handlers that use it.

It travels in the ASGI scope, so that plain ASGI and FastAPI's handlers read it the same way.
"""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from typing import Any

from ocispec.errors import LayerhouseError
from ocispec.headers import Scope as TokenScope
from registry.auth.caller import ANYONE, Caller

Scope = MutableMapping[str, Any]

_CALLER = "layerhouse.caller"
_ID = "layerhouse.request_id"
_ERROR = "layerhouse.error"
_TAKEN_OFF = "layerhouse.taken_off"
_TRIED = "layerhouse.tried"
_ISSUED = "layerhouse.issued"
_HIDDEN = "layerhouse.hidden"


def caller(scope: Scope) -> Caller:
    """Who asks; anyone, who may do everything, where no kind of authentication is configured."""
    found: Caller = scope.get(_CALLER, ANYONE)
    return found


def set_caller(scope: Scope, caller: Caller) -> None:
    scope[_CALLER] = caller


def request_id(scope: Scope) -> str:
    """The id that the log knows the request by."""
    return str(scope.get(_ID, ""))


def set_request_id(scope: Scope, request_id: str) -> None:
    scope[_ID] = request_id


def error(scope: Scope) -> LayerhouseError | None:
    """What was answered with, where that was an error."""
    found: LayerhouseError | None = scope.get(_ERROR)
    return found


def set_error(scope: Scope, error: LayerhouseError) -> None:
    scope[_ERROR] = error


def tried(scope: Scope) -> str | None:
    """Whose password came with the request, right or wrong, as the client says; None where none came."""
    name: str | None = scope.get(_TRIED)
    return name


def set_tried(scope: Scope, name: str) -> None:
    scope[_TRIED] = name


def issued(scope: Scope) -> Sequence[TokenScope] | None:
    """What the token covers that was given out; None where none was."""
    found: Sequence[TokenScope] | None = scope.get(_ISSUED)
    return found


def set_issued(scope: Scope, covered: Sequence[TokenScope]) -> None:
    scope[_ISSUED] = covered


def is_hidden(scope: Scope) -> bool:
    """Whether it was answered as if there were nothing, because the caller may not know."""
    return _HIDDEN in scope


def set_hidden(scope: Scope) -> None:
    scope[_HIDDEN] = True


def header(scope: Scope, name: bytes) -> str:
    """The first value of a header; empty where it does not stand."""
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == name), "")


def address(scope: Scope) -> str:
    """Where the request came from, as `host:port`; behind a trusted proxy, the host that it names."""
    host, port = scope.get("client") or ("", 0)
    return f"{host}:{port}" if port else str(host)


def host(scope: Scope) -> str:
    """The address alone; empty for who comes by a UNIX socket."""
    return str((scope.get("client") or ("",))[0])


def taken_off(scope: Scope) -> str:
    """The path that a trusted proxy took off before it asked, like `/registry`; empty for none."""
    return str(scope.get(_TAKEN_OFF, ""))


def set_taken_off(scope: Scope, path: str) -> None:
    scope[_TAKEN_OFF] = path


def client_certificate(scope: Scope) -> str | None:
    """The subject of the certificate that the client showed and that was verified, as RFC 4514 writes it.

    None where it showed none, or was not asked: what a proxy in front verified is not known here.
    """
    name: str | None = scope.get("extensions", {}).get("tls", {}).get("client_cert_name")
    return name
