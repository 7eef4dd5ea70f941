"""Examining how a registry is reached, step by step, each after those it rests on."""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from urllib.parse import urlsplit

from client.access.auth import Access
from client.access.credential import Credential
from client.access.credentials import Credentials, Given, Lookup
from client.access.tokens import choose, realm
from client.hosts.endpoint import Endpoint, Route
from client.hosts.tls import context
from client.registries import findings, probing
from client.registries.api import Api
from client.registries.findings import Finding, State
from client.session import Session
from client.transfers.content import MAX_DEPTH
from client.wire.exchange import Request
from ocispec.errors import CredentialsError, LayerhouseError
from ocispec.headers import ByteRange, Challenge, Scope
from ocispec.reference import DOCKER_HUB, Reference, RepositoryName
from storage.threads import finish

_PORTS = {"http": 80, "https": 443}
_PREVIEW = "ratelimitpreview/test"


async def examine(
    session: Session, host: str, reference: Reference | None = None, credentials: Lookup | None = None
) -> AsyncIterator[Finding]:
    """Yields what each step finds; goes on after a failure where the next step can tell more.

    Args:
        session: tells how hosts are reached.
        host: the registry.
        reference: an image there, for what only an image can show.
        credentials: of the user; those that docker and podman know unless told.
    """
    repository = reference.repository if reference else RepositoryName("none")
    try:
        found = await session.hosts.endpoints(host, repository)
    except LayerhouseError as error:
        yield Finding("settings", State.FAILED, error.message, "correct it: nothing is reached before")
        return
    mirrors, own = [each for each in found if each.mirror], [each for each in found if not each.mirror]
    yield await _mirrors(session, mirrors)
    visit = Visit(session, host, reference, credentials or Credentials(os.environ))
    for endpoint in own:
        if endpoint is not own[0]:
            yield Finding("settings", State.WARNING, f"going on with {endpoint.api}", "--plain-http leaves TLS out")
        async for each in visit.walk(endpoint):
            # Where http is taken for https that fails, the failure is none.
            passed = each.state is State.FAILED and endpoint is not own[-1]
            yield replace(each, state=State.WARNING) if passed else each
        if visit.reached:
            break
    if visit.reached and reference:
        async for each in _image(session, reference):
            yield each


async def _mirrors(session: Session, mirrors: list[Endpoint]) -> Finding:
    """Asks each mirror whether it is there; the registry stands in for one that is not."""
    told, broken = [], False
    for each in mirrors:
        try:
            async with session.send(Request("GET", f"{each.api}/", each.headers)) as response:
                told.append(f"{each.api} answers {response.status}")
                broken = broken or response.status not in (200, 401)
        except LayerhouseError as error:
            told.append(error.message)
            broken = True
    if not told:
        return Finding("mirrors", State.OK, "none set up")
    advice = "the registry itself is asked where a mirror fails" if broken else ""
    return Finding("mirrors", State.WARNING if broken else State.OK, "; ".join(told), advice)


