"""The registry that is mirrored, asked through the pull client."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

from client.access.credential import Credential
from client.access.credentials import Given, Lookup
from client.hosts.endpoint import Endpoint
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
    Denied,
    LayerhouseError,
    NameUnknown,
    RegistryError,
    TooManyRequests,
    TransferError,
    Unauthorized,
    Unavailable,
    UnknownError,
)
from ocispec.reference import Reference, RepositoryName
from registry.config.proxy import Proxy
from registry.config.values import ConfigError

_log = logging.getLogger("registry")
# A client waits behind every try: it has somewhere else to go sooner than a pull of one's own.
_ATTEMPTS, _LONGEST_WAIT = 3, 5.0
_JOBS = 32


class Upstream:
    """One registry, through one session: connections, logins and waits are shared by all that is asked of it.

    Credentials go to that registry and to token servers of its own site alone (CVE-2026-33540), and a redirect never
    carries them. What docker, podman and containerd of this machine know of mirrors does not count: it may lead here.

    Raises:
        ConfigError: the URL is none, or user and password are not both there.
    """

    def __init__(self, settings: Proxy) -> None:
        url = urlsplit((settings.remoteurl or "").rstrip("/"))
        if url.scheme not in ("http", "https") or not url.hostname or url.username or url.query:
            raise ConfigError("proxy.remoteurl: expected a URL like https://registry.example, without a user in it")
        if (settings.username is None) != (settings.password is None):
            raise ConfigError("proxy: username and password go together")
        self.host = url.netloc
        self.session = Session(
            jobs=_JOBS,
            credentials=_credentials(settings),
            hosts=_Only(f"{url.scheme}://{url.netloc}{url.path}/v2", url.netloc),
            patience=Patience(attempts=_ATTEMPTS, longest=_LONGEST_WAIT),
            report=_report,
        )

    def remote(self, name: RepositoryName) -> Remote:
        """Returns a repository there."""
        return self.session.remote(Reference(self.host, name))

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
        """Returns all tags of a repository there, in its order (end-8)."""
        return [each async for each in self._tags(name)]

    async def referrers(self, name: RepositoryName, subject: Digest) -> tuple[Descriptor, ...]:
        """Returns what refers to a manifest there (end-12)."""
        return await referring.referrers((await self.remote(name).endpoints())[-1], subject)

    async def _tags(self, name: RepositoryName) -> AsyncIterator[str]:
        async for each in listing.tags((await self.remote(name).endpoints())[-1]):
            yield each


class Refused(NameUnknown):
    """Upstream grants no access: for who asks here there is nothing then, but what is here may still be served."""


class _Only(Hosts):
    """Leads every repository to one endpoint."""

    def __init__(self, api: str, host: str) -> None:
        super().__init__()
        self._endpoint = api, host

    async def endpoints(self, _host: str, repository: RepositoryName) -> tuple[Endpoint, ...]:
        api, host = self._endpoint
        return (Endpoint(api, host, repository, login=host),)


class _Nobody:
    """No credentials, whatever this machine's user has."""

    async def find(self, _host: str, _repository: str) -> None:
        return None


def _credentials(settings: Proxy) -> Lookup:
    if settings.username is None or settings.password is None:
        return _Nobody()
    return Given(Credential(settings.username, settings.password.get_secret_value(), place="proxy"))


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
