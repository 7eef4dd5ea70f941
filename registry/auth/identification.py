"""Who asks, by whichever kind of authentication knows them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from hashlib import sha256
from secrets import token_bytes

from ocispec.errors import RequestInvalid, Unauthorized
from ocispec.headers import Scope
from registry import context
from registry.auth.attempts import Attempts
from registry.auth.authenticator import (
    ANONYMOUS,
    Authenticator,
    Basic,
    Bearer,
    Credentials,
    Identity,
    parse_credentials,
)

_REMEMBERED = 4096


class Identification:
    """All kinds of authentication of a registry, in the order in which they are asked.

    **The challenge is one.** Clients do not agree on two: containerd takes Bearer whatever the order, containers/image
    (skopeo, podman) the first that it can, and docker answers all of them, so that Basic wins where it has a password
    and everything fails where it has none ("no basic auth credentials"). So Bearer is asked for wherever a token
    server stands, and Basic where none does; credentials of every kind are taken in either case.

    Args:
        authenticators: the kinds.
        attempts: the logins that failed, wherever else passwords are taken too; None where they are not.
    """

    def __init__(self, authenticators: Sequence[Authenticator], attempts: Attempts | None = None) -> None:
        self._authenticators = tuple(authenticators)
        self._attempts = attempts or Attempts()
        self._key = token_bytes()
        self._known: dict[bytes, Identity] = {}

    async def of(self, scope: context.Scope, wanted: Callable[[], Sequence[Scope]]) -> Identity:
        """Says who sent a request; anonymous where it tells nothing.

        Args:
            scope: the ASGI scope of the request.
            wanted: gives the scopes that a challenge names; called where there is one.

        Raises:
            Unauthorized: what it tells is wrong; `headers` has the challenge.
            RequestInvalid: it tells several things at once.
            TooManyRequests: too many logins have failed.
        """
        known = self.known(scope)
        if known is not None:
            return known
        header = _authorization(scope)
        if header is None:
            return await self.by(None, scope) or ANONYMOUS
        identity = await self._told(header, scope, wanted)
        if identity.holds is not None:
            self._remember(self._digest(header), identity)
        return identity

    def known(self, scope: context.Scope) -> Identity | None:
        """Says who sent a request, where its credentials are remembered and still count; None where `of` has to look.

        Most requests are answered by this: it does not wait, and costs a microsecond.

        Raises:
            RequestInvalid: it tells several things at once.
        """
        header = _authorization(scope)
        found = None if header is None else self._known.get(self._digest(header))
        if header is None or found is None or found.holds is None:
            return None
        # Nobody guesses tokens.
        is_usable = header[:7].lower() == b"bearer " or self._attempts.is_calm(context.host(scope))
        return found if is_usable and found.holds() else None

    def _digest(self, header: bytes) -> bytes:
        """Not the header itself: whoever read this process's memory would find everybody's password."""
        return sha256(self._key + header).digest()

    def _remember(self, key: bytes, identity: Identity) -> None:
        self._known.pop(key, None)
        self._known[key] = identity
        if len(self._known) > _REMEMBERED:
            del self._known[next(iter(self._known))]

    async def _told(self, header: bytes, scope: context.Scope, wanted: Callable[[], Sequence[Scope]]) -> Identity:
        """Says who wrote an Authorization header."""
        try:
            credentials = parse_credentials(header)
        except Unauthorized as error:
            error.headers |= self.challenge(scope, wanted())
            raise
        identity = await self.by(credentials, scope)
        if identity is not None:
            return identity
        if isinstance(credentials, Bearer):
            told = self.challenge(scope, wanted(), "invalid_token")
            raise Unauthorized("the token is not valid here, or no longer", headers=told)
        raise Unauthorized("user name or password is wrong", headers=self.challenge(scope, wanted()))

    async def by(self, credentials: Credentials | None, scope: context.Scope) -> Identity | None:
        """Says whose credentials these are; None where they are nobody's. Whoever gives none is anonymous at worst.

        Raises:
            TooManyRequests: too many logins with a password have failed.
        """
        if isinstance(credentials, Basic):
            context.set_tried(scope, credentials.user)
            address = context.host(scope)
            return await self._attempts.checked(credentials.user, address, partial(self._first, credentials, scope))
        return await self._first(credentials, scope)

    async def _first(self, credentials: Credentials | None, scope: context.Scope) -> Identity | None:
        for each in self._authenticators:
            if (found := await each.identify(credentials, scope)) is not None:
                return found
        return ANONYMOUS if credentials is None else None

    def challenge(self, scope: context.Scope, wanted: Sequence[Scope] = (), error: str | None = None) -> dict[str, str]:
        """Returns the header that asks for credentials; none where no kind of authentication asks."""
        asked = [told for each in self._authenticators if (told := each.challenge(wanted, error, scope))]
        asked.sort(key=lambda told: not told.lower().startswith("bearer"))
        return {"WWW-Authenticate": asked[0]} if asked else {}


def _authorization(scope: context.Scope) -> bytes | None:
    found: bytes | None = None
    for name, value in scope["headers"]:
        if name == b"authorization":
            if found is not None:
                raise RequestInvalid("several Authorization headers: expected one")
            found = value
    return found
