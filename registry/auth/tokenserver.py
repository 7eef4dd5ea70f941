"""The built-in token server: who gets which token (Docker's token specification, and its OAuth2 variant)."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from secrets import token_hex
from typing import Any

from ocispec.errors import NameInvalid, RequestInvalid, StorageError, Unauthorized, Unavailable
from ocispec.headers import Scope
from ocispec.reference import RepositoryName
from registry import context
from registry.auth.authenticator import Basic, Identity, Kind
from registry.auth.caller import Action
from registry.auth.identification import Identification
from registry.auth.policy import Policy, Somebody
from registry.auth.tokens_accounts import Accounts
from registry.auth.tokens_database import Login, TokenDatabase
from registry.auth.tokens_file import LOGIN_PREFIX, hashed, new_secret
from registry.auth.tokens_own import CLAIM
from registry.auth.tokens_signing import SigningKeys
from registry.auth.wanted import ADMINISTERED, ADMINISTRATION, CATALOG, LISTED
from registry.config.tokens import Tokens
from storage.threads import finish

MOST_SCOPES = 100
_MOST_CLIENT = 128
_ACTIONS = (Action.PULL, Action.PUSH, Action.DELETE)
_CONCERNS = {(CATALOG.type, CATALOG.name): LISTED, (ADMINISTRATION.type, ADMINISTRATION.name): ADMINISTERED}
_log = logging.getLogger("registry")


@dataclass(frozen=True, slots=True)
class Asked:
    """What a client asks for.

    Attributes:
        scopes: what it would like to do.
        offline: whether it wants to keep the login.
        client: which program it is, as it says.
    """

    scopes: Sequence[Scope] = ()
    offline: bool = False
    client: str = ""


@dataclass(frozen=True, slots=True)
class Issued:
    """A token.

    Attributes:
        token: itself.
        lifetime: seconds from `issued`.
        issued: in UTC.
        scopes: what it covers.
        refresh: by which the client gets others; None where it did not ask for that.
    """

    token: str = field(repr=False)
    lifetime: int
    issued: datetime
    scopes: Sequence[Scope]
    refresh: str | None = field(default=None, repr=False)


class TokenServer:
    """Gives out tokens.

    A token covers what was asked for and what the access rules, and the limits of a robot, allow. One that covers
    nothing is a token all the same: docker takes it for a login.

    Args:
        given: the configuration.
        keys: what is signed by.
        accounts: by what somebody can have logged in.
        identification: tells who asks, by all but tokens of this server: nobody prolongs a token with itself.
        policy: the access rules.
        database: where logins are kept.
    """

    def __init__(
        self,
        given: Tokens,
        keys: SigningKeys,
        *,
        accounts: Accounts,
        identification: Identification,
        policy: Policy,
        database: TokenDatabase,
    ) -> None:
        self._given = given
        self._keys = keys
        self._accounts = accounts
        self._identification = identification
        self._policy = policy
        self._database = database

    async def by_header(self, scope: context.Scope, asked: Asked) -> Issued:
        """Logs in by the Authorization header, a certificate, or nothing.

        Raises:
            Unauthorized: the credentials are wrong, or there are none and nobody may do anything without.
        """
        return await self._logged_in(await self._identification.of(scope, tuple), scope, asked)

    async def by_password(self, user: str, password: str, scope: context.Scope, asked: Asked) -> Issued:
        """Logs in by name and password, or by a personal or robot token in place of the password.

        Raises:
            Unauthorized: they are wrong.
        """
        identity = await self._identification.by(Basic(user, password), scope)
        if identity is None:
            raise self._refused(scope, "user name or password is wrong")
        return await self._logged_in(identity, scope, asked)

    async def by_login(self, secret: str, scope: context.Scope, asked: Asked) -> Issued:
        """Goes on with a login that a client keeps.

        Raises:
            Unauthorized: it has ended, was revoked, or whose it was has another password or is gone.
            Unavailable: logins cannot be looked at.
        """
        await self._accounts.refresh()
        digest, lifetime = hashed(secret), self._given.refreshlifetime.total_seconds()
        try:
            login = await finish(self._database.use, digest, time.time(), lifetime)
            identity = self._accounts.find(login.name, login.account) if login else None
            if login and identity is None:
                await finish(self._database.remove, digest)
        except StorageError as error:
            _log.error("logins cannot be looked at: %s", error.message)
            raise Unavailable("logins cannot be looked at, try again later") from error
        if identity is None:
            raise self._refused(scope, "the login has ended: log in again")
        return await self._issue(identity, scope, asked)

    def _refused(self, scope: context.Scope, told: str) -> Unauthorized:
        return Unauthorized(told, headers=self._identification.challenge(scope))

    async def _logged_in(self, identity: Identity, scope: context.Scope, asked: Asked) -> Issued:
        await self._policy.refresh()
        if identity.kind is Kind.ANONYMOUS and not self._policy.allows(identity, Action.PULL, None):
            raise self._refused(scope, "nobody may do anything here without logging in")
        return await self._issue(identity, scope, asked, keeps=asked.offline)

    async def _issue(self, identity: Identity, scope: context.Scope, asked: Asked, *, keeps: bool = False) -> Issued:
        if len(asked.scopes) > MOST_SCOPES:
            raise RequestInvalid(f"{len(asked.scopes)} scopes: expected {MOST_SCOPES} at most")
        await self._policy.refresh()
        await self._keys.refresh()
        caller = Somebody(identity, self._policy)
        context.set_caller(scope, caller)
        scopes = tuple(_granted(caller, asked.scopes))
        context.set_issued(scope, scopes)
        account, now = self._accounts.of(identity), int(time.time())
        if account is None and identity.kind in (Kind.USER, Kind.ROBOT):
            raise self._refused(scope, "the account is gone")
        lifetime = int(self._given.lifetime.total_seconds())
        token = self._keys.sign(self._claims(identity, account, scopes, now, lifetime))
        refresh = await self._keep(identity, account, asked) if keeps and account else None
        return Issued(token, lifetime, datetime.fromtimestamp(now, UTC), scopes, refresh)

    def _claims(
        self, identity: Identity, account: str | None, scopes: Sequence[Scope], now: int, lifetime: int
    ) -> dict[str, Any]:
        return {
            "iss": self._given.issuer,
            "sub": identity.name or "",
            "aud": self._given.service,
            "exp": now + lifetime,
            "nbf": now,
            "iat": now,
            "jti": token_hex(16),
            "access": [{"type": each.type, "name": each.name, "actions": list(each.actions)} for each in scopes],
            CLAIM: {"kind": identity.kind.value, "account": account},
        }

    async def _keep(self, identity: Identity, account: str, asked: Asked) -> str | None:
        """Keeps a login; None where that is not possible: the client then goes on with the password."""
        secret, now = new_secret(LOGIN_PREFIX), time.time()
        expires = now + self._given.refreshlifetime.total_seconds()
        client = "".join(filter(str.isprintable, asked.client))[:_MOST_CLIENT]
        login = Login(hashed(secret), identity.kind, identity.name or "", account, client, now, now, expires)
        try:
            await finish(self._database.add, login)
        except StorageError as error:
            _log.error("a login is not kept: %s", error.message)
            return None
        return secret


def _granted(caller: Somebody, scopes: Sequence[Scope]) -> Iterator[Scope]:
    asked: dict[tuple[str, str], set[str]] = {}
    for scope in scopes:
        asked.setdefault((scope.type, scope.name), set()).update(scope.actions)
    for (kind, name), actions in asked.items():
        may = tuple(each for each in _allowed(caller, kind, name) if actions & {each, "*"})
        if may:
            yield Scope(kind, name, may)


def _allowed(caller: Somebody, kind: str, name: str) -> Iterator[str]:
    """What somebody may do with a thing, whatever he asked for."""
    if kind == "repository":
        try:
            repository = RepositoryName.parse(name)
        except NameInvalid:
            return
        yield from (each for each in _ACTIONS if caller.may(each, repository))
    else:
        wanted = _CONCERNS.get((kind, name))
        if wanted is not None and caller.is_allowed(wanted):
            yield "*"
