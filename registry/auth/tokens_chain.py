"""The certificates that a token brings along (`x5c`, RFC 7515, section 4.1.6), verified to the trusted roots."""

from __future__ import annotations

import binascii
from base64 import b64decode
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.x509.verification import (
    Criticality,
    ExtensionPolicy,
    Policy,
    PolicyBuilder,
    Store,
    VerificationError,
)

from registry.auth.jwks import StoredKey, TokenRefused

_MOST = 10


@dataclass(frozen=True, slots=True)
class Chain:
    """A chain that leads to a root.

    Attributes:
        key: of the first certificate, which the token is to be signed by.
        until: when the first certificate of the chain ends, in seconds since the epoch.
    """

    key: StoredKey
    until: float


def verified(x5c: object, roots: Sequence[x509.Certificate]) -> Chain:
    """Verifies what stands in a token's header as Go's verifier does for any use of a key, which Distribution takes.

    Dates, signatures, names and lengths of the chain, critical extensions that nobody knows, and who may sign
    certificates (`basicConstraints`, `keyUsage`) are held to RFC 5280. What the first certificate is for does not
    matter: who has its key may sign tokens, because the root says so of all that it signs.

    Args:
        x5c: the header's member, of any shape.
        roots: at least one certificate.

    Raises:
        TokenRefused: it leads to none of the roots.
    """
    certificates = _certificates(x5c)
    builder = PolicyBuilder().store(Store(list(roots))).max_chain_depth(_MOST)
    policies = builder.extension_policies(ca_policy=_signers(), ee_policy=ExtensionPolicy.permit_all())
    try:
        chain = policies.build_client_verifier().verify(certificates[0], certificates[1:]).chain
    except VerificationError as error:
        raise TokenRefused(f"its x5c leads to no trusted root: {str(error)[:200]}") from error
    key = StoredKey.of(chain[0].public_key())
    if key is None:
        raise TokenRefused("the key of its x5c is of a kind, or a length, that signs no tokens")
    return Chain(key, min(each.not_valid_after_utc.timestamp() for each in chain))


def _certificates(x5c: object) -> list[x509.Certificate]:
    if not isinstance(x5c, list) or not 1 <= len(x5c) <= _MOST:
        raise TokenRefused(f"its x5c is no list of 1 to {_MOST} certificates")
    try:
        return [x509.load_der_x509_certificate(b64decode(each, validate=True)) for each in x5c]
    except (binascii.Error, ValueError, TypeError) as error:
        raise TokenRefused("its x5c holds what is no certificate") from error


def _signers() -> ExtensionPolicy:
    permissive = ExtensionPolicy.permit_all()
    constrained = permissive.require_present(x509.BasicConstraints, Criticality.AGNOSTIC, _is_authority)
    return constrained.may_be_present(x509.KeyUsage, Criticality.AGNOSTIC, _may_sign)


def _is_authority(_policy: Policy, _certificate: x509.Certificate, extension: x509.BasicConstraints) -> None:
    if not extension.ca:
        raise ValueError("not an authority")


def _may_sign(_policy: Policy, _certificate: x509.Certificate, extension: x509.KeyUsage | None) -> None:
    if extension is not None and not extension.key_cert_sign:
        raise ValueError("not for signing certificates")