class Visit:
    """One way to a registry, walked floor by floor.

    Attributes:
        reached: whether the registry's API answered.
    """

    def __init__(self, session: Session, host: str, reference: Reference | None, credentials: Lookup) -> None:
        self.reached = False
        self._session = session
        self._host = host
        self._reference = reference
        self._credentials = credentials

    async def walk(self, endpoint: Endpoint) -> AsyncIterator[Finding]:
        """Yields what is found at an endpoint."""
        parts = urlsplit(endpoint.api)
        name, port = parts.hostname or "", parts.port or _PORTS[parts.scheme]
        try:
            route = await self._session.hosts.route(parts.scheme, name, port)
        except LayerhouseError as error:
            yield Finding("proxy", State.FAILED, error.message, "correct it")
            return
        yield findings.of_proxy(route)
        floors = _through(route) if route.proxy else _direct(endpoint.host, name, port, parts.scheme, route)
        async for each in floors:
            yield each
            if each.state is State.FAILED:
                return
        async for each in self._served(endpoint):
            yield each

    async def _served(self, endpoint: Endpoint) -> AsyncIterator[Finding]:
        """The registry's own floors: its API, logins, limits, clock."""
        url = f"{endpoint.api}/"
        try:
            async with self._session.send(Request("GET", url, endpoint.headers)) as response:
                status, headers = response.status, dict(response.headers)
        except LayerhouseError as error:
            yield Finding("api", State.FAILED, error.message, "is it a registry, and awake?")
            return
        finding = _api(url, status, headers.get("docker-distribution-api-version", ""))
        yield finding
        if finding.state is State.FAILED:
            return
        self.reached = True
        async for each in self._logins(endpoint, status, headers.get("www-authenticate", "")):
            yield each
        yield await self._limit(headers)
        yield findings.of_clock(headers.get("date", ""), time.time())

    async def _logins(self, endpoint: Endpoint, status: int, header: str) -> AsyncIterator[Finding]:
        if status == 200:
            yield Finding("login", State.OK, "not asked for")
            return
        try:
            challenge = choose([header] if header else [], endpoint.host)
            known = await self._credentials.find(endpoint.login, endpoint.repository if self._reference else "")
        except CredentialsError as error:
            yield Finding("login", State.FAILED, error.message, f"correct it, or pullclient login {endpoint.login}")
            return
        except LayerhouseError as error:
            yield Finding("login", State.FAILED, error.message, "whoever runs the registry has to say how to log in")
            return
        yield Finding("login", State.OK, _asked(challenge))
        anonymous = await self._login(endpoint, None)
        if known is None or anonymous.state is not State.FAILED:
            yield anonymous
        if known:
            yield await self._login(endpoint, known)

    async def _login(self, endpoint: Endpoint, credential: Credential | None) -> Finding:
        """Tries whether a credential, or none, is let in."""
        step = "credentials" if credential else "anonymous"
        who = credential.owner if credential else "anybody"
        repository = self._reference.repository if self._reference else None
        scopes = (Scope("repository", repository, ("pull",)),) if repository else ()
        access = Access(Given(credential) if credential else None)
        try:
            async with Api(endpoint, self._session.send, access, *scopes).send("GET", "") as response:
                status = response.status
        except LayerhouseError as error:
            if access.grant(endpoint, scopes) and not credential:
                return Finding(step, State.WARNING, "anybody is given a token, and /v2/ refuses it")
            told = "pullclient login" in error.message
            return Finding(step, State.FAILED, error.message, "" if told else f"pullclient login {endpoint.login}")
        if status == 200:
            return Finding(step, State.OK, f"{who} is let in")
        return Finding(step, State.FAILED, f"{who} gets status {status}", "whoever runs the registry can tell more")

    async def _limit(self, headers: dict[str, str]) -> Finding:
        """Docker Hub tells of its limit where asked for a certain image; such a HEAD does not count."""
        if self._host != DOCKER_HUB:
            return findings.of_limit(self._host, headers)
        try:
            api = await self._session.api(DOCKER_HUB, Scope("repository", _PREVIEW, ("pull",)))
            async with api.send("HEAD", f"{_PREVIEW}/manifests/latest") as response:
                return findings.of_limit(self._host, response.headers)
        except LayerhouseError as error:
            return Finding("rate limit", State.WARNING, error.message)


async def _direct(shown: str, host: str, port: int, scheme: str, route: Route) -> AsyncIterator[Finding]:
    """Name, connection, TLS."""
    try:
        found = await finish(probing.addresses, host, port)
    except (OSError, UnicodeError) as error:
        text = f"{host} does not resolve: {getattr(error, 'strerror', None) or error}"
        image = "" if "." in host else f"; if {host} is an image, ask for docker.io/library/{host}"
        yield Finding(
            "dns", State.FAILED, text, f"check the spelling, the name server, and whether a VPN is off{image}"
        )
        return
    if found == [host]:
        yield Finding("dns", State.SKIPPED, f"{host} is an address")
    else:
        yield Finding("dns", State.OK, f"{host} is {', '.join(found)}")
    closed = {each: await finish(probing.connect, each, port) for each in found[: probing.MAX_ADDRESSES]}
    finding = _tcp(closed, port)
    yield finding
    if finding.state is not State.FAILED:
        yield await _tls(shown, host, port, scheme, route)


