"""The registry's application asked in this process, over ASGI, as a server would ask it.

Every answer is held to what all answers share: the API's version, a length that is true, headers without control
characters, and the JSON envelope for every error.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from registry.app import create_app
from registry.config import Settings
from storage.engine import Engine
from tests.support.images import CONFIG, INDEX, LAYER, MANIFEST, sha256

Headers = Mapping[str, str | list[str]]
# As without a configuration.
DELETES = Settings.model_validate(
    {
        "storage": {"delete": {"enabled": True}},
        "validation": {"manifests": {"urls": {"allow": ["."]}, "indexes": {"platforms": "none"}}},
    }
)
PATHSEND = "http.response.pathsend"


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    fields: tuple[tuple[str, str], ...]
    body: bytes

    @property
    def headers(self) -> dict[str, str]:
        return dict(self.fields)

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.fields if key == name]

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The code of the one error in the envelope."""
        (error,) = self.json["errors"]
        return str(error["code"])

    @property
    def message(self) -> str:
        return str(self.json["errors"][0]["message"])


class Broken(Exception):
    """The application ended without a whole answer: a server cuts the connection here."""


class Api:
    """One client of an application.

    Attributes:
        pathsend: whether the server beneath offers to send files itself.
        files_sent: how many it was handed.
        address: where the client is.
    """

    def __init__(self, app: Any, *, pathsend: bool = False) -> None:
        self.app = app
        self.pathsend = pathsend
        self.address = ("192.0.2.1", 40000)
        self.files_sent = 0

    async def ask(
        self, method: str, target: str, body: bytes | Iterable[bytes] = b"", headers: Headers | None = None
    ) -> Answer:
        """One request; `body` in pieces travels without a Content-Length."""
        given = {name.lower(): value for name, value in (headers or {}).items()}
        if isinstance(body, bytes) and (body or method in {"POST", "PUT", "PATCH"}):
            given.setdefault("content-length", str(len(body)))
        pieces = [body] if isinstance(body, bytes) else [*body, b""]
        return await self.exchange(method, target, given, *(_piece(pieces, n) for n in range(len(pieces))))

    async def get(self, target: str, **headers: str) -> Answer:
        return await self.ask("GET", target, headers={name.replace("_", "-"): text for name, text in headers.items()})

    async def exchange(self, method: str, target: str, headers: Headers, *received: Mapping[str, Any]) -> Answer:
        """One request whose body arrives as these ASGI messages; when they end, the client waits."""
        messages: list[Any] = []
        arriving = list(received)

        async def receive() -> Any:
            if not arriving:
                await asyncio.Event().wait()
            await asyncio.sleep(0)
            return arriving.pop(0)

        async def send(message: Any) -> None:
            messages.append(await self._sent(message))

        scope = self.scope(method, target, headers)
        await self.app(scope, receive, send)
        return _answer(method, messages)

    def scope(self, method: str, target: str, headers: Headers) -> dict[str, Any]:
        raw, _, query = target.partition("?")
        fields = [
            (name.lower().encode("latin-1"), value.encode("latin-1"))
            for name, values in headers.items()
            for value in ([values] if isinstance(values, str) else values)
        ]
        return {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "scheme": "http",
            "method": method,
            "path": unquote(raw),
            "raw_path": raw.encode("latin-1"),
            "query_string": query.encode("latin-1"),
            "root_path": "",
            "headers": fields,
            "client": self.address,
            "server": ("127.0.0.1", 5000),
            "extensions": {PATHSEND: {}} if self.pathsend else {},
        }

    async def _sent(self, message: dict[str, Any]) -> dict[str, Any]:
        if message["type"] != PATHSEND:
            return dict(message)
        self.files_sent += 1
        try:
            return {**message, "body": os.pread(message["file"], message["count"], message["offset"])}
        finally:
            os.close(message["file"])

    # What clients do, in the words of the specification.

    async def begin(self, repository: str, query: str = "") -> str:
        answer = await self.ask("POST", f"/v2/{repository}/blobs/uploads/{query}")
        assert answer.status == 202, answer
        return answer.headers["location"]

    async def commit(self, location: str, body: bytes | Iterable[bytes], digest: str, **headers: str) -> Answer:
        named = {name.replace("_", "-"): text for name, text in headers.items()}
        return await self.ask("PUT", f"{location}?digest={digest}", body, named)

    async def push_blob(self, repository: str, data: bytes, digest: str | None = None) -> str:
        digest = digest or sha256(data)
        answer = await self.commit(await self.begin(repository), data, digest)
        assert answer.status == 201, answer
        return digest

    async def push_manifest(
        self, repository: str, reference: str, manifest: Mapping[str, Any] | bytes, media_type: str | None = None
    ) -> Answer:
        raw = manifest if isinstance(manifest, bytes) else json.dumps(manifest).encode()
        kind = media_type or json.loads(raw)["mediaType"]
        return await self.ask("PUT", f"/v2/{repository}/manifests/{reference}", raw, {"Content-Type": kind})

    async def push_image(self, repository: str, tag: str, *layers: bytes, **members: Any) -> str:
        """Returns the manifest's digest."""
        manifest = image(
            await self.push_blob(repository, b"{}"),
            {await self.push_blob(repository, layer): len(layer) for layer in layers},
            **members,
        )
        answer = await self.push_manifest(repository, tag, manifest)
        assert answer.status == 201, answer
        return answer.headers["docker-content-digest"]


