"""A token server as a test plays it: keys, certificates, tokens, key sets."""

from __future__ import annotations

import json
import time
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

ISSUER, SERVICE = "auth.example.com", "registry.example.com"
REALM = "https://auth.example.com/token"
PULL = [{"type": "repository", "name": "team/app", "actions": ["pull"]}]
PUSH = [{"type": "repository", "name": "team/app", "actions": ["pull", "push", "delete"]}]


@cache
def key(kind: str = "P-256", number: int = 0) -> Any:
    """A private key; the same each time for the same number."""
    if kind.startswith("RSA"):
        return rsa.generate_private_key(65537, int(kind.removeprefix("RSA")))
    if kind.startswith("Ed"):
        return {"Ed25519": ed25519.Ed25519PrivateKey, "Ed448": ed448.Ed448PrivateKey}[kind].generate()
    return ec.generate_private_key(
        {"P-256": ec.SECP256R1, "P-384": ec.SECP384R1, "P-521": ec.SECP521R1, "K-256": ec.SECP256K1}[kind]()
    )


ALGORITHMS = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521", "RS256": "RSA2048", "PS512": "RSA2048"}
ALGORITHMS |= {"EdDSA": "Ed25519"}


def jwk(private: Any, kid: str | None = None, **members: Any) -> dict[str, Any]:
    public = private.public_key()
    kind = {"RSAPublicKey": RSAAlgorithm, "ECPublicKey": ECAlgorithm, "EllipticCurvePublicKey": ECAlgorithm}
    found = kind.get(type(public).__name__, OKPAlgorithm).to_jwk(public, as_dict=True)
    return {name: value for name, value in {**found, "kid": kid, **members}.items() if value is not None}


def jwks(path: Path, *keys: Mapping[str, Any]) -> Path:
    path.write_text(json.dumps({"keys": list(keys)}))
    return path


def claims(**others: Any) -> dict[str, Any]:
    """What a token says; a claim that is None is left out."""
    now = int(time.time())
    usual = {"iss": ISSUER, "sub": "alice", "aud": SERVICE, "exp": now + 300, "nbf": now, "iat": now, "access": PUSH}
    return {name: value for name, value in {**usual, **others}.items() if value is not None}


def signed(
    private: Any = None, algorithm: str = "ES256", header: Mapping[str, Any] | None = None, **others: Any
) -> str:
    """A token; signed by `key()`, whose id is `one`, unless told."""
    given = {"kid": "one"} if header is None else dict(header)
    return jwt.encode(claims(**others), private or key(), algorithm, headers=given)


def raw(header: str | Mapping[str, Any], payload: str | Mapping[str, Any], private: Any = None) -> str:
    """A token of these texts, signed by ES256 however they look."""
    texts = [each if isinstance(each, str) else json.dumps(each) for each in (header, payload)]
    signing = ".".join(segment(each.encode()) for each in texts)
    algorithm = ECAlgorithm(ECAlgorithm.SHA256)
    return f"{signing}.{segment(algorithm.sign(signing.encode(), private or key()))}"


def segment(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


@dataclass(frozen=True)
class Certified:
    """A certificate and its key."""

    certificate: x509.Certificate
    key: Any

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def der(self) -> str:
        return b64encode(self.certificate.public_bytes(Encoding.DER)).decode()

    @property
    def public(self) -> bytes:
        return self.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def certify(
    name: str,
    by: Certified | None = None,
    private: Any = None,
    *,
    ca: bool | None = False,
    ends: float = 1.0,
    begins: float = -1.0,
    extensions: tuple[tuple[Any, bool], ...] = (),
) -> Certified:
    """Makes a certificate: signed by itself, or by another; `begins` and `ends` are days from now."""
    private = private or ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(by.certificate.subject if by else subject)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + timedelta(days=begins))
        .not_valid_after(now + timedelta(days=ends))
    )
    if ca is not None:
        builder = builder.add_extension(x509.BasicConstraints(ca, None), critical=True)
    for extension, is_critical in extensions:
        builder = builder.add_extension(extension, critical=is_critical)
    signer = by.key if by else private
    algorithm = None if isinstance(signer, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return Certified(builder.sign(signer, algorithm), private)
