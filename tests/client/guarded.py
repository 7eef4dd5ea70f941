"""A registry behind a token server, on real sockets, and how a client of it is put together."""

from __future__ import annotations

import base64
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from client.access.auth import Access
from client.access.credential import Credential
from client.access.credentials import Given, Lookup
from client.hosts.endpoint import Endpoint, Route, Tls
from client.registries.api import Api
from client.wire.exchange import Answer, Request, read
from client.wire.transport import HttpTransport
from ocispec.headers import Scope
from ocispec.reference import RepositoryName
from tests.client.scripted import Reply, ScriptedRegistry, Seen, scripted

CERTIFICATE = Path(__file__).with_name("localhost.pem")
NAME = RepositoryName("a/b")
PULL = Scope("repository", "a/b", ("pull",))
ALICE = Credential("alice", "pw", place="FILE")
SENT = {"alice": f"Basic {base64.b64encode(b'alice:pw').decode()}"}


@dataclass
class Site:
    """A registry that wants what `challenge` says, and a token server whose tokens it takes until they are revoked."""

    registry: ScriptedRegistry
    tokens: ScriptedRegistry
    transport: HttpTransport
    scheme: str = "http"
    challenge: str = ""
    taken: set[str] = field(default_factory=set)
    users: set[str | None] = field(default_factory=lambda: {None, SENT["alice"]})
    members: dict[str, object] = field(default_factory=dict)
    given: int = 0

    def __post_init__(self) -> None:
        self.bearer(f"http://{self.tokens.host}/token")
        self.registry.behaviours["/v2/a/b"] = self.registry.behaviours["/v2/"] = self._serve
        self.tokens.behaviours["/token"] = self._give

    def bearer(self, realm: str, more: str = "") -> None:
        self.challenge = f'Bearer realm="{realm}",service="s"{more}'

    def _serve(self, request: Seen) -> Reply:
        if request.headers.get("authorization") in self.taken:
            return Reply(200)
        return Reply(401, headers={"WWW-Authenticate": self.challenge})

    def _give(self, request: Seen) -> Reply:
        if request.headers.get("authorization") not in self.users:
            return Reply(401, b'{"details":"incorrect username or password"}')
        self.given += 1
        self.taken = {f"Bearer t{self.given}"}
        return Reply(200, json.dumps({"token": f"t{self.given}", **self.members}).encode())

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint(f"{self.scheme}://{self.registry.host}/v2", self.registry.host, NAME, self.registry.host)

    def api(self, credentials: Lookup | Credential | None = None, *scopes: Scope) -> Api:
        known = Given(credentials) if isinstance(credentials, Credential) else credentials
        return Api(self.endpoint, self.transport.send, Access(known), *(scopes or (PULL,)))

    async def exchange(self, request: Request) -> Answer:
        async with self.transport.send(request) as response:
            return Answer(response.status, response.headers, await read(response.pieces(), 65536) or b"")

    async def renewed(self, access: Access, refused: str | None = None, *challenges: str) -> str:
        return await access.renew(self.endpoint, (PULL,), refused, list(challenges or [self.challenge]), self.exchange)


@asynccontextmanager
async def opened(tls: bool = False) -> AsyncIterator[Site]:
    async def trusting(*_: object, **__: object) -> Route:
        return Route(Tls(authorities=(CERTIFICATE,)))

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH) if tls else None
    if context:
        context.load_cert_chain(CERTIFICATE)
    async with scripted(context) as registry, scripted() as tokens:
        registry.host = registry.host.replace("127.0.0.1", "localhost") if tls else registry.host
        transport = HttpTransport(25, routes=trusting)
        try:
            yield Site(registry, tokens, transport, "https" if tls else "http")
        finally:
            await transport.aclose()
