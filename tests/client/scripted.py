"""A registry on a real socket that does what a test tells it, right or wrong."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TypeAlias
from urllib.parse import parse_qsl, urlsplit

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"


@dataclass(frozen=True, slots=True)
class Seen:
    """A request that came."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    target: str = ""
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer; what it promises need not be what it sends.

    Attributes:
        promised: the Content-Length it says, else that of the body; -1 for none.
        wait: is awaited between the head and the body.
    """

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    promised: int | None = None
    wait: Callable[[], Awaitable[object]] | None = None


Behaviour: TypeAlias = Reply | Callable[[Seen], Reply]


@dataclass(frozen=True, slots=True)
class Image:
    digest: str
    config: str
    layers: tuple[str, ...]
    size: int


class ScriptedRegistry:
    """Serves what was published; `behaviours` by path come first.

    Attributes:
        host: "127.0.0.1:PORT".
        seen: all requests so far.
    """

    def __init__(self) -> None:
        self.host = ""
        self.seen: list[Seen] = []
        self.behaviours: dict[str, Behaviour] = {}

    def publish(
        self, name: str, tag: str, layers: list[bytes], architecture: str = "amd64", **members: object
    ) -> Image:
        described = [{"mediaType": LAYER, **self.blob(name, layer)} for layer in layers]
        config = {"os": "linux", "architecture": architecture, "rootfs": {"type": "layers", "diff_ids": []}}
        configured = {"mediaType": CONFIG, **self.blob(name, json.dumps(config).encode())}
        digest = self.manifest(name, tag, {"mediaType": MANIFEST, "config": configured, "layers": described} | members)
        size = sum({each["digest"]: each["size"] for each in [configured, *described]}.values())
        return Image(digest, configured["digest"], tuple(each["digest"] for each in described), size)

    def publish_index(self, name: str, tag: str, images: dict[str, list[bytes]]) -> tuple[str, dict[str, Image]]:
        children = {each: self.publish(name, each, layers, each) for each, layers in images.items()}
        entries = [self._entry(name, architecture, child.digest) for architecture, child in children.items()]
        return self.manifest(name, tag, {"mediaType": INDEX, "manifests": entries}), children

    def _entry(self, name: str, architecture: str, digest: str) -> dict[str, object]:
        size = len(self.behaviours[f"/v2/{name}/manifests/{digest}"].body)
        platform = {"os": "linux", "architecture": architecture}
        return {"mediaType": MANIFEST, "digest": digest, "size": size, "platform": platform}

    def manifest(self, name: str, tag: str, members: dict[str, object]) -> str:
        raw = json.dumps({"schemaVersion": 2, **members}).encode()
        digest = f"sha256:{hashlib.sha256(raw).hexdigest()}"
        reply = Reply(200, raw, {"Content-Type": str(members["mediaType"]), "Docker-Content-Digest": digest})
        self.behaviours[f"/v2/{name}/manifests/{tag}"] = self.behaviours[f"/v2/{name}/manifests/{digest}"] = reply
        return digest

    def blob(self, name: str, data: bytes) -> dict[str, object]:
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        self.behaviours[f"/v2/{name}/blobs/{digest}"] = Reply(200, data)
        return {"digest": digest, "size": len(data)}

    def paths(self, method: str = "GET") -> list[str]:
        return [each.path for each in self.seen if each.method == method]

    def blobs(self) -> list[str]:
        """Digests of the blobs that were asked for, in order."""
        return [each.rsplit("/", 1)[1] for each in self.paths() if "/blobs/" in each]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            request = _parsed(await reader.readuntil(b"\r\n\r\n"))
            body = await reader.readexactly(int(request.headers.get("content-length", 0)))
            request = replace(request, body=body)
            self.seen.append(request)
            if not await self._answer(request, writer):
                return

    async def _answer(self, request: Seen, writer: asyncio.StreamWriter) -> bool:
        """Sends the reply; false where the connection has to close for it to end."""
        unknown = Reply(404, b'{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}')
        behaviour = self.behaviours.get(request.path, unknown)
        reply = behaviour if isinstance(behaviour, Reply) else behaviour(request)
        promised = len(reply.body) if reply.promised is None else reply.promised
        length = {} if promised < 0 else {"Content-Length": str(promised)}
        lines = [
            f"HTTP/1.1 {reply.status} X",
            *(f"{name}: {text}" for name, text in {**length, **reply.headers}.items()),
        ]
        writer.write("\r\n".join([*lines, "", ""]).encode())
        if reply.wait:
            await writer.drain()
            await reply.wait()
        if request.method != "HEAD":
            writer.write(reply.body)
        await writer.drain()
        return request.method == "HEAD" or promised == len(reply.body)


Serve: TypeAlias = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(serve: Serve, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Runs `serve` for each connection, and gives the port; in the end every connection is closed."""
    busy: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        busy.add(asyncio.current_task())
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            try:
                await serve(reader, writer)
            finally:
                writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in busy:
            task.cancel()
        await asyncio.gather(*busy, return_exceptions=True)
        await server.wait_closed()
        while getattr(server, "_active_count", 0):  # Python 3.11 does not wait for connections
            await asyncio.sleep(0.001)


@asynccontextmanager
async def scripted(tls: ssl.SSLContext | None = None) -> AsyncIterator[ScriptedRegistry]:
    registry = ScriptedRegistry()
    async with serving(registry.serve, tls) as port:
        registry.host = f"127.0.0.1:{port}"
        yield registry


def _parsed(head: bytes) -> Seen:
    first, *lines = head.decode().split("\r\n")[:-2]
    method, target, _ = first.split(" ")
    url = urlsplit(target)
    headers = {name.lower(): text for name, text in (line.split(": ", 1) for line in lines)}
    return Seen(method, url.path, dict(parse_qsl(url.query)), headers, target)
