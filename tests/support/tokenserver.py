"""A real token server that is not ours: key set, tokens by password and for nobody (Docker's token specification)."""

from __future__ import annotations

import json
import threading
from base64 import b64decode
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from tests.support.tokens import jwk, key, signed


class OutsideServer:
    """Serves `body` with `status` at `/keys`, and tokens at `/token`.

    Attributes:
        asked: how often for the keys.
        signing: the key and its id that tokens are signed by.
        users: passwords; each may do everything. Who gives none may pull what is below `public/`.
    """

    def __init__(self, **users: str) -> None:
        self.users = users
        self.signing: tuple[Any, str] = (key(), "one")
        self.status = 200
        self.asked = 0
        self.body = b""
        self.publish()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self._server.server_address[1]}"

    @property
    def url(self) -> str:
        return f"http://{self.host}/keys"

    @property
    def realm(self) -> str:
        return f"http://{self.host}/token"

    def publish(self) -> None:
        self.body = json.dumps({"keys": [jwk(*self.signing)]}).encode()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def token(self, user: str, scopes: list[str]) -> dict[str, Any]:
        access = []
        for kind, name, actions in (each.split(":") for each in scopes):
            may = actions.split(",") if user else ["pull"] if name.startswith("public/") else []
            access.append({"type": kind, "name": name, "actions": may})
        private, kid = self.signing
        text = signed(private, header={"kid": kid}, sub=user, access=access)
        return {"token": text, "access_token": text, "expires_in": 300}


def _handler(server: OutsideServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            target = urlsplit(self.path)
            if target.path == "/keys":
                server.asked += 1
                self._answer(server.status, server.body)
                return
            user, known = self._user(server.users)
            scopes = [part for each in parse_qs(target.query).get("scope", []) for part in each.split()]
            body = server.token(user, scopes) if known else {"errors": [{"code": "UNAUTHORIZED", "message": "wrong"}]}
            self._answer(200 if known else 401, json.dumps(body).encode())

        def do_POST(self) -> None:
            # containerd turns to GET then.
            self.rfile.read(int(self.headers["content-length"]))
            self._answer(404, b"{}")

        def _user(self, users: Mapping[str, str]) -> tuple[str, bool]:
            header = self.headers.get("authorization", "")
            if not header:
                return "", True
            user, _, password = b64decode(header.removeprefix("Basic ")).decode().partition(":")
            return user, not user or users.get(user) == password

        def _answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            if status == 302:
                self.send_header("Location", "/keys")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing on the terminal."""

    return Handler
