"""The htpasswd file: a line `user:hash` each, hashes by bcrypt alone, as Distribution reads it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import bcrypt

from registry.auth.authenticator import CONTROLS
from registry.config import ConfigError

COST = 12
"""Of new hashes: about 0.2 s, which whoever guesses pays for each guess."""
MOST_BYTES = 72
"""Of a password that bcrypt looks at."""
_MOST_COST = 16
_HASH = re.compile(r"\$2[aby]\$(\d\d)\$[./A-Za-z0-9]{53}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Passwords:
    """What an htpasswd file says.

    Attributes:
        hashes: of each user who can log in.
        dummy: a hash that no password has, as costly as most of the others, for users that there are not.
        remarks: a line each about users who cannot log in.
    """

    hashes: dict[str, bytes]
    dummy: bytes
    remarks: tuple[str, ...] = ()

    @classmethod
    def parse(cls, data: bytes, path: Path) -> Passwords:
        """Reads a file. Of two lines for one user the later counts.

        Raises:
            ConfigError: naming the line; nothing of a hash stands in the message.
        """
        hashes: dict[str, bytes] = {}
        remarks = []
        for line, user, hashed in entries(data, path):
            hashes.pop(user, None)
            if reason := _unusable(hashed):
                remarks.append(f"{path}:{line}: user {user!r:.80} cannot log in: {reason}")
            else:
                hashes[user] = hashed.encode()
        costs = Counter(int(each[4:6]) for each in hashes.values()) or Counter([COST])
        (usual, _), *_ = costs.most_common(1)
        return cls(hashes, bcrypt.gensalt(usual) + b"." * 31, tuple(remarks))


def entries(data: bytes, path: Path) -> Iterator[tuple[int, str, str]]:
    """Yields line number, user and hash of every entry; raises ConfigError for a line that is none."""
    for number, line in enumerate(data.split(b"\n"), 1):
        if not line.strip() or line.lstrip().startswith(b"#"):
            continue
        try:
            user, colon, hashed = line.decode().strip().partition(":")
        except UnicodeDecodeError:
            raise ConfigError(f"{path}:{number}: expected UTF-8") from None
        if not colon or not user:
            raise ConfigError(f"{path}:{number}: expected user:hash")
        yield number, user, hashed


def matches(password: str, hashed: bytes) -> bool:
    """Whether a password has this hash; its first 72 bytes count, as with htpasswd and Distribution. Blocks."""
    try:
        return bcrypt.checkpw(password.encode()[:MOST_BYTES], hashed)
    except ValueError:
        # Of the form of a hash, and none.
        return False


def hash_password(password: str) -> str:
    """Returns the hash of a new password. Blocks.

    Raises:
        ConfigError: empty, with control characters, which no client can send, or longer than what bcrypt looks at.
    """
    if not password or CONTROLS.search(password):
        raise ConfigError("the password is empty or has control characters")
    if len(password.encode()) > MOST_BYTES:
        raise ConfigError(f"the password is longer than {MOST_BYTES} bytes, and bcrypt looks at no more of it")
    # The letter that htpasswd of every age reads; bcrypt's own `b` says the same.
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(COST)).decode().replace("$2b$", "$2y$", 1)


def _unusable(hashed: str) -> str | None:
    match = _HASH.fullmatch(hashed)
    if not match:
        return "its hash is not bcrypt's; set the password anew with `registry user passwd`, or `htpasswd -B`"
    if not 4 <= int(match[1]) <= _MOST_COST:
        return f"the cost of its hash is {match[1]}, expected 04 to {_MOST_COST}"
    return None
