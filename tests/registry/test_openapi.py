"""The OpenAPI description tells every endpoint, holds under generated requests, and is shown without a network."""

from __future__ import annotations

import asyncio
import itertools
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from fastapi.routing import APIRoute
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.specs.openapi.checks import positive_data_acceptance

from registry.api import pull
from registry.api.page import page
from registry.app import create_app
from registry.config import Settings
from storage.files import FilesEngine
from storage.memory import MemoryEngine
from tests.support.api import DELETES, Api, serving

SCHEMA, DOCS = "/_layerhouse/openapi.json", "/_layerhouse/docs"
ANY = list(HealthCheck)


async def described(api: Api) -> dict[str, Any]:
    answer = await api.get(SCHEMA)
    assert answer.headers["content-type"] == "application/json"
    found: dict[str, Any] = answer.json
    return found


def operations(schema: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(method.upper(), path): told for path, each in schema["paths"].items() for method, told in each.items()}


def routes(api: Api) -> set[tuple[str, str]]:
    app = api.app
    while not hasattr(app, "state"):
        app = app._app
    included = [getattr(each, "original_router", app).routes for each in app.routes]
    found = {
        (method, re.sub(r":path}", "}", route.path))
        for route in itertools.chain(*included)
        if isinstance(route, APIRoute)
        for method in route.methods
    }
    pulls = {(method, f"/v2/{{name}}/{rest}") for method in pull.METHODS for rest in PULLS}
    return found | pulls


PULLS = ("manifests/{reference}", "blobs/{digest}")
# Other spellings of what is described, and the description itself.
TOO = {"/v2", "/v2/{name}/blobs/uploads", "/_layerhouse/v1/repositories/{name}/", SCHEMA, DOCS}


async def test_every_endpoint_is_described_and_what_is_described_is_there(api: Api) -> None:
    there = {(method, path) for method, path in routes(api) if path not in TOO}
    told = set(operations(await described(api)))
    assert {each for each in there if each[0] != "HEAD"} == told
    assert {path for method, path in there if method == "HEAD"} == {path for method, path in told if method == "GET"}


async def test_every_operation_tells_what_it_is_and_how_it_fails(api: Api) -> None:
    schema = await described(api)
    groups = {each["name"] for each in schema["tags"]}
    identifiers = set()
    for place, told in operations(schema).items():
        assert told["description"].strip().endswith((".", ")")), place
        assert set(told["tags"]) <= groups, place
        assert told["tags"], place
        errors = told["responses"]["default"]["content"]["application/json"]["schema"]["$ref"]
        assert errors == "#/components/schemas/Errors", place
        assert "422" not in told["responses"], place
        identifiers.add(told["operationId"])
    assert len(identifiers) == len(operations(schema))


@pytest.mark.parametrize(
    ("http", "server"),
    [
        ({}, "/"),
        ({"host": "https://registry.example"}, "https://registry.example"),
        ({"prefix": "/below/"}, "/below"),
    ],
)
async def test_the_server_is_where_the_client_reaches_it(http: dict[str, str], server: str) -> None:
    async with serving(MemoryEngine(), Settings.model_validate({"http": http})) as api:
        prefix = http.get("prefix", "/").rstrip("/")
        assert (await api.get(prefix + SCHEMA)).json["servers"] == [{"url": server}]
        assert f"<code>{server.rstrip('/')}/v2/</code>" in (await api.get(prefix + DOCS)).body.decode()


class Reader(HTMLParser):
    """Holds a page to well-formedness, and notes what it shows and what it would load."""

    EMPTY = ("meta", "link", "br")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""
        self.loads: list[str] = []
        self.links: list[str] = []
        self.ids: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag not in self.EMPTY:
            self.open.append(tag)
        if tag in ("script", "img", "iframe", "link", "object") or {"src", "style", "onclick"} & given.keys():
            self.loads.append(tag)
        if "id" in given:
            self.ids.add(given["id"] or "")
        if tag == "a":
            self.links.append(given["href"] or "")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data


async def test_the_page_shows_every_operation_and_loads_nothing(api: Api) -> None:
    answer, schema = await api.get(DOCS), await described(api)
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    reader = Reader()
    reader.feed(answer.body.decode())
    reader.close()
    assert reader.open == []
    assert reader.loads == []
    assert "url(" not in answer.body.decode()
    text = " ".join(reader.text.split())
    for (method, path), told in operations(schema).items():
        assert f"{method} {path}" in text
        for parameter in told.get("parameters", ()):
            assert parameter["name"] in text
    for name, model in schema["components"]["schemas"].items():
        assert name in reader.ids
        assert all(member in text for member in model["properties"])
    inner = {link.removeprefix("#") for link in reader.links if link.startswith("#")}
    assert inner <= reader.ids
    assert [link for link in reader.links if not link.startswith("#")] == ["openapi.json"]
    assert "`" not in text


async def test_the_page_writes_out_what_is_markup() -> None:
    evil = "<script>alert('&')</script>"
    operation = {"tags": [evil], "description": evil, "responses": {evil: {"description": evil}}}
    schema = {
        "info": {"title": evil, "version": evil, "description": evil},
        "servers": [{"url": "/"}],
        "tags": [{"name": evil, "description": evil}],
        "paths": {evil: {"get": operation}},
        "components": {"schemas": {evil: {"properties": {evil: {"description": evil, "type": evil}}}}},
    }
    for each in (page(schema), page({**schema, "components": {}})):
        assert "<script" not in each
        reader = Reader()
        reader.feed(each)
        assert evil in reader.text


@pytest.mark.parametrize("path", [SCHEMA, DOCS])
async def test_head_is_answered_as_get(api: Api, path: str) -> None:
    got, headed = await api.get(path), await api.ask("HEAD", path)
    assert headed.status == got.status == 200
    assert headed.headers["content-length"] == got.headers["content-length"]


def test_generated_requests_are_answered_as_described(tmp_path: Path) -> None:
    """Statuses, media types and bodies, by schemathesis; of the management API also that nothing valid is refused."""
    engine = FilesEngine(tmp_path)
    asyncio.run(_filled(engine))
    app, asked = create_app(DELETES, engine), itertools.count()
    for found in schemathesis.openapi.from_asgi(SCHEMA, app).get_all_operations():
        operation = found.ok()

        @given(operation.as_strategy())
        @settings(max_examples=5, derandomize=True, database=None, phases=[Phase.generate], suppress_health_check=ANY)
        def holds(case: schemathesis.Case) -> None:
            if "name" in case.path_parameters and next(asked) % 2:
                case.path_parameters["name"] = "team/app"
            ours = case.path.startswith("/_layerhouse/")
            case.call_and_validate(excluded_checks=[] if ours else [positive_data_acceptance])

        holds()


async def _filled(engine: FilesEngine) -> None:
    async with serving(engine) as api:
        await api.push_image("team/app", "1.0", b"layer")
