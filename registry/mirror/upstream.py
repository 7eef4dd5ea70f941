"""A registry that is mirrored, asked through the pull client."""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from client.access.credential import Credential
from client.access.credentialfiles import CredentialFile
from client.access.credentials import Credentials, Given, Lookup
from client.hosts.endpoint import Endpoint, Route, Tls
from client.hosts.hosts import Hosts
from client.progress import Event, Waiting, Warned
from client.registries import listing, referring
from client.registries.api import expect
from client.registries.remote import Remote
from client.registries.retrying import Patience
from client.session import Session
from ocispec.descriptor import Descriptor
from ocispec.digest import Digest
from ocispec.errors import (
    BlobUnknown,
    CredentialsError,
    Denied,
    HostUnreachable,
    LayerhouseError,
    NameUnknown,
    RegistryError,
    TooManyRequests,
    TransferError,
    Unauthorized,
    Unavailable,
    UnknownError,
)
from ocispec.manifest import Manifest
from ocispec.reference import DOCKER_HUB, Reference, RepositoryName, Tag
from registry.config.mirror import MirroredRegistry, registry_url
from registry.config.proxy import Proxy
from registry.config.values import ConfigError
from registry.mirror.asked import via
from registry.mirror.watching import Limits, Waits, Watching

_log = logging.getLogger("registry")
# A client waits behind every try: it has somewhere else to go sooner than a pull of one's own.
_ATTEMPTS, _LONGEST_WAIT = 3, 5.0
# One who has something to serve instead waits no longer than this, and asks nobody who failed so lately, in seconds.
_BRIEFLY, _FETCHED_BRIEFLY, _FAILING = 5.0, 15.0, 10.0
_JOBS = 32
_MOST_TAGS = 100_000
_HUBS = frozenset({"registry-1.docker.io", "index.docker.io"})


class Upstream:
    """One registry, through one session: connections, logins and waits are shared by all that is asked of it.

    Credentials go to that registry and to token servers of its own site alone (CVE-2026-33540), and a redirect never
    carries them. What docker, podman and containerd of this machine know of mirrors does not count: it may lead here.

    Args:
        settings: which registry, and as whom.
        instance: the name by which this instance enters itself in `Via`.

    Attributes:
        name: what logs and metrics call it.
        host: where it is reached.
        limits: how many requests it grants.

    Raises:
        ConfigError: the URL is none, or user and password are not both there, or a file cannot be used.
    """

    def __init__(self, settings: Proxy | MirroredRegistry, instance: str = "") -> None:
        place = "proxy" if isinstance(settings, Proxy) else f"layerhouse.mirror.upstreams, {settings.name}"
        url = urlsplit(_url(settings))
        ca = None if isinstance(settings, Proxy) else settings.ca
        self.host = DOCKER_HUB if url.netloc in _HUBS else url.netloc
        self.name = self.host if isinstance(settings, Proxy) else settings.name
        self.limits = Limits()
        self.session = Session(
            jobs=_JOBS,
            credentials=_credentials(settings, place),
            hosts=_Only(f"{url.scheme}://{url.netloc}{url.path}/v2", self.host, instance, _trusting(ca, place)),
            patience=Patience(attempts=_ATTEMPTS, longest=_LONGEST_WAIT),
            report=_report,
            around=partial(Watching, limits=self.limits, waits=Waits()),
        )
        self._failing_until = 0.0
        self._failure = ""

    def remote(self, name: RepositoryName) -> Remote:
        """Returns a repository there.

        What another mirror asks for is not asked for again: that one does so itself, and each of a chain would
        multiply the requests.
        """
        return self._once(name) if via() else self.session.remote(Reference(self.host, name))

    @asynccontextmanager
    async def briefly(self, within: float) -> AsyncIterator[None]:
        """Around what is asked by one who has something to serve instead: see `answered`, and beside that

        Raises:
            Unavailable: it failed a moment ago and is not asked, or says nothing for `within` seconds.
        """
        if time.monotonic() < self._failing_until:
            raise Unavailable(self._failure)
        with answered():
            try:
                async with asyncio.timeout(within):
                    yield
            except TimeoutError as error:
                silent = HostUnreachable(f"{self.host} does not answer within {within:.0f} s")
                self._failed(silent)
                raise silent from error
            except (HostUnreachable, TooManyRequests, Unavailable) as error:
                self._failed(error)
                raise
        self._failing_until = 0.0

    async def head(self, name: RepositoryName, tag: Tag) -> Digest | None:
        """Asks once what a tag stands for, `briefly`; None where upstream does not say (end-3)."""
        async with self.briefly(_BRIEFLY):
            return await self._once(name).head(tag)

    async def manifest(
        self, name: RepositoryName, reference: Tag | Digest, *, briefly: bool = False
    ) -> tuple[Digest, Manifest]:
        """Fetches a manifest (end-3); errors as `answered` or, where something is here instead, as `briefly`."""
        if briefly:
            async with self.briefly(_FETCHED_BRIEFLY):
                return await self._once(name).manifest(reference)
        with answered():
            return await self.remote(name).manifest(reference)

    async def reached(self) -> None:
        """Raises RegistryError, see `answered`, while upstream does not answer (end-1); a refusal is an answer."""
        with suppress(Refused), answered():
            api = await self.session.api(self.host)
            async with api.send("GET", ""):
                pass

    async def size(self, name: RepositoryName, digest: Digest) -> int:
        """Returns a blob's length in bytes (end-2); raises BlobUnknown, and what `told` raises."""
        api = (await self.remote(name).endpoints())[-1]
        async with api.send("HEAD", f"{name}/blobs/{digest}") as response:
            await expect(response, 200, BlobUnknown)
            length = response.headers.get("content-length", "")
        if not length.isdecimal():
            raise Unavailable(f"{self.host} does not tell the size of {digest}")
        return int(length)

    async def tags(self, name: RepositoryName) -> list[str]:
        """Returns all tags of a repository there, in its order (end-8); raises Unavailable where they are too many."""
        found: list[str] = []
        async for each in listing.tags((await self.remote(name).endpoints())[-1]):
            found.append(each)
            if len(found) > _MOST_TAGS:
                raise Unavailable(f"{self.host}/{name} has more than {_MOST_TAGS} tags")
        return found

    async def referrers(self, name: RepositoryName, subject: Digest) -> tuple[Descriptor, ...]:
        """Returns what refers to a manifest there (end-12)."""
        return await referring.referrers((await self.remote(name).endpoints())[-1], subject)

    def _once(self, name: RepositoryName) -> Remote:
        """A repository there, of which nothing is asked twice; waits that were asked for hold for it too."""
        reference, once = Reference(self.host, name), replace(self.session.patience, attempts=1)
        return Remote(reference, self.session.remote(reference).endpoints, once, _log.warning)

    def _failed(self, error: LayerhouseError) -> None:
        self._failing_until = time.monotonic() + _FAILING
        self._failure = f"upstream: {error.message}"
        _log.warning("%s fails, what is here is served for %.0f s unasked: %s", self.name, _FAILING, error.message)


