"""Whoever comes by a personal or robot token: as the password of Basic, whatever the user's name, or as Bearer."""

from __future__ import annotations

import hmac
import logging
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from ocispec.errors import StorageError
from ocispec.headers import Challenge, Scope
from registry import context
from registry.auth.authenticator import Basic, Bearer, Credentials, Identity, Kind
from registry.auth.htpasswd import Htpasswd
from registry.auth.tokens_database import TokenDatabase
from registry.auth.tokens_file import PREFIX, Known, Personal, hashed
from registry.auth.watched import Watched
from storage.threads import finish

_NOTED_SECONDS = 60.0
_MOST_NOTED = 65_536
_log = logging.getLogger("registry")


class PersonalTokens:
    """Knows personal and robot tokens.

    Args:
        path: of the file that they are listed in; none are known while it is not there.
        database: where their last use is entered, at most once a minute for each.
        users: those of the htpasswd file: with a user, his tokens are gone.

    Raises:
        ConfigError: the file cannot be read or used.
    """

    def __init__(self, path: Path, database: TokenDatabase, users: Htpasswd | None) -> None:
        self._file = Watched(path, lambda data: Known(data, path), missing=b"")
        self._database = database
        self._users = users
        self._noted: dict[str, float] = {}
        # Else the realm of the htpasswd file is asked for.
        self._challenge = None if users else str(Challenge("basic", {"realm": "Layerhouse"}))

    def challenge(self, wanted: Sequence[Scope], error: str | None, scope: context.Scope) -> str | None:  # noqa: ARG002 - as the protocol has it
        return self._challenge

    async def identify(self, credentials: Credentials | None, scope: context.Scope) -> Identity | None:  # noqa: ARG002 - as above
        match credentials:
            case Basic(_, secret) | Bearer(secret) if secret.startswith(PREFIX):
                await self.refresh()
                digest = hashed(secret)
                found = self._file.value.by_hash.get(digest)
                if found is None or not hmac.compare_digest(digest, bytes.fromhex(found.record.hash)):
                    return None
                return await self._come(found)
        return None

    async def _come(self, found: Personal) -> Identity | None:
        if not self._is_good(found):
            return None
        await self._note(found.record.id)
        return self._identity(found)

    def known(self, token: str) -> Identity | None:
        """Returns who comes by the token of an id, as the file was read last; None where that ended."""
        found = self._file.value.by_id.get(token)
        return self._identity(found) if found and self._is_good(found) else None

    def is_current(self) -> bool:
        """Whether nothing has changed since the last `refresh`; quick."""
        return self._file.is_current() and (self._users is None or self._users.is_current())

    async def refresh(self) -> None:
        """Takes over what has changed."""
        await self._file.refresh()
        if self._users is not None:
            await self._users.refresh()

    def _identity(self, found: Personal) -> Identity:
        user, holds = found.record.user, partial(self._holds, found)
        if user is None:
            return Identity(found.record.name, Kind.ROBOT, holds=holds, limits=found)
        return Identity(user, Kind.USER, holds=holds, limits=found)

    def _holds(self, found: Personal) -> bool:
        is_noted = time.monotonic() - self._noted.get(found.record.id, -_NOTED_SECONDS) < _NOTED_SECONDS
        return is_noted and self.is_current() and self._is_good(found)

    def _is_good(self, found: Personal) -> bool:
        record = found.record
        if self._file.value.by_id.get(record.id) is not found or found.has_ended(time.time()):
            return False
        return record.user is None or self._users is None or self._users.mark(record.user) is not None

    async def _note(self, token: str) -> None:
        now = time.monotonic()
        if now - self._noted.get(token, -_NOTED_SECONDS) < _NOTED_SECONDS:
            return
        if len(self._noted) >= _MOST_NOTED:
            self._noted.clear()
        self._noted[token] = now
        try:
            await finish(self._database.note, token, time.time())
        except StorageError as error:
            _log.warning("the last use of a token is not entered: %s", error.message)
