"""Every route that there is, asked by every kind of caller: a route without a rule fails here."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.routing import APIRoute

from ocispec.errors import Denied, Unauthorized
from registry.api import pull
from registry.app import _endpoints
from registry.auth import composition
from registry.auth.wanted import OPEN
from registry.events import Events
from storage.memory import MemoryEngine
from storage.store import Store
from tests.support.callers import basic, htpasswd, settings

# What each route needs, by its address, whatever the method unless one stands before it.
NEEDS = {
    "/v2": "somebody",
    "/v2/": "somebody",
    "/v2/_catalog": "somebody",
    "/v2/NAME/manifests/REFERENCE": "by method",
    "/v2/NAME/blobs/REFERENCE": "by method",
    "/v2/NAME/blobs/uploads": "by method",
    "/v2/NAME/blobs/uploads/": "by method",
    "/v2/NAME/blobs/uploads/REFERENCE": "by method",
    "DELETE /v2/NAME/blobs/uploads/REFERENCE": "push",
    "/v2/NAME/tags/list": "by method",
    "/v2/NAME/referrers/REFERENCE": "by method",
    "/_layerhouse/v1/version": "somebody",
    "/_layerhouse/v1/repositories": "somebody",
    "/_layerhouse/v1/repositories/NAME": "by method",
    "/_layerhouse/v1/repositories/NAME/": "by method",
    "/_layerhouse/v1/repositories/NAME/tags": "by method",
    "/_layerhouse/openapi.json": "somebody",
    "/_layerhouse/docs": "somebody",
}
ACTIONS = {"GET": "pull", "HEAD": "pull", "POST": "push", "PUT": "push", "PATCH": "push", "DELETE": "delete"}
CALLERS = {
    "anonymous": {},
    "forger": basic("admin", "guessed"),
    "stranger": basic("stranger", "1"),
    "reader": basic("reader", "2"),
    "writer": basic("writer", "3"),
    "deleter": basic("deleter", "4"),
    "admin": basic("admin", "5"),
}
# What happens to callers for each need, in the order above.
OUTCOMES = {
    "somebody": ["ask", "ask", "let in", "let in", "let in", "let in", "let in"],
    "pull": ["ask", "ask", "hide", "let in", "let in", "let in", "let in"],
    "push": ["ask", "ask", "refuse", "refuse", "let in", "refuse", "let in"],
    "delete": ["ask", "ask", "hide", "refuse", "refuse", "let in", "let in"],
}
RULES = {
    "rules": [
        {"who": "user:admin", "allow": ["pull", "push", "delete", "admin"]},
        {"who": "user:reader", "allow": "pull", "repositories": "team/app"},
        {"who": "user:writer", "allow": ["pull", "push"], "repositories": "team/app"},
        {"who": "user:deleter", "allow": ["pull", "delete"], "repositories": "team/app"},
        {"who": "user:stranger", "allow": ["pull", "push", "delete"], "repositories": "elsewhere"},
    ]
}


def routes() -> Iterator[tuple[str, str]]:
    """Method and address of everything that is answered, parameters in capitals."""
    for method in pull.METHODS:
        for kind in ("manifests", "blobs"):
            yield method, f"/v2/NAME/{kind}/REFERENCE"
    app = _endpoints(settings(), Store(MemoryEngine()), Events())._app
    for route in flat(app.router):
        address = re.sub(r"\{\w+\}", "REFERENCE", re.sub(r"\{name:path\}", "NAME", route.path))
        for method in route.methods:
            yield method, address


def flat(router: Any) -> Iterator[APIRoute]:
    for route in router.routes:
        inner = getattr(route, "original_router", None)
        if isinstance(route, APIRoute):
            yield route
        else:
            assert inner is not None, f"{route}: no route that this test knows"
            yield from flat(inner)


@pytest.fixture
def gate(tmp_path: Path) -> Any:
    """A gate of its own for each route: many logins that fail are slowed."""
    file = htpasswd(tmp_path / "htpasswd", stranger="1", reader="2", writer="3", deleter="4", admin="5")
    return composition.guarded(reaching("let in"), lambda: reaching("hide"), settings(file, RULES))


def reaching(outcome: str) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(outcome)

    return app


@pytest.mark.parametrize("address", sorted({f"{method} {address}" for method, address in routes()}))
async def test_every_route_lets_in_whom_it_should(gate: Any, address: str) -> None:
    method, path = address.split()
    need = NEEDS.get(address) or NEEDS[path]
    expected = OUTCOMES[ACTIONS[method] if need == "by method" else need]
    target = path.replace("NAME", "team/app").replace("REFERENCE", "1")
    found = [await outcome(gate, method, target, headers) for headers in CALLERS.values()]
    assert dict(zip(CALLERS, found, strict=True)) == dict(zip(CALLERS, expected, strict=True))


async def outcome(gate: Any, method: str, path: str, headers: dict[str, str]) -> str:
    told: list[str] = []

    async def send(message: str) -> None:
        told.append(message)

    fields = [(name.encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": method, "path": path, "query_string": b"", "headers": fields}
    try:
        await gate(scope, None, send)
    except Unauthorized as error:
        return "ask" if "WWW-Authenticate" in error.headers else "refuse without a challenge"
    except Denied:
        return "refuse"
    return told[0]


def test_what_stands_open_is_this_alone() -> None:
    assert {"/"} == OPEN


def test_no_need_is_left_over() -> None:
    paths = {address for _, address in routes()}
    assert {need.rpartition(" ")[2] for need in NEEDS} == paths
