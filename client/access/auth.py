"""Access to registries: who answers a 401, and with what (distribution-spec; Docker's token specification).

What is sent to whom is decided here. How each kind of login runs is in `client.access.tokens`.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import TypeAlias
from urllib.parse import urlsplit

from client.access.credentials import Lookup
from client.access.sites import Sites
from client.access.tokens import Login, Token, Wish, basic, bearer, choose, realm, union
from client.hosts.endpoint import Endpoint
from client.wire.exchange import Answer, Request
from ocispec.errors import LayerhouseError, Unauthorized
from ocispec.headers import Challenge, Scope

Exchange: TypeAlias = Callable[[Request], Awaitable[Answer]]

REMEMBERED = 1024
# A token that ends while its request is on the way is refused.
MARGIN = 10.0

_Scopes: TypeAlias = tuple[Scope, ...] | None
_Key: TypeAlias = tuple[str, str, str, _Scopes]


@dataclass(frozen=True, slots=True)
class Grant:
    """What a login gave.

    Attributes:
        authorization: the value of the header.
        wish: what it was asked for, and by whom.
        until: when it ends, on the monotonic clock.
        asked: when the login began, on the same clock.
    """

    authorization: str = field(repr=False)
    wish: Wish
    until: float = float("inf")
    asked: float = field(default_factory=time.monotonic)

    @property
    def good(self) -> bool:
        return time.monotonic() < self.until - MARGIN


@dataclass(slots=True)
class _Held:
    """The logins for one thing: one at a time, and how the last one ended."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    rounds: int = 0
    grant: Grant | None = None
    failed: LayerhouseError | None = None


class Access:
    """What registries granted so far. Of several requests refused at once, one logs in.

    Args:
        credentials: who the user is; None for nobody.
    """

    def __init__(self, credentials: Lookup | None = None) -> None:
        self._credentials = credentials
        self._sites = Sites()
        self._held: OrderedDict[_Key, _Held] = OrderedDict()

    def granted(self, endpoint: Endpoint, scopes: tuple[Scope, ...]) -> str | None:
        """Returns the value of `Authorization`, unless there is none, or one that ends within `MARGIN` seconds."""
        grant = self.grant(endpoint, scopes)
        return grant.authorization if grant and grant.good else None

    def grant(self, endpoint: Endpoint, scopes: tuple[Scope, ...]) -> Grant | None:
        """Returns what the last login gave: one by password, which is good for all of the repository, or a token."""
        found = (self._held.get(_key(endpoint, each)) for each in (None, scopes))
        return next((held.grant for held in found if held and held.grant), None)

    def asked(self, endpoint: Endpoint, scopes: tuple[Scope, ...]) -> float:
        """Returns when the last login began, on the monotonic clock."""
        grant = self.grant(endpoint, scopes)
        return grant.asked if grant else float("inf")

    def refusal(self, endpoint: Endpoint, scopes: tuple[Scope, ...]) -> Unauthorized:
        """Returns the error for a registry that refuses what `renew` just gave for it."""
        grant = self.grant(endpoint, scopes)
        if grant is None:
            return Unauthorized(f"{endpoint.host} wants a login")
        return grant.wish.denial() if grant.wish.scopes else grant.wish.refusal()

    async def renew(
        self,
        endpoint: Endpoint,
        scopes: tuple[Scope, ...],
        refused: str | None,
        challenges: list[str],
        exchange: Exchange,
    ) -> str:
        """Logs in, unless another task has done so since `refused` was sent, or does so now.

        Cancelled, it leaves the login to whoever waits for it.

        Args:
            endpoint: the registry.
            scopes: what is to be allowed.
            refused: the `Authorization` that was answered with 401.
            challenges: every `WWW-Authenticate` of that answer.
            exchange: sends a request and reads the answer.

        Raises:
            Unauthorized: access is not granted; says whose credentials were refused, or not sent and why.
            CredentialsError: see `client.access.credentials.Credentials.find`.
            TooManyRequests, Unavailable: the token server asks to come back later.
            ResponseInvalid: the challenge or the token server's answer does not follow its specification.
        """
        held = self._holder(_key(endpoint, scopes))
        rounds = held.rounds
        async with held.lock:
            granted = self.granted(endpoint, scopes)
            if granted and granted != refused:
                return granted
            if held.rounds == rounds:
                await self._log_in(held, endpoint, scopes, choose(challenges, endpoint.host), exchange)
            grant = self.grant(endpoint, scopes)
        if held.failed or not grant:
            raise _again(held.failed or self.refusal(endpoint, scopes))
        if grant.authorization == refused and not grant.wish.scopes:
            raise grant.wish.refusal()
        return grant.authorization

    async def _log_in(
        self, held: _Held, endpoint: Endpoint, scopes: tuple[Scope, ...], challenge: Challenge, exchange: Exchange
    ) -> None:
        held.failed = None
        try:
            grant = await self._logged_in(endpoint, scopes, challenge, exchange)
        except LayerhouseError as error:
            held.failed = error
        else:
            # A password is good for every scope, and a registry that turned to tokens wants it no more.
            everywhere = self._holder(_key(endpoint, None))
            everywhere.grant = None
            (everywhere if challenge.scheme == "basic" else held).grant = grant
        held.rounds += 1

    async def _logged_in(
        self, endpoint: Endpoint, scopes: tuple[Scope, ...], challenge: Challenge, exchange: Exchange
    ) -> Grant:
        known = await self._credentials.find(endpoint.login, endpoint.repository) if self._credentials else None
        wish = Wish(endpoint.host, endpoint.login, credential=known)
        if challenge.scheme == "basic":
            return Grant(basic(wish), wish)
        if known and known.registry_token:
            return Grant(f"Bearer {known.registry_token}", wish)
        wish = replace(wish, scopes=union(scopes, challenge))
        if known:
            wish = await self._withheld(wish, endpoint.api, realm(challenge))
        asked = time.monotonic()
        token = await _run(bearer(challenge, wish), exchange)
        return Grant(f"Bearer {token.text}", wish, asked + token.life, asked)

    async def _withheld(self, wish: Wish, api: str, server: str) -> Wish:
        """Takes the credential out of a login at a server that must not have it."""
        objection = await self._sites.objection(api, server)
        if not objection:
            return wish
        said = f"the credentials for it were not sent to {urlsplit(server).netloc}: {objection}"
        return replace(wish, credential=None, withheld=said)

    def _holder(self, key: _Key) -> _Held:
        held = self._held.setdefault(key, _Held())
        self._held.move_to_end(key)
        if len(self._held) > REMEMBERED:
            self._held.popitem(last=False)
        return held


def _key(endpoint: Endpoint, scopes: _Scopes) -> _Key:
    # Parts of one registry may have credentials of their own.
    return endpoint.api, endpoint.login, endpoint.repository, scopes


async def _run(steps: Login, exchange: Exchange) -> Token:
    request = next(steps)
    while True:
        answer = await exchange(request)
        try:
            request = steps.send(answer)
        except StopIteration as end:
            token: Token = end.value
            return token


def _again(error: LayerhouseError) -> LayerhouseError:
    """A copy for each task that raises it: an exception carries the trace of who did."""
    return type(error)(error.message, detail=error.detail, headers=error.headers)
