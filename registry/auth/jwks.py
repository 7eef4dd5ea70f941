"""Keys that tokens are verified by, and the ids that tokens name them by: of JSON Web Key Sets, of certificates.

A token names its key by an id, and never brings one along: what stands in its own header is signed by nobody
(CVE-2025-24976). The id is a key of a dictionary and nothing else.
"""

from __future__ import annotations

import json
from base64 import b32encode, urlsafe_b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Protocol

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    SECP384R1,
    SECP521R1,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm
from jwt.exceptions import InvalidKeyError

from ocispec import strictjson
from ocispec.errors import LayerhouseError
from registry.config import ConfigError

PublicKey = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey | Ed448PublicKey
Identified = Mapping[str, "StoredKey"]

_LEAST_RSA_BITS = 2048  # RFC 7518, section 3.3
_RSA = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
_CURVES = {SECP256R1.name: "ES256", SECP384R1.name: "ES384", SECP521R1.name: "ES512"}
_KINDS: Mapping[str, Callable[[dict[str, Any]], Any]] = {
    "RSA": RSAAlgorithm.from_jwk,
    "EC": ECAlgorithm.from_jwk,
    "OKP": OKPAlgorithm.from_jwk,
}
# Members of RFC 7638, section 3.2, and RFC 8037, section 2.
_MEMBERS = ("crv", "e", "kty", "n", "x", "y")
_MOST_KEYS = 1000


class TokenRefused(LayerhouseError):
    """A token that is not valid here; the message has the reason for the log, and nothing that is secret."""

    code, status, summary = "TOKEN_REFUSED", 401, "the token is not valid here"


@dataclass(frozen=True, slots=True, eq=False)
class StoredKey:
    """A key that tokens may be signed by.

    Attributes:
        key: the public key.
        algorithms: those that it may be used with: a token does not choose (RFC 8725, section 3.1).
    """

    key: PublicKey
    algorithms: frozenset[str]

    @classmethod
    def of(cls, key: object, algorithm: str | None = None) -> StoredKey | None:
        """Returns None for a key of another kind, or one that is too short; `algorithm` is the only one for it."""
        match key:
            case RSAPublicKey() if key.key_size >= _LEAST_RSA_BITS:
                found, fitting = cls(key, _RSA), _RSA
            case EllipticCurvePublicKey() if key.curve.name in _CURVES:
                fitting = frozenset({_CURVES[key.curve.name]})
                found = cls(key, fitting)
            case Ed25519PublicKey() | Ed448PublicKey():
                fitting = frozenset({"EdDSA"})
                found = cls(key, fitting)
            case _:
                return None
        if algorithm is None:
            return found
        return cls(found.key, fitting & {algorithm}) if algorithm in fitting else None


class KeySource(Protocol):
    """Where the keys come from."""

    def is_current(self) -> bool:
        """Whether nothing has changed since `refresh`; quick."""

    async def refresh(self) -> None:
        """Takes over what has changed."""

    async def look_again(self) -> None:
        """Looks for keys once more, because a token names one that is not there."""

    def find(self, kid: str) -> StoredKey | None:
        """Returns a key by its id."""

    @property
    def roots(self) -> tuple[x509.Certificate, ...]:
        """What chains of certificates have to lead to."""


def thumbprint(key: PublicKey) -> str:
    """Returns the id of RFC 7638, by SHA-256."""
    match key:
        case RSAPublicKey():
            members = RSAAlgorithm.to_jwk(key, as_dict=True)
        case EllipticCurvePublicKey():
            members = ECAlgorithm.to_jwk(key, as_dict=True)
        case _:
            members = OKPAlgorithm.to_jwk(key, as_dict=True)
    required = {name: members[name] for name in _MEMBERS if name in members}
    hashed = sha256(json.dumps(required, separators=(",", ":"), sort_keys=True).encode()).digest()
    return urlsafe_b64encode(hashed).rstrip(b"=").decode()


def libtrust_id(key: PublicKey) -> str:
    """Returns the id that Docker's libtrust has for a key, `ABCD:EFGH:…` (Docker's token specification)."""
    hashed = sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()
    text = b32encode(hashed[:30]).decode()
    return ":".join(text[at : at + 4] for at in range(0, len(text), 4))


def parse_jwks(data: bytes, place: str) -> Identified:
    """Reads a JSON Web Key Set (RFC 7517): its keys by their `kid` and by their thumbprints.

    Keys that are not for signatures, and kinds that tokens are not signed by (`oct` among them: whoever verifies by a
    shared secret can sign with it), are passed over.

    Args:
        data: the set.
        place: where it comes from, for messages.

    Raises:
        ConfigError: no key set, a key that cannot be read, or none that could verify a token.
    """
    try:
        given = strictjson.loads(data)
    except strictjson.AmbiguousJSON as error:
        raise ConfigError(f"{place}: {error}") from error
    listed = given.get("keys") if isinstance(given, dict) else None
    if not isinstance(listed, list) or len(listed) > _MOST_KEYS:
        raise ConfigError(f'{place}: expected a JSON Web Key Set, {{"keys": […]}}, of at most {_MOST_KEYS} keys')
    found: dict[str, StoredKey] = {}
    for number, each in enumerate(listed, 1):
        key = _of_jwk(each, f"{place}: key {number}")
        if key is not None:
            found[thumbprint(key.key)] = key
            if kid := each.get("kid"):
                found[str(kid)] = key
    if not found:
        raise ConfigError(f"{place}: no key in it could verify a token; expected RSA, EC or OKP keys for signatures")
    return found


def _of_jwk(given: Any, place: str) -> StoredKey | None:
    if not isinstance(given, dict):
        raise ConfigError(f"{place}: expected an object")
    read = _KINDS.get(str(given.get("kty")))
    if read is None or given.get("use", "sig") != "sig" or "verify" not in given.get("key_ops", ["verify"]):
        return None
    try:
        key = read(given)
    except (InvalidKeyError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigError(f"{place}: is no usable {given['kty']} key: {error}") from error
    # Whoever keeps private keys in there should not, but they are the same keys.
    public = key if isinstance(key, PublicKey) else key.public_key()
    stored = StoredKey.of(public, given.get("alg"))
    if stored is None:
        least = f"RSA of at least {_LEAST_RSA_BITS} bits, P-256, P-384, P-521, Ed25519 or Ed448, and an alg that fits"
        raise ConfigError(f"{place}: its kind, length or alg cannot be used: expected {least}")
    return stored
