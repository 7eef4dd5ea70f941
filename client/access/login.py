"""Proving credentials at a registry before they are kept."""

from __future__ import annotations

from client.access.auth import Access
from client.access.credential import Credential
from client.access.credentials import Given
from client.hosts.endpoint import Endpoint
from client.registries.api import Api
from client.wire.exchange import Send
from ocispec.errors import CredentialsError, Unauthorized


async def proven(endpoint: Endpoint, send: Send, credential: Credential) -> bool:
    """Returns whether a registry took a credential; false where it let us in without asking for any.

    Args:
        endpoint: the registry.
        send: sends a request, see `client.wire.exchange.Transport`.
        credential: what is to be proven.

    Raises:
        Unauthorized: it was refused, or must not be sent where the registry wants it.
        CredentialsError: the host answers, and not as a registry does.
        HostUnreachable, ResponseInvalid, TooManyRequests, Unavailable: on the way.
    """
    access = Access(Given(credential))
    async with Api(endpoint, send, access).send("GET", "") as response:
        status = response.status
    grant = access.grant(endpoint, ())
    if grant and (status == 401 or grant.wish.withheld):
        raise grant.wish.refusal()
    if status == 401:
        raise Unauthorized(f"{endpoint.host} refuses everybody (status 401), and does not say how to log in")
    if status != 200:
        raise CredentialsError(f"{endpoint.host} does not answer as a registry does: /v2/ has status {status}")
    return grant is not None
