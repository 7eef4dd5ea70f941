"""Users of an htpasswd file, who send name and password with every request (RFC 7617)."""

from __future__ import annotations

import asyncio
import hmac
import logging
import time
from collections.abc import Sequence
from functools import partial
from hashlib import sha256
from pathlib import Path
from secrets import token_bytes
from weakref import WeakValueDictionary

from ocispec.errors import TooManyRequests
from ocispec.headers import Challenge, Scope
from registry import context
from registry.auth.authenticator import Basic, Credentials, Identity, Kind
from registry.auth.passwords import Passwords, matches
from registry.auth.watched import Watched
from registry.config import ConfigError
from storage.threads import finish

_THREADS = 2
_MOST_WAITING = 256
_REMEMBERED = 4096
_REMEMBERED_SECONDS = 300.0
# The hash that a password fitted, and until when that is remembered, by the monotonic clock.
_Fitted = tuple[bytes, float]
_log = logging.getLogger("registry")


class Htpasswd:
    """Knows the users of a file.

    A password costs a bcrypt, which is meant to be slow. So that a push of fifty blobs costs one, what was right is
    remembered for five minutes: an HMAC of it, by a key that this process alone has, beside the hash that it fitted.
    The hash is compared with the file's each time, so a user who is removed, or whose password is changed, is
    forgotten with the file. What was wrong is not remembered. A name that is not in the file costs as much as one that
    is: the time tells nothing.

    Raises:
        ConfigError: the file cannot be read or used.
    """

    def __init__(self, path: Path, realm: str) -> None:
        if not path.exists():
            told = f"{path}: no such file; add a user with `registry user add NAME --htpasswd {path}`"
            raise ConfigError(f"auth.htpasswd.path: {told}")
        self._path = path
        self._is_changed = False
        self._file = Watched(path, self._parse)
        self._is_changed = True
        self._challenge = str(Challenge("basic", {"realm": realm}))
        self._key = token_bytes()
        self._known: dict[bytes, _Fitted] = {}
        self._checking: WeakValueDictionary[bytes, asyncio.Lock] = WeakValueDictionary()
        # Else a flood of logins would take the threads that pushes are hashed in.
        self._threads = asyncio.Semaphore(_THREADS)
        self._waiting = 0

    @property
    def remarks(self) -> Sequence[str]:
        """What is worth a warning: a line for each user who cannot log in."""
        return self._file.value.remarks

    def _parse(self, data: bytes) -> Passwords:
        found = Passwords.parse(data, self._path)
        for each in found.remarks if self._is_changed else ():
            _log.warning("%s", each)
        return found

    def challenge(self, wanted: Sequence[Scope], error: str | None, scope: context.Scope) -> str | None:  # noqa: ARG002 - as the protocol has it
        return self._challenge

    async def refresh(self) -> None:
        """Reads the file again where it has changed."""
        await self._file.refresh()

    def is_current(self) -> bool:
        """Whether it has not changed; quick."""
        return self._file.is_current()

    def mark(self, user: str) -> str | None:
        """What changes with a user's password; None for who is not in the file, as it was read last."""
        hashed = self.hashed(user)
        return None if hashed is None else sha256(hashed).hexdigest()[:32]

    def hashed(self, user: str) -> bytes | None:
        """The hash of a user's password; None for who is not in the file, as it was read last."""
        return self._file.value.hashes.get(user)

    async def identify(self, credentials: Credentials | None, scope: context.Scope) -> Identity | None:  # noqa: ARG002 - as above
        """Says which user this is.

        Raises:
            TooManyRequests: too many passwords wait to be checked.
        """
        if not isinstance(credentials, Basic):
            return None
        await self._file.refresh()
        said = f"{credentials.user}:{credentials.password}".encode()
        key = hmac.digest(self._key, said, "sha256")
        found = self._known_as(key, credentials.user) or await self._check(key, credentials)
        if found is None:
            return None
        return Identity(credentials.user, Kind.USER, holds=partial(self._holds, credentials.user, *found))

    def _holds(self, user: str, hashed: bytes, until: float) -> bool:
        return self._file.is_current() and self._file.value.hashes.get(user) == hashed and time.monotonic() < until

    def _known_as(self, key: bytes, user: str) -> _Fitted | None:
        found = self._known.get(key)
        if found is None or found[1] < time.monotonic() or self._file.value.hashes.get(user) != found[0]:
            return None
        return found

    async def _check(self, key: bytes, credentials: Basic) -> _Fitted | None:
        if self._waiting >= _MOST_WAITING:
            raise TooManyRequests("too many logins at once", headers={"Retry-After": "1"})
        self._waiting += 1
        try:
            # One at a time of those that say the same: the others find what it found.
            async with self._checking.setdefault(key, asyncio.Lock()):
                return self._known_as(key, credentials.user) or await self._compare(key, credentials)
        finally:
            self._waiting -= 1

    async def _compare(self, key: bytes, credentials: Basic) -> _Fitted | None:
        async with self._threads:
            file = self._file.value
            hashed = file.hashes.get(credentials.user)
            is_right = await finish(matches, credentials.password, hashed or file.dummy)
        if hashed is None or not is_right:
            return None
        self._known.pop(key, None)
        self._known[key] = fitted = (hashed, time.monotonic() + _REMEMBERED_SECONDS)
        if len(self._known) > _REMEMBERED:
            del self._known[next(iter(self._known))]
        return fitted