class Refused(NameUnknown):
    """Upstream grants no access: for who asks here there is nothing then, but what is here may still be served."""


class _Only(Hosts):
    """Leads every repository to one endpoint, and tells there on whose way a request is."""

    def __init__(self, api: str, host: str, instance: str, tls: Tls | None) -> None:
        super().__init__()
        self._endpoint = api, host
        self._instance = instance
        if tls is not None:
            url = urlsplit(api)
            self._named[url.hostname or "", url.port or 443] = Route(tls)

    async def endpoints(self, _host: str, repository: RepositoryName) -> tuple[Endpoint, ...]:
        api, host = self._endpoint
        hops = ", ".join(f"1.1 {each}" for each in (*via(), self._instance))
        headers = {"Via": hops} if self._instance else {}
        return (Endpoint(api, host, repository, login=host, headers=headers),)


class _Nobody:
    """No credentials, whatever this machine's user has."""

    async def find(self, _host: str, _repository: str) -> None:
        return None


def _url(settings: Proxy | MirroredRegistry) -> str:
    if isinstance(settings, MirroredRegistry):
        return settings.address
    try:
        return registry_url(settings.remoteurl or "")
    except ValueError as error:
        raise ConfigError(f"proxy.remoteurl: {error}") from error


def _credentials(settings: Proxy | MirroredRegistry, place: str) -> Lookup:
    if (settings.username is None) != (settings.password is None):
        raise ConfigError(f"{place}: username and password go together")
    if settings.username is not None and settings.password is not None:
        return Given(Credential(settings.username, settings.password.get_secret_value(), place=place))
    file = settings.dockerconfig if isinstance(settings, MirroredRegistry) else None
    if file is None:
        return _Nobody()
    try:
        CredentialFile.read(file, needed=True)
    except CredentialsError as error:
        raise ConfigError(f"{place}: dockerconfig: {error.message}") from error
    # Helpers are programs: they find themselves, and what is theirs, by these.
    own = {name: os.environ[name] for name in ("HOME", "PATH") if name in os.environ}
    return Credentials({**own, "REGISTRY_AUTH_FILE": str(file), "DOCKER_CONFIG": os.devnull})


def _trusting(ca: Path | None, place: str) -> Tls | None:
    if ca is None:
        return None
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(ca)
    except OSError as error:
        raise ConfigError(f"{place}: ca: {ca}: {error.strerror or error}") from error
    return Tls(authorities=(ca,))


@contextmanager
def answered() -> Iterator[None]:
    """Turns what upstream answered, or did not, into what our own client gets: never a demand for a login there.

    Raises:
        Refused: upstream grants no access.
        TooManyRequests: as upstream said, with its `Retry-After`.
        Unavailable: upstream failed, or cannot be reached.
        RegistryError: BlobUnknown, ManifestUnknown and the like, as they are.
    """
    try:
        yield
    except (Unauthorized, Denied) as error:
        raise Refused(f"upstream refuses: {error.message}") from error
    except TooManyRequests as error:
        raise TooManyRequests(f"upstream: {error.message}", headers=_waits(error)) from error
    except (TransferError, Unavailable, UnknownError) as error:
        raise Unavailable(f"upstream: {error.message}", headers=_waits(error)) from error
    except RegistryError as error:
        raise type(error)(error.message, detail=error.detail) from error


def _waits(error: LayerhouseError) -> dict[str, str]:
    found = {name.lower(): value for name, value in error.headers.items()}
    return {"Retry-After": found["retry-after"]} if "retry-after" in found else {}


def _report(event: Event) -> None:
    if isinstance(event, Warned):
        _log.warning("upstream: %s", event.message)
    elif isinstance(event, Waiting):
        _log.warning("upstream: %s asks to wait %.0f s: %s", event.host, event.seconds, event.cause)
