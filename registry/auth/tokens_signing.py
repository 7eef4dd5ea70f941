"""The keys that the built-in token server signs with: one file, made at the first start, changed by an operator.

`token-keys.pem` holds the private key (EC P-256), and below it the public keys before it, each with the time until
which tokens by it are taken. So a change of the key is one rename, and every worker sees all of it or nothing.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jwt
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from registry.auth.jwks import StoredKey, thumbprint
from registry.auth.tokens_state import changing, replace
from registry.auth.watched import Watched, read_small
from registry.config import ConfigError

FILE = "token-keys.pem"
ALGORITHM = "ES256"
_BLOCK = re.compile(
    rb"(?:^until: (\d{1,12})\n)?(-----BEGIN (PRIVATE|PUBLIC) KEY-----\n.*?\n-----END \3 KEY-----)",
    re.DOTALL | re.MULTILINE,
)
_COMMENT = "Made by `registry serve`, changed by `registry token rotate-key`. Whoever reads it can make tokens.\n"
# Files are looked at every tenth of a second; a worker may have looked just before the key was changed.
_LOOK_SECONDS = 0.15


@dataclass(frozen=True, slots=True)
class Retired:
    """A key that is signed with no more.

    Attributes:
        until: seconds since the epoch.
    """

    key: StoredKey
    until: float


@dataclass(frozen=True, slots=True)
class Ring:
    """What the file says.

    Attributes:
        private: what is signed with.
        kid: its id.
        stored: its public half.
        retired: those before, by their ids.
    """

    private: EllipticCurvePrivateKey = field(repr=False)
    kid: str
    stored: StoredKey
    retired: Mapping[str, Retired]

    @classmethod
    def of(cls, private: EllipticCurvePrivateKey, retired: Mapping[str, Retired] | None = None) -> Ring:
        public = private.public_key()
        return cls(private, thumbprint(public), StoredKey(public, frozenset({ALGORITHM})), retired or {})

    @classmethod
    def parse(cls, data: bytes, path: Path) -> Ring:
        """Reads the file; raises ConfigError, with nothing of the key in the message."""
        private, retired = None, {}
        try:
            for until, block, kind in _BLOCK.findall(data):
                if kind == b"PRIVATE":
                    private = load_pem_private_key(block, None)
                elif (stored := StoredKey.of(load_pem_public_key(block))) is not None:
                    retired[thumbprint(stored.key)] = Retired(stored, float(until or 0))
        except ValueError:
            raise ConfigError(f"{path}: holds a key that cannot be read") from None
        if not isinstance(private, EllipticCurvePrivateKey) or not isinstance(private.curve, SECP256R1):
            raise ConfigError(f"{path}: expected a private key for P-256, in PEM without a password")
        return cls.of(private, retired)

    def written(self) -> bytes:
        """What the file holds."""
        private = self.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        blocks = [_COMMENT.encode(), private]
        for each in self.retired.values():
            public = each.key.key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
            blocks += [f"until: {each.until:.0f}\n".encode(), public]
        return b"".join(blocks)


class SigningKeys:
    """The keys of the built-in token server, to sign with and (`registry.auth.jwks.KeySource`) to verify by.

    Raises:
        ConfigError: the file cannot be made, read or used.
    """

    roots: tuple[x509.Certificate, ...] = ()

    def __init__(self, path: Path) -> None:
        make(path)
        self._file = Watched(path, lambda data: Ring.parse(data, path))

    def is_current(self) -> bool:
        return self._file.is_current()

    async def refresh(self) -> None:
        await self._file.refresh()

    async def look_again(self) -> None:
        """Another worker may have signed with a key that is not a tenth of a second old."""
        await asyncio.sleep(_LOOK_SECONDS)
        await self.refresh()

    def find(self, kid: str) -> StoredKey | None:
        ring = self._file.value
        if kid == ring.kid:
            return ring.stored
        retired = ring.retired.get(kid)
        return retired.key if retired and time.time() < retired.until else None

    def sign(self, claims: Mapping[str, Any]) -> str:
        ring = self._file.value
        return jwt.encode(dict(claims), ring.private, ALGORITHM, headers={"kid": ring.kid})


def make(path: Path) -> None:
    """Makes the file where it is not there; of several processes one does. Blocks; raises ConfigError."""
    if not path.exists():
        with changing(path):
            if not path.exists():
                replace(path, Ring.of(generate_private_key(SECP256R1())).written())


def rotate(path: Path, seconds: float) -> str:
    """Makes a new key, and keeps the public keys before it; returns the new one's id. Blocks.

    Args:
        path: of the file.
        seconds: for which tokens by the key before are taken: as long as they last, or 0.

    Raises:
        ConfigError: the file cannot be read, used or replaced.
    """
    with changing(path):
        now, retired = time.time(), {}
        if path.exists() and seconds:
            before = Ring.parse(read_small(path), path)
            retired = {kid: each for kid, each in before.retired.items() if each.until > now}
            retired[before.kid] = Retired(before.stored, now + seconds)
        ring = Ring.of(generate_private_key(SECP256R1()), retired)
        replace(path, ring.written())
        return ring.kid