async def _through(route: Route) -> AsyncIterator[Finding]:
    """Name and connection of the proxy, which does the rest."""
    parts = urlsplit(route.proxy or "")
    async for each in _direct(parts.netloc, parts.hostname or "", parts.port or 80, "http", Route()):
        if each.step != "tls":
            yield each
    yield Finding("tls", State.SKIPPED, "the proxy stands between")


def _tcp(closed: dict[str, str], port: int) -> Finding:
    failures = [f"{address} {why}" for address, why in closed.items() if why]
    if len(failures) == len(closed):
        advice = "is a firewall or a missing proxy in between, and is the port right?"
        return Finding("tcp", State.FAILED, f"port {port}: {'; '.join(failures)}", advice)
    if failures:
        return Finding("tcp", State.WARNING, f"port {port} answers, but not at {'; '.join(failures)}", "each try costs")
    return Finding("tcp", State.OK, f"port {port} answers")


async def _tls(shown: str, host: str, port: int, scheme: str, route: Route) -> Finding:
    if scheme == "http":
        return Finding("tls", State.SKIPPED, "plain http is spoken")
    try:
        greeting = await finish(lambda: probing.greet(host, port, context(route.tls)))
    except ssl.SSLError as error:
        reason = (error.reason or str(error)).lower().replace("_", " ")
        return Finding("tls", State.FAILED, f"no TLS: {reason}", findings.tls_remedy(shown, reason))
    except OSError as error:
        return Finding("tls", State.FAILED, f"no TLS: {(error.strerror or str(error)).lower()}", "is the port right?")
    except LayerhouseError as error:
        return Finding("tls", State.FAILED, error.message, "correct it")
    return findings.of_tls(shown, route, greeting, time.time())


def _api(url: str, status: int, version: str) -> Finding:
    if status in (200, 401):
        return Finding("api", State.OK, f"{url} answers {status}{f', {version[:40]}' if version else ''}")
    return Finding("api", State.FAILED, f"{url} answers {status}, no registry does", "is it the registry's host?")


def _asked(challenge: Challenge) -> str:
    if challenge.scheme == "basic":
        return "by name and password (Basic)"
    return f"by a token from {urlsplit(realm(challenge)).netloc} (Bearer)"


async def _image(session: Session, reference: Reference) -> AsyncIterator[Finding]:
    """What only an image shows: whether it is there, and whether its blobs come in ranges."""
    remote, step = session.remote(reference), "image"
    try:
        digest, manifest = await remote.manifest(reference.target)
        yield Finding(step, State.OK, f"{reference} is {digest}")
        step = "ranges"
        for _ in range(MAX_DEPTH):
            if manifest.manifests:
                _, manifest = await remote.manifest(manifest.manifests[0].digest)
        blob = max(manifest.blobs, key=lambda each: each.size, default=None)
        if not (blob and blob.size):
            yield Finding(step, State.SKIPPED, "the image has no blob to ask for")
            return
        async with remote.part(blob.digest, ByteRange(0, 0), mirrors=False, again=True) as body:
            yield _ranges(body.partial, urlsplit(body.response.url).netloc)
    except LayerhouseError as error:
        yield Finding(step, State.FAILED, error.message, "is the name right, and is access granted?")


def _ranges(served: bool, where: str) -> Finding:
    if served:
        return Finding("ranges", State.OK, f"{where} serves them: large blobs come in parts, and broken ones go on")
    return Finding("ranges", State.WARNING, f"{where} serves none: large blobs come in one stream, broken ones anew")
