"""By what somebody logged in, so that what he got for it ends with that: his password, his user, his robot token."""

from __future__ import annotations

from functools import partial

from registry.auth.authenticator import Identity, Kind
from registry.auth.htpasswd import Htpasswd
from registry.auth.tokens_file import Personal
from registry.auth.tokens_personal import PersonalTokens

_TOKEN, _USER = "token:", "user:"


class Accounts:
    """Users of the htpasswd file, personal and robot tokens.

    An account is written `token:ID`, or `user:MARK` where MARK changes with the password. It stands in the tokens of
    the built-in token server, and with the logins that clients keep.
    """

    def __init__(self, users: Htpasswd | None, personal: PersonalTokens) -> None:
        self._users = users
        self._personal = personal

    async def refresh(self) -> None:
        """Takes over what has changed."""
        await self._personal.refresh()

    def of(self, identity: Identity) -> str | None:
        """Returns by what somebody came; None for a certificate, and for nobody."""
        if isinstance(identity.limits, Personal):
            return _TOKEN + identity.limits.record.id
        if identity.kind is not Kind.USER or identity.name is None or self._users is None:
            return None
        mark = self._users.mark(identity.name)
        return None if mark is None else _USER + mark

    def find(self, name: str, account: str) -> Identity | None:
        """Returns who that is, as it was read last; None where the account is gone, or has another password."""
        if account.startswith(_TOKEN):
            found = self._personal.known(account.removeprefix(_TOKEN))
            return found if found is not None and found.name == name else None
        users, hashed = self._users, None if self._users is None else self._users.hashed(name)
        if users is None or hashed is None or account != f"{_USER}{users.mark(name)}":
            return None
        return Identity(name, Kind.USER, holds=partial(self._holds, users, name, hashed))

    def _holds(self, users: Htpasswd, name: str, hashed: bytes) -> bool:
        return self._personal.is_current() and users.hashed(name) == hashed
