"""A registry that plays Docker Hub: tokens, blobs on another host, a limit of pulls that it tells, 429 behind it."""

from __future__ import annotations

import json
import secrets
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self
from urllib.parse import parse_qs, urlsplit

from tests.support.images import CONFIG, LAYER, MANIFEST, Wire, sha256

GRANTED = 100


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that was answered with what it asked for."""

    method: str
    path: str


class Hub:
    """Serves images of which it knows the manifests and blobs, on 127.0.0.1, while used as a context manager.

    Attributes:
        asked: what was answered of manifests, tokens and blobs; blobs at the registry, and at the host that has them.
        strays: credentials that came where none belong.
        remaining: pulls that are still granted.
    """

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.strays: list[str] = []
        self.remaining = GRANTED
        self.is_stopped = False
        self._manifests: dict[tuple[str, str], tuple[str, bytes]] = {}
        self._blobs: dict[str, bytes] = {}
        self._tokens: dict[str, str] = {}
        self._servers: list[tuple[ThreadingHTTPServer, threading.Thread]] = []

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self._servers[0][0].server_address[1]}"

    @property
    def blob_host(self) -> str:
        return f"127.0.0.1:{self._servers[1][0].server_address[1]}"

    def __enter__(self) -> Self:
        for handler in (_registry(self), _storage(self)):
            server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
            server.daemon_threads = True
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
            self._servers.append((server, thread))
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.is_stopped = True
        for server, thread in self._servers:
            server.shutdown()
            thread.join()
            server.server_close()

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """It answers nobody meanwhile: each connection is closed."""
        self.is_stopped = True
        try:
            yield
        finally:
            self.is_stopped = False

    def take(self, host: str, source: str, name: str) -> None:
        """Publishes an image of another registry, with its tag `latest`, under a name."""
        with Wire(host) as wire:
            self._take(wire, source, name)

    def _take(self, wire: Wire, source: str, name: str) -> None:
        found = wire.manifest(source, "latest")
        self._publish(name, found.headers["content-type"], found.body)
        document = json.loads(found.body)
        for each in [document["config"], *document["layers"]]:
            answer = wire.ask("GET", f"/v2/{source}/blobs/{each['digest']}", expect=200)
            self._blobs[each["digest"]] = answer.body

    def make(self, name: str, layers: Sequence[bytes]) -> None:
        """Publishes an image of these layers, with its tag `latest`."""
        described = [{"mediaType": LAYER, "digest": sha256(each), "size": len(each)} for each in layers]
        config = {"mediaType": CONFIG, "digest": sha256(b"{}"), "size": 2}
        manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": described}
        self._blobs |= {sha256(each): each for each in (b"{}", *layers)}
        self._publish(name, MANIFEST, json.dumps(manifest).encode())

    def _publish(self, name: str, media_type: str, manifest: bytes) -> None:
        self._manifests[name, "latest"] = self._manifests[name, sha256(manifest)] = media_type, manifest

    def asked_since(self, mark: int, method: str, kind: str) -> Counter[str]:
        """How often each manifest or blob (`kind` is `manifests` or `data`) was asked for since so many requests."""
        return Counter(each.path for each in self.asked[mark:] if each.method == method and f"/{kind}/" in each.path)

    def manifest(self, name: str, reference: str) -> tuple[str, bytes] | None:
        return self._manifests.get((name, reference))

    def blob(self, digest: str) -> bytes | None:
        return self._blobs.get(digest)

    def token(self, scope: str) -> str:
        text = secrets.token_hex(8)
        self._tokens[text] = scope
        return text

    def is_granted(self, authorization: str, name: str) -> bool:
        return self._tokens.get(authorization.removeprefix("Bearer ")) == f"repository:{name}:pull"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    hub: Hub

    def do_GET(self) -> None:
        if self.hub.is_stopped:
            self.close_connection = True
            return
        self.respond()

    do_HEAD = do_GET  # noqa: N815 - the standard library's name

    def respond(self) -> None:
        raise NotImplementedError

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing on the terminal."""


def _registry(served: Hub) -> type[_Handler]:
    class Registry(_Handler):
        hub = served

        def respond(self) -> None:
            target = urlsplit(self.path)
            if target.path == "/token":
                scope = parse_qs(target.query).get("scope", [""])[0]
                served.asked.append(Asked(self.command, target.path))
                self.answer(200, json.dumps({"token": served.token(scope), "expires_in": 300}).encode())
                return
            name, _, rest = target.path.removeprefix("/v2/").partition("/manifests/")
            if not rest:
                name, _, rest = name.partition("/blobs/")
            if not served.is_granted(self.headers.get("authorization", ""), name):
                challenge = f'Bearer realm="http://{served.host}/token",service="registry.docker.io"'
                self.answer(401, WWW_Authenticate=f'{challenge},scope="repository:{name}:pull"')
                return
            served.asked.append(Asked(self.command, target.path))
            if "/blobs/" in target.path:
                self.answer(307, Location=f"http://{served.blob_host}/data/blobs/{rest}")
            else:
                self._manifest(name, rest)

        def _manifest(self, name: str, reference: str) -> None:
            found = served.manifest(name, reference)
            if self.command == "GET" and served.remaining == 0:
                self.answer(429, b'{"errors":[{"code":"TOOMANYREQUESTS","message":"pull rate limit"}]}')
                return
            served.remaining -= self.command == "GET"
            if found is None:
                self.answer(404, b'{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}')
                return
            limits = {"ratelimit_limit": f"{GRANTED};w=21600", "ratelimit_remaining": f"{served.remaining};w=21600"}
            self.answer(200, found[1], Content_Type=found[0], Docker_Content_Digest=sha256(found[1]), **limits)

    return Registry


def _storage(served: Hub) -> type[_Handler]:
    class Storage(_Handler):
        hub = served

        def respond(self) -> None:
            if "authorization" in self.headers:
                served.strays.append(self.path)
            served.asked.append(Asked(self.command, self.path))
            body = served.blob(self.path.rpartition("/")[2])
            self.answer(404) if body is None else self.answer(200, body)

    return Storage