def image(config: str, layers: Mapping[str, int] | None = None, /, **members: Any) -> dict[str, Any]:
    described = [{"mediaType": LAYER, "digest": digest, "size": size} for digest, size in (layers or {}).items()]
    return {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": CONFIG, "digest": config, "size": 2},
        "layers": described,
        **members,
    }


def index(*children: Mapping[str, Any], **members: Any) -> dict[str, Any]:
    return {"schemaVersion": 2, "mediaType": INDEX, "manifests": list(children), **members}


def sha512(data: bytes) -> str:
    return f"sha512:{hashlib.sha512(data).hexdigest()}"


@asynccontextmanager
async def serving(engine: Engine, settings: Settings = DELETES, *, pathsend: bool = False) -> AsyncIterator[Api]:
    """The application over an engine, between the start and the end that a server gives it."""
    api = Api(create_app(settings, engine), pathsend=pathsend)
    came: asyncio.Queue[dict[str, str]] = asyncio.Queue()
    told: asyncio.Queue[dict[str, str]] = asyncio.Queue()
    running = asyncio.create_task(api.app({"type": "lifespan", "state": {}}, came.get, told.put))
    await came.put({"type": "lifespan.startup"})
    started = await told.get()
    if started["type"] != "lifespan.startup.complete":
        await running
        raise Broken(started.get("message", ""))
    try:
        yield api
    finally:
        await came.put({"type": "lifespan.shutdown"})
        await running
    assert (await told.get())["type"] == "lifespan.shutdown.complete"


def _piece(pieces: list[bytes], number: int) -> dict[str, Any]:
    return {"type": "http.request", "body": pieces[number], "more_body": number + 1 < len(pieces)}


def _answer(method: str, messages: list[dict[str, Any]]) -> Answer:
    if not messages or messages[-1].get("more_body") or len(messages) < 2:
        raise Broken(messages)
    start, body = messages[0], b"".join(message["body"] for message in messages[1:])
    fields = tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in start["headers"])
    answer = Answer(start["status"], fields, b"" if method == "HEAD" else body)
    _hold(method, answer)
    return answer


def _hold(method: str, answer: Answer) -> None:
    assert answer.all("docker-distribution-api-version") == ["registry/2.0"]
    for name, value in answer.fields:
        assert name == name.lower()
        assert (name + value).isascii()
        assert (name + value).isprintable(), (name, value)
    if answer.status in (204, 304):
        assert not answer.body
    elif method != "HEAD":
        assert answer.all("content-length") == [str(len(answer.body))]
    if answer.status >= 400 and method != "HEAD":
        assert answer.headers["content-type"] == "application/json"
        assert all(set(error) <= {"code", "message", "detail"} for error in answer.json["errors"])
        assert answer.code
    if answer.status == 405:
        assert "allow" in answer.headers
