"""What the configuration forbids, no route lets through: asked of every route that the application has."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute

from registry.api.dependencies import READ
from registry.api.guard import UPLOADS
from registry.app import create_app
from registry.config import Settings
from storage.files import FilesEngine
from storage.memory import MemoryEngine
from tests.support.api import Api, serving
from tests.support.images import sha256

DELETES_OFF: dict[str, Any] = {"delete": {"enabled": False}}
READ_ONLY: dict[str, Any] = {"delete": {"enabled": True}, "maintenance": {"readonly": {"enabled": True}}}
# What a route's parameters stand for; one that a new route brings along is just something.
WORDS = {"name": "image", "reference": "v1", "tag": "v1", "digest": sha256(b"{}")}


def routes() -> Iterator[tuple[str, APIRoute]]:
    """Every method of every route, out of the application's own table."""
    app: Any = create_app(Settings(), MemoryEngine())
    while not isinstance(app, FastAPI):
        app = app._app
    yield from below(app.routes)


def below(table: Iterable[Any]) -> Iterator[tuple[str, APIRoute]]:
    """Anything but a route, as an application that is mounted, would go past the guard."""
    for route in table:
        if isinstance(route, APIRoute):
            yield from ((method, route) for method in sorted(route.methods))
        else:
            yield from below(route.original_router.routes)


MUTATIONS = [(method, route) for method, route in routes() if method not in READ]
each_mutation = pytest.mark.parametrize(
    ("method", "route"), MUTATIONS, ids=[f"{method} {route.path}" for method, route in MUTATIONS]
)


def target(route: APIRoute, upload: str) -> str:
    words = {**WORDS, "upload_id": upload}
    return re.sub(r"\{(\w+)(?::\w+)?\}", lambda found: words.get(found[1], "x"), route.path)


def tree(root: Path) -> dict[str, bytes]:
    """All that lies in the registry's storage, but what is temporary."""
    files = (each for each in root.rglob("*") if each.is_file() and ".layerhouse" not in each.parts)
    return {str(each.relative_to(root)): each.read_bytes() for each in files}


@pytest.fixture
async def begun(tmp_path: Path) -> str:
    """A registry that holds an image, a tag and an upload; returns the upload's id."""
    async with serving(FilesEngine(tmp_path)) as api:
        await api.push_image("image", "v1", b"layer")
        return (await api.begin("image")).rpartition("/")[2]


@pytest.fixture
async def guarded(tmp_path: Path, begun: str, request: pytest.FixtureRequest) -> AsyncIterator[tuple[Api, str]]:
    async with serving(FilesEngine(tmp_path), Settings.model_validate({"storage": request.param})) as api:
        yield api, begun


@each_mutation
@pytest.mark.parametrize("guarded", [READ_ONLY], indirect=True, ids=["read-only"])
async def test_nothing_changes_in_a_registry_that_is_read_only(
    guarded: tuple[Api, str], tmp_path: Path, method: str, route: APIRoute
) -> None:
    api, upload = guarded
    before = tree(tmp_path)
    answer = await api.ask(method, target(route, upload), b"{}", {"Content-Type": "application/json"})
    assert (answer.status, answer.code) == (405, "UNSUPPORTED")
    assert answer.message == "the registry is read-only: storage.maintenance.readonly is enabled"
    assert tree(tmp_path) == before


@each_mutation
@pytest.mark.parametrize("guarded", [DELETES_OFF], indirect=True, ids=["deletes off"])
async def test_nothing_stored_is_deleted_where_deletes_are_off(
    guarded: tuple[Api, str], tmp_path: Path, method: str, route: APIRoute
) -> None:
    api, upload = guarded
    before = tree(tmp_path)
    answer = await api.ask(method, target(route, upload), b"{}", {"Content-Type": "application/json"})
    if method == "DELETE" and UPLOADS not in route.tags:
        assert (answer.status, answer.code) == (405, "UNSUPPORTED")
        assert answer.message == "deletes are disabled: set storage.delete.enabled"
        assert tree(tmp_path) == before
    else:
        assert "deletes are disabled" not in answer.body.decode()
        assert {path for path in before if "_uploads" not in path} <= set(tree(tmp_path))


@pytest.mark.parametrize("guarded", [READ_ONLY, DELETES_OFF], indirect=True, ids=["read-only", "deletes off"])
@pytest.mark.parametrize("method", READ)
async def test_reading_goes_on(guarded: tuple[Api, str], method: str) -> None:
    api, upload = guarded
    for path in (
        "/v2/",
        "/v2/_catalog",
        "/v2/image/tags/list",
        "/v2/image/manifests/v1",
        f"/v2/image/blobs/{sha256(b'layer')}",
        f"/v2/image/referrers/{sha256(b'layer')}",
        f"/v2/image/blobs/uploads/{upload}",
    ):
        assert (await api.ask(method, path)).status in (200, 204)


@pytest.mark.parametrize("guarded", [DELETES_OFF], indirect=True, ids=["deletes off"])
async def test_where_deletes_are_off_an_upload_may_be_given_up_and_a_tag_pushed_anew(guarded: tuple[Api, str]) -> None:
    api, upload = guarded
    assert (await api.ask("DELETE", f"/v2/image/blobs/uploads/{upload}")).status == 204
    await api.push_image("image", "v1", b"another")
    for path in ("manifests/v1", f"manifests/{sha256(b'x')}", f"blobs/{sha256(b'layer')}"):
        assert (await api.ask("DELETE", f"/v2/image/{path}")).status == 405
    assert (await api.get(f"/v2/image/blobs/{sha256(b'layer')}")).status == 200


async def test_the_table_of_routes_knows_of_every_mutation_of_the_specification() -> None:
    table = {(method, target(route, "id")) for method, route in MUTATIONS}
    assert table >= {
        ("POST", "/v2/image/blobs/uploads/"),
        ("PATCH", "/v2/image/blobs/uploads/id"),
        ("PUT", "/v2/image/blobs/uploads/id"),
        ("DELETE", "/v2/image/blobs/uploads/id"),
        ("DELETE", f"/v2/image/blobs/{WORDS['digest']}"),
        ("PUT", "/v2/image/manifests/v1"),
        ("DELETE", "/v2/image/manifests/v1"),
    }
