"""The server's certificate: checked before it is served, and read anew when its files change."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Never

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from ocispec.errors import LayerhouseError
from registry.config.tls import CIPHER_SUITES, Tls

_log = logging.getLogger("registry")
_OF_TLS13 = "TLS_AES", "TLS_CHACHA20"
_DEFAULT_SUITES = [
    suite for suite in CIPHER_SUITES.values() if suite.startswith("ECDHE") and ("GCM" in suite or "CHACHA20" in suite)
]
_VERSIONS = {"TLSv1.2": 0x0303, "TLSv1.3": 0x0304}

Signature = tuple[tuple[int, int, int] | None, ...]


class TlsError(LayerhouseError):
    """TLS cannot be served with these files; the message names the file, what is wrong and what was expected."""

    code, summary = "TLS_INVALID", "TLS cannot be served"


class Certificates:
    """What one process serves TLS with; each reads the files for itself, when it is first asked.

    It travels to the worker processes before it has read anything.
    """

    def __init__(self, tls: Tls) -> None:
        self._tls = tls
        self._context: ssl.SSLContext | None = None
        self._served: Signature = ()
        self._seen: Signature = ()

    @property
    def context(self) -> ssl.SSLContext:
        """What the next connection is served with.

        Raises:
            TlsError: nothing was read yet, and cannot be.
        """
        if self._context is None:
            self._served = self._seen = _signature(self._tls)
            self._context, _ = load(self._tls)
        return self._context

    async def refresh(self) -> None:
        """Reads the files where that was not done yet, or where they changed and stood still since the last call.

        Two files are not replaced in one step: meanwhile they do not belong together. Files that cannot be served
        are told of once, and what was served before stays.
        """
        seen = await asyncio.to_thread(_signature, self._tls)
        stands_still, self._seen = seen == self._seen, seen
        if seen == self._served or (self._served and not stands_still):
            return
        is_renewal, self._served = bool(self._served), seen
        try:
            self._context, leaf = await asyncio.to_thread(load, self._tls)
        except TlsError as error:
            _log.error("the certificate served so far is kept: %s", error.message)
            return
        if is_renewal:
            _log.info("the certificate was read anew: %s", _described(leaf))
            _warn_if_outdated(self._tls, leaf)


def check(tls: Tls) -> None:
    """Tells before anything listens whether these files can be served, and warns of what clients will refuse.

    Raises:
        TlsError: they cannot.
    """
    _, leaf = load(tls)
    _warn_if_outdated(tls, leaf)
    if tls.minimumtls in ("tls1.0", "tls1.1"):
        _log.warning("http.tls.minimumtls: %s is not spoken any more (RFC 8996): tls1.2 is", tls.minimumtls)
    if tls.clientauth == "request-client-cert":
        _log.warning("http.tls.clientauth: request-client-cert proves nothing: no certificate is asked for")


def load(tls: Tls) -> tuple[ssl.SSLContext, x509.Certificate]:
    """Reads the files; blocking.

    Returns:
        What connections are served with, and the server's own certificate.

    Raises:
        TlsError: they cannot be served.
    """
    if tls.certificate is None or tls.key is None:
        raise TlsError("http.tls: expected certificate and key")
    chain, key = _chain(tls.certificate), _public_key(tls.key)
    _hold_together(tls, chain, key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["http/1.1"])
    _choose_suites(context, tls)
    try:
        context.load_cert_chain(tls.certificate, tls.key, password=_no_password)
    except (ssl.SSLError, OSError) as error:
        raise TlsError(f"{tls.certificate} and {tls.key}: {_cause(error)}") from error
    _ask_clients(context, tls)
    return context, chain[0]


def extension(connection: Any) -> dict[str, Any]:
    """What an application is told of a connection (ASGI's TLS extension).

    Args:
        connection: an `ssl.SSLObject` after its handshake.
    """
    shown = connection.getpeercert(binary_form=True)
    return {
        "server_cert": None,
        "client_cert_chain": [ssl.DER_cert_to_PEM_cert(shown)] if shown else [],
        "client_cert_name": x509.load_der_x509_certificate(shown).subject.rfc4514_string() if shown else None,
        "client_cert_error": None,
        "tls_version": _VERSIONS.get(connection.version()),
        "cipher_suite": None,
    }


def _choose_suites(context: ssl.SSLContext, tls: Tls) -> None:
    wanted = [CIPHER_SUITES[name] for name in tls.ciphersuites]
    older = [suite for suite in wanted if not suite.startswith(_OF_TLS13)]
    # As in Go: whoever names suites of TLS 1.3 only speaks nothing older.
    newest_only = tls.minimumtls == "tls1.3" or bool(wanted and not older)
    context.minimum_version = ssl.TLSVersion.TLSv1_3 if newest_only else ssl.TLSVersion.TLSv1_2
    try:
        context.set_ciphers(":".join(older or _DEFAULT_SUITES))
    except ssl.SSLError as error:
        raise TlsError(
            f"http.tls.ciphersuites: {ssl.OPENSSL_VERSION} has none of {', '.join(tls.ciphersuites)}"
        ) from error


def _ask_clients(context: ssl.SSLContext, tls: Tls) -> None:
    if not tls.clientcas or tls.clientauth == "request-client-cert":
        return
    for file in tls.clientcas:
        _chain(file)
        try:
            context.load_verify_locations(file)
        except (ssl.SSLError, OSError) as error:
            raise TlsError(f"{file}: {_cause(error)}") from error
    is_optional = tls.clientauth == "verify-client-cert-if-given"
    context.verify_mode = ssl.CERT_OPTIONAL if is_optional else ssl.CERT_REQUIRED


def _hold_together(tls: Tls, chain: list[x509.Certificate], key: bytes) -> None:
    keys = [_encoded(each.public_key()) for each in chain]
    if key in keys[1:]:
        raise TlsError(f"{tls.certificate}: expected the server's own certificate first, then those that lead from it")
    if key != keys[0]:
        raise TlsError(f"{tls.key}: expected the key of {tls.certificate}, got another one")


def _chain(file: Path) -> list[x509.Certificate]:
    data = _read(file)
    try:
        return x509.load_pem_x509_certificates(data)
    except ValueError as error:
        raise TlsError(f"{file}: expected certificates in PEM, and found none that can be read") from error


def _public_key(file: Path) -> bytes:
    data = _read(file)
    try:
        return _encoded(serialization.load_pem_private_key(data, None).public_key())
    except TypeError as error:
        raise TlsError(f"{file}: the key is encrypted, expected one without a passphrase") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise TlsError(f"{file}: expected a private key in PEM, and found none that can be read") from error


def _encoded(key: Any) -> bytes:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    encoded: bytes = key.public_bytes(serialization.Encoding.DER, form)
    return encoded


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise TlsError(f"http.tls: {file}: {error.strerror or error}") from error


def _no_password() -> Never:
    raise TlsError("the key is encrypted, expected one without a passphrase")


def _cause(error: OSError) -> str:
    return (getattr(error, "reason", None) or error.strerror or str(error)).replace("_", " ").lower()


def _described(leaf: x509.Certificate) -> str:
    return f"{leaf.subject.rfc4514_string()}, valid until {leaf.not_valid_after_utc:%Y-%m-%d %H:%M:%S} UTC"


def _warn_if_outdated(tls: Tls, leaf: x509.Certificate) -> None:
    now = datetime.now(UTC)
    if now > leaf.not_valid_after_utc:
        _log.warning("%s: the certificate has expired: %s", tls.certificate, _described(leaf))
    elif now < leaf.not_valid_before_utc:
        _log.warning("%s: the certificate is valid from %s on only", tls.certificate, leaf.not_valid_before_utc)


def _signature(tls: Tls) -> Signature:
    """What changes when a file is replaced or written to; None for one that cannot be looked at."""
    return tuple(_looks(file) for file in _files(tls))


def _looks(file: Path) -> tuple[int, int, int] | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino, status.st_size


def _files(tls: Tls) -> Iterator[Path]:
    given: Iterable[Path | None] = (tls.certificate, tls.key, *tls.clientcas)
    return (file for file in given if file)
