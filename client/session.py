"""What the transfers of one call share: connections, what registries granted, waits, and how much runs at once."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Self

from client.access.auth import Access
from client.access.credentials import Credentials, Lookup
from client.hosts.endpoint import Endpoint
from client.hosts.hosts import Hosts
from client.progress import Report, Waiting, Warned, silent
from client.registries.api import Api, reached
from client.registries.remote import Remote
from client.registries.retrying import Patience
from client.transfers.slots import Slots
from client.wire.exchange import Request, Response, Transport
from ocispec.headers import Scope
from ocispec.reference import Reference, RepositoryName

JOBS = 12
PER_HOST = 6


class Session:
    """Use it as `async with`; leaving it closes all connections.

    Args:
        jobs: how many transfers run at once, in all.
        per_host: how many of them go to one host.
        plain_http: speak http to any host, not to this machine alone.
        insecure: take any certificate, and http from a host that speaks no https.
        mirrors: URLs of registries that are asked first.
        credentials: of the user; those that docker and podman know unless told.
        hosts: how hosts are reached; as this machine is set up unless told.
        patience: how often something is tried again.
        report: is told every event, from within the event loop: it must not block.
        connect: opens the transport, given the number of connections.
        around: what is put around it, to see what passes.

    Attributes:
        report: hears what happens.
        slots: bound what runs at once.
    """

    def __init__(
        self,
        *,
        jobs: int = JOBS,
        per_host: int = PER_HOST,
        plain_http: bool = False,
        insecure: bool = False,
        mirrors: tuple[str, ...] = (),
        credentials: Lookup | None = None,
        hosts: Hosts | None = None,
        patience: Patience | None = None,
        report: Report = silent,
        connect: Callable[[int], Transport] | None = None,
        around: Callable[[Transport], Transport] = lambda transport: transport,
    ) -> None:
        self.jobs = jobs
        self.slots = Slots(jobs, per_host)
        self.report = report
        self.patience = patience or Patience()
        self.patience.told = lambda host, seconds, cause: self.report(Waiting(None, host, seconds, cause))
        self.hosts = hosts or Hosts(mirrors=mirrors, plain_http=plain_http, insecure=insecure)
        self._connect = connect or self._opened
        self._around = around
        self._transport: Transport | None = None
        self._access = Access(credentials or Credentials(os.environ))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._transport:
            await self._transport.aclose()

    def remote(self, reference: Reference, *actions: str) -> Remote:
        """Gives the repository that a reference names, for `actions`: pull unless told."""

        async def connect() -> Sequence[Api]:
            return await self._apis(reference, actions or ("pull",))

        return Remote(reference, connect, self.patience, lambda message: self.report(Warned(reference, message)))

    async def api(self, host: str, *scopes: Scope) -> Api:
        """Gives the API of a registry itself, for what concerns no single repository.

        Raises:
            ConfigurationError: what tells how the host is reached is wrong.
        """
        found = await self.hosts.endpoints(host, RepositoryName("none"))
        ways = [self._api(each, *scopes) for each in found if not each.mirror]
        return await reached(ways, lambda message: self.report(Warned(None, message)))

    def send(self, request: Request) -> AbstractAsyncContextManager[Response]:
        """See `client.wire.exchange.Transport`; the first request opens the transport."""
        if self._transport is None:
            self._transport = self._around(self._connect(self.jobs + 2))
        return self._transport.send(request)

    async def _apis(self, reference: Reference, actions: tuple[str, ...]) -> Sequence[Api]:
        found = await self.hosts.endpoints(reference.host, reference.repository)
        return [
            self._api(each, Scope("repository", each.repository, ("pull",) if each.mirror else actions))
            for each in found
        ]

    def _api(self, endpoint: Endpoint, *scopes: Scope) -> Api:
        return Api(endpoint, self.send, self._access, *scopes, patience=self.patience)

    def _opened(self, connections: int) -> Transport:
        # What is whole in the cache needs no network, and the library takes as long to import as all the rest.
        from client.wire.transport import HttpTransport  # noqa: PLC0415 - see above

        return HttpTransport(connections, routes=self.hosts.route)


@asynccontextmanager
async def entered(session: Session | None, report: Report | None) -> AsyncIterator[Session]:
    """Gives the session that a caller has, or one for this call alone, which tells `report`.

    Raises:
        TypeError: both are given; a session has a `report` of its own.
    """
    if session is None:
        async with Session(report=report or silent) as own:
            yield own
    elif report is None:
        yield session
    else:
        raise TypeError("a session tells its own report: give one of the two")
