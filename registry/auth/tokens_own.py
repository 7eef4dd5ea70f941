"""Bearer tokens of the built-in token server."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

from ocispec.headers import Scope
from registry import context
from registry.auth.authenticator import Bearer, Credentials, Identity, Kind
from registry.auth.jwks import TokenRefused
from registry.auth.tokens import Verified, Verifier, challenge
from registry.auth.tokens_accounts import Accounts
from registry.auth.tokens_signing import ALGORITHM, SigningKeys
from registry.config.tokens import Tokens

CLAIM = "layerhouse"
"""What only this registry has to understand: `{"kind": …, "account": …}`."""
_log = logging.getLogger("registry")


class OwnTokens:
    """Knows whoever a token of the built-in token server names, for as long as the account is there.

    So whoever is removed, revoked, or has another password is refused at once, though the token lasts longer.

    Attributes:
        keys: what tokens are signed by.
        accounts: who may have logged in.

    Args:
        given: the configuration.
        keys: what tokens are signed by.
        accounts: who may have logged in.
        realm: tells the token server's address as the client reaches it.
    """

    def __init__(
        self, given: Tokens, keys: SigningKeys, accounts: Accounts, realm: Callable[[context.Scope], str]
    ) -> None:
        self.keys = keys
        self.accounts = accounts
        self._service = given.service
        self._realm = realm
        self._verifier = Verifier(keys, given.issuer, given.service, [ALGORITHM])

    def challenge(self, wanted: Sequence[Scope], error: str | None, scope: context.Scope) -> str:
        return challenge(self._realm(scope), self._service, wanted, error)

    async def identify(self, credentials: Credentials | None, scope: context.Scope) -> Identity | None:  # noqa: ARG002 - as the protocol has it
        if not isinstance(credentials, Bearer):
            return None
        try:
            found = await self._verifier.verify(credentials.token)
            await self.accounts.refresh()
            return self._identity(found)
        except TokenRefused as error:
            _log.info("a token of layerhouse.tokens is refused: %s", error.message)
            return None

    def _identity(self, found: Verified) -> Identity:
        told = found.claims.get(CLAIM)
        given = told if isinstance(told, dict) else {}
        name, account = found.text("sub") or None, given.get("account")
        if account is None:
            return Identity(name, _kind(given.get("kind"), name), grants=found.grants(), holds=found.holds)
        known = self.accounts.find(name or "", str(account))
        if known is None or known.holds is None:
            raise TokenRefused(f"{name!r:.80} has been removed or revoked since, or has another password")
        until, is_trusted, account_holds = found.until, found.is_trusted, known.holds

        def holds() -> bool:
            # As `found.holds`, without its call: each request pays for it.
            return time.time() < until and is_trusted() and account_holds()

        return Identity(known.name, known.kind, grants=found.grants(), limits=known.limits, holds=holds)


def _kind(told: object, name: str | None) -> Kind:
    """Of who logged in without an account."""
    kind = Kind.ANONYMOUS if name is None else Kind.CERTIFICATE
    if told != kind:
        raise TokenRefused("it does not say by what account it was made")
    return kind
