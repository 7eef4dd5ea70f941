"""Personal and robot tokens: what they look like, and the file that tells which there are.

`tokens.json` in the state directory is written by the operator's commands and read by every worker, which looks at it
before it lets anybody in: what is made or revoked counts at once, without a restart.
"""

from __future__ import annotations

import re
import time
from binascii import crc32
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from secrets import token_bytes, token_hex
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, ValidationError

from registry.auth.caller import Action
from registry.auth.rules import matching
from registry.auth.tokens_state import changing, replace
from registry.auth.watched import read_small
from registry.config import ConfigError
from registry.config.access import EVERYTHING, Actions, Pattern
from registry.config.values import Section

PREFIX, LOGIN_PREFIX = "lh_", "lhr_"
"""Of personal and robot tokens, and of those that a login is kept by: for whoever looks for secrets that leaked."""
FILE = "tokens.json"
_NAME = r"(?!login-)[a-z0-9]+(?:[._-][a-z0-9]+)*"
_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_SECRET_BYTES, _SECRET_DIGITS, _CHECK_DIGITS = 32, 43, 6
_NOTHING = b'{"version": 1, "tokens": []}'


class Record(Section):
    """A token, as the file has it."""

    id: str = Field(pattern=r"^[0-9a-f]{16}$")
    name: Annotated[str, StringConstraints(max_length=64)]
    user: str | None = None  # None for a robot's
    hash: str = Field(pattern=r"^[0-9a-f]{64}$")
    repositories: tuple[Pattern, ...] = Field(min_length=1)
    actions: Actions = Field(min_length=1)
    created: int
    expires: int | None = None


class _State(Section):
    version: Literal[1]
    tokens: tuple[Record, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Personal:
    """A token that there is; it limits whoever comes by it (`registry.auth.authenticator.Limits`).

    Attributes:
        record: what the file says of it.
        matches: whether a repository is one of its own.
    """

    record: Record
    matches: Callable[[str], object]

    def cover(self, action: str, repository: str | None) -> bool:
        if action not in self.record.actions:
            return False
        if repository is None:
            # The catalogue shows only what it may pull.
            return action == str(Action.PULL) or EVERYTHING in self.record.repositories
        return bool(self.matches(repository))

    def has_ended(self, now: float) -> bool:
        return self.record.expires is not None and now >= self.record.expires


class Known:
    """The tokens of the file, by their ids and by the hashes of their secrets.

    Args:
        data: of the file.
        path: for messages.

    Raises:
        ConfigError: it is none of ours.
    """

    def __init__(self, data: bytes, path: Path) -> None:
        try:
            state = _State.model_validate_json(data or _NOTHING)
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            place = ".".join(map(str, first["loc"]))
            raise ConfigError(f"{path}: {place}: {first['msg']}; `registry token` writes this file") from error
        self.records = state.tokens
        found = [Personal(each, matching(each.repositories)) for each in state.tokens]
        self.by_id = {each.record.id: each for each in found}
        self.by_hash = {bytes.fromhex(each.record.hash): each for each in found}


@dataclass(frozen=True, slots=True)
class Wish:
    """A token that is to be made; see `Record`."""

    name: str
    user: str | None
    repositories: tuple[str, ...]
    actions: tuple[str, ...]
    expires: int | None = None


def new_secret(prefix: str) -> str:
    """Returns 32 random bytes in base 62, and a checksum that tells a token that leaked from a word that looks like it.

    Such a secret is stored hashed by SHA-256 and not by bcrypt: bcrypt is slow to make guessing slow, and nobody
    guesses 256 random bits however quick the hash is; but every request would have to wait for it.
    """
    text = _base62(int.from_bytes(token_bytes(_SECRET_BYTES), "big"), _SECRET_DIGITS)
    return f"{prefix}{text}{_base62(crc32(f'{prefix}{text}'.encode()), _CHECK_DIGITS)}"


def hashed(secret: str) -> bytes:
    """What a secret is stored as."""
    return sha256(secret.encode()).digest()


def read(path: Path) -> Known:
    """Returns the tokens of a file, none where it is not there; raises ConfigError."""
    return Known(read_small(path) if path.exists() else b"", path)


def create(path: Path, wish: Wish) -> str:
    """Makes a token, and returns its secret, which is kept nowhere.

    Raises:
        ConfigError: the name is none or there already, a pattern is none, or the file cannot be read or replaced.
    """
    if not re.fullmatch(_NAME, wish.name):
        expected = "expected small letters and digits, divided by . _ or -, not beginning with login-"
        raise ConfigError(f"{wish.name!r:.80} cannot be a token's name: {expected}")
    secret = new_secret(PREFIX)
    with changing(path):
        records = read(path).records
        if any(each.name == wish.name for each in records):
            told = "`registry token revoke` removes it"
            raise ConfigError(f"there is a token {wish.name!r} already; {told}")
        _write(path, (*records, _record(wish, secret)))
    return secret


def _record(wish: Wish, secret: str) -> Record:
    try:
        return Record(
            id=token_hex(8),
            name=wish.name,
            user=wish.user,
            hash=hashed(secret).hex(),
            repositories=wish.repositories,
            actions=wish.actions,  # type: ignore[arg-type]  # which is what is found out here
            created=int(time.time()),
            expires=wish.expires,
        )
    except ValidationError as error:
        first = error.errors()[0]
        option = "--action" if first["loc"][0] == "actions" else "--repository"
        told = first["msg"].removeprefix("Value error, ").replace("Input should be ", "expected any of ")
        raise ConfigError(f"{option}: {told}") from error


def revoke(path: Path, name: str) -> Record | None:
    """Removes a token, and returns it; None where there is none of this name. Raises ConfigError."""
    with changing(path):
        records = read(path).records
        found = next((each for each in records if each.name == name), None)
        if found is not None:
            _write(path, tuple(each for each in records if each is not found))
        return found


def _write(path: Path, records: tuple[Record, ...]) -> None:
    replace(path, _State(version=1, tokens=records).model_dump_json(indent=1).encode() + b"\n")


def _base62(number: int, digits: int) -> str:
    found = []
    for _ in range(digits):
        number, digit = divmod(number, len(_DIGITS))
        found.append(_DIGITS[digit])
    return "".join(reversed(found))
