"""What the transfers of one call share: connections, and what registries granted."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Self

from client.auth import Access
from client.exchange import Request, Response, Transport
from client.remote import Remote
from ocispec.reference import Reference

JOBS = 12
PER_HOST = 6


class Session:
    """Use it as `async with`; leaving it closes all connections.

    Args:
        jobs: how many blobs are on their way at once.
        plain_http: speak http to any host, not to this machine alone.
        connect: opens the transport, given the number of connections.
    """

    def __init__(
        self,
        *,
        jobs: int = JOBS,
        per_host: int = PER_HOST,
        plain_http: bool = False,
        insecure: bool = False,
        mirrors: tuple[str, ...] = (),
        connect: Callable[[int], Transport] | None = None,
    ) -> None:
        self.jobs = jobs
        self.per_host = per_host
        self._plain_http = plain_http
        self._connect = connect or _connect
        self._transport: Transport | None = None
        self._access = Access()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._transport:
            await self._transport.aclose()

    def remote(self, reference: Reference, *actions: str) -> Remote:
        """Gives the repository that a reference names, for `actions`: pull unless told."""
        return Remote(reference, self.send, self._access, actions=actions or ("pull",), plain_http=self._plain_http)

    def send(self, request: Request) -> AbstractAsyncContextManager[Response]:
        """See `client.exchange.Transport`; the first request opens the transport."""
        if self._transport is None:
            self._transport = self._connect(self.jobs + 2)
        return self._transport.send(request)


def _connect(connections: int) -> Transport:
    # What is whole in the cache needs no network, and the library takes as long to import as all the rest.
    from client.transport import HttpTransport  # noqa: PLC0415 - see above

    return HttpTransport(connections)
