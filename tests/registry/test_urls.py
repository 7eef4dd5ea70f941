"""`Location` and `Link` as `http.host`, `http.prefix` and `http.relativeurls` ask for them, and `http.headers`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from pydantic import ValidationError

from registry.config import Settings
from registry.config.http import Http
from storage.memory import MemoryEngine
from tests.support.api import Api, image, serving
from tests.support.images import sha256

PUSHES = {"storage": {"delete": {"enabled": True}}}


@asynccontextmanager
async def configured(pathsend: bool = False, **http: Any) -> AsyncIterator[Api]:
    settings = Settings.model_validate({**PUSHES, "http": http})
    async with serving(MemoryEngine(), settings, pathsend=pathsend) as api:
        yield api


@pytest.mark.parametrize(
    ("http", "begins"),
    [
        ({}, ""),
        ({"relativeurls": True}, ""),
        ({"relativeurls": False}, "http://asked.example:5000"),
        ({"host": "https://known.example"}, "https://known.example"),
        ({"host": "https://known.example/"}, "https://known.example"),
        ({"host": "https://known.example:8443/images/"}, "https://known.example:8443/images"),
        ({"host": "https://known.example", "relativeurls": True}, "https://known.example"),
        ({"host": "https://known.example", "relativeurls": False}, "https://known.example"),
        ({"host": "", "relativeurls": False}, "http://asked.example:5000"),
        ({"prefix": "/my/registry/"}, "/my/registry"),
        ({"prefix": "/my/registry", "relativeurls": True}, "/my/registry"),
        ({"prefix": "/my/", "relativeurls": False}, "http://asked.example:5000/my"),
        ({"prefix": "/my/", "host": "https://known.example"}, "https://known.example/my"),
        ({"prefix": "/my/", "host": "https://known.example/other"}, "https://known.example/other"),
    ],
)
async def test_every_location_and_link_is_the_address_that_was_asked_for(http: dict[str, Any], begins: str) -> None:
    below = f"/{http.get('prefix', '').strip('/')}".rstrip("/")
    asked = {"Host": "asked.example:5000"}
    async with configured(**http) as api:
        begun = await api.ask("POST", f"{below}/v2/a/blobs/uploads/", headers=asked)
        assert begun.headers["location"].startswith(f"{begins}/v2/a/blobs/uploads/")
        digest, config = sha256(b"data"), sha256(b"{}")
        target = f"{below}/v2/a/blobs/uploads/?digest="
        pushed = await api.ask("POST", target + digest, b"data", asked)
        assert pushed.headers["location"] == f"{begins}/v2/a/blobs/{digest}"
        await api.ask("POST", target + config, b"{}", asked)
        for tag in ("1", "2"):
            raw = str(image(config)).replace("'", '"').encode()
            named = {**asked, "Content-Type": "application/vnd.oci.image.manifest.v1+json"}
            stored = await api.ask("PUT", f"{below}/v2/a/manifests/{tag}", raw, named)
            assert stored.headers["location"].startswith(f"{begins}/v2/a/manifests/sha256:")
        page = await api.ask("GET", f"{below}/v2/a/tags/list?n=1", headers=asked)
        assert page.headers["link"].startswith(f"<{begins}/v2/a/tags/list?")


@pytest.mark.parametrize("host", ["", "a b", "x/y", "user@host", "h:port", "[::1", "\xe9"])
async def test_a_host_that_is_none_is_left_out(host: str) -> None:
    async with configured(relativeurls=False) as api:
        begun = await api.ask("POST", "/v2/a/blobs/uploads/", headers={"Host": host} if host else {})
        assert begun.headers["location"].startswith("/v2/a/")


async def test_nothing_but_a_sign_of_life_is_served_outside_of_the_prefix() -> None:
    async with configured(prefix="/my/registry/") as api:
        assert (await api.get("/my/registry/v2/")).status == 200
        assert (await api.get("/my/registry/v2/_catalog")).json == {"repositories": []}
        for path in ("/v2/", "/my/registry", "/my/registryv2/", "/my", "/other/v2/"):
            answer = await api.get(path)
            assert answer.status == 404
            assert "/my/registry/" in answer.message
        assert (await api.get("/")).message != (await api.get("/v2/")).message


@pytest.mark.parametrize("pathsend", [False, True])
async def test_every_answer_carries_the_operators_headers_and_none_twice(pathsend: bool) -> None:
    headers = {
        "X-Content-Type-Options": ["nosniff"],
        "Docker-Distribution-Api-Version": "registry/9",
        "X-Twice": ["1", "2"],
    }
    async with configured(pathsend=pathsend, headers=headers) as api:
        digest = await api.push_blob("a", b"data" * 50_000)
        blob = f"/v2/a/blobs/{digest}"
        for answer in (
            await api.get("/v2/"),
            await api.get(blob),
            await api.ask("HEAD", blob),
            await api.get(blob, if_none_match=f'"{digest}"'),
            await api.get("/v2/a/manifests/none"),
            await api.get("/nowhere"),
            await api.ask("POST", "/v2/"),
        ):
            assert answer.all("x-content-type-options") == ["nosniff"]
            assert answer.all("docker-distribution-api-version") == ["registry/2.0"]
            assert answer.all("x-twice") == ["1", "2"]


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("host", "registry.example.com", "expected a URL"),
        ("host", "registry.example.com:5000", "expected a URL"),
        ("host", "ftp://registry.example.com", "expected a URL"),
        ("host", "https://user:secret@registry.example.com", "expected a URL"),
        ("host", "https://registry.example.com/?a", "expected a URL"),
        ("host", "https://registry.example.com/a/../b", "expected a path"),
        ("host", "https://registry.example.com\r\nX: y", "expected a URL"),
        ("host", "https://[::1", "expected a URL"),
        ("prefix", "my/registry/", "expected a path"),
        ("prefix", "/my/../registry/", "expected a path"),
        ("prefix", "/my//registry/", "expected a path"),
        ("prefix", "/my registry/", "expected a path"),
        ("headers", {"X Y": "z"}, "no name"),
        ("headers", {"": "z"}, "no name"),
        ("headers", {"X-Y": "z\r\nSet-Cookie: a"}, "control"),
        ("headers", {"X-Y": "\u2028"}, "control"),
        ("headers", {"Content-Length": "1"}, "server's own"),
        ("headers", {"transfer-encoding": "chunked"}, "server's own"),
        ("headers", ["X-Y"], "dict"),
    ],
)
def test_what_cannot_be_served_is_refused_when_it_is_read(key: str, value: object, told: str) -> None:
    with pytest.raises(ValidationError, match=told) as error:
        Http.model_validate({key: value})
    assert error.value.errors()[0]["loc"][0] == key
    assert "secret" not in error.value.errors()[0]["msg"]


def test_an_address_is_a_path_where_the_net_is_unix() -> None:
    assert Http(net="unix", addr="/run/a:5000").addr == "/run/a:5000"
    for addr in ("", ":5000", "localhost:5000", "/run/\0"):
        with pytest.raises(ValidationError, match="path of a socket"):
            Http(net="unix", addr=addr)
    with pytest.raises(ValidationError, match="HOST:PORT"):
        Http(addr="/run/registry.sock")
    with pytest.raises(ValidationError, match="path of a socket"):
        Http(net="unix")
