"""Machines whose certificate tells who they are (mTLS): whom `http.tls.clientcas` signed for, by the common name."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from cryptography.x509 import Name
from cryptography.x509.oid import NameOID

from ocispec.headers import Scope
from registry import context
from registry.auth.authenticator import CONTROLS, Credentials, Identity, Kind

_REMEMBERED = 1024


class Certificates:
    """Knows who has a certificate, where a request carries no credentials of its own.

    The server has verified the certificate before its subject is found here. One without a common name, or with
    several, tells of nobody.
    """

    def __init__(self) -> None:
        self._identity = lru_cache(_REMEMBERED)(_identity)

    async def identify(self, credentials: Credentials | None, scope: context.Scope) -> Identity | None:
        subject = context.client_certificate(scope)
        return self._identity(subject) if subject and credentials is None else None

    def challenge(self, wanted: Sequence[Scope], error: str | None, scope: context.Scope) -> str | None:  # noqa: ARG002 - as the protocol has it
        return None


def _identity(subject: str) -> Identity | None:
    try:
        names = Name.from_rfc4514_string(subject).get_attributes_for_oid(NameOID.COMMON_NAME)
    except ValueError:
        return None
    told = [str(each.value) for each in names]
    if len(told) != 1 or not told[0] or CONTROLS.search(told[0]):
        return None
    return Identity(told[0], Kind.CERTIFICATE)
