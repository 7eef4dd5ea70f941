"""What TLS connections to a host are made with."""

from __future__ import annotations

import os
import ssl
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from client.hosts.endpoint import Tls
from ocispec.errors import ConfigurationError


def context(tls: Tls, environ: Mapping[str, str] = os.environ) -> ssl.SSLContext:
    """Returns a context for TLS 1.2 and newer; it reads files, so call it in a thread, once for equal settings.

    Trusted are the system's authorities, or in their place those of SSL_CERT_FILE and SSL_CERT_DIR, and those of
    `tls`, which need not be roots (as in Go). Of client certificates OpenSSL keeps one of each kind of key: the first.

    Raises:
        ConfigurationError: naming the file, or variable, that is wrong, and what was expected.
    """
    made = _trusting(environ) if tls.verified else _unverified()
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    for file in tls.authorities if tls.verified else ():
        _trust(made, file, str(file))
        made.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    for certificate, key in reversed(tls.identities):
        _identify(made, certificate, key)
    return made


def _unverified() -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname = False
    made.verify_mode = ssl.CERT_NONE
    return made


def _trusting(environ: Mapping[str, str]) -> ssl.SSLContext:
    """Returns a context that trusts what the environment names, else the system's authorities."""
    file, folders = environ.get("SSL_CERT_FILE"), environ.get("SSL_CERT_DIR")
    if not (file or folders):
        return _system()
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if file:
        _trust(made, Path(file), f"SSL_CERT_FILE: {file}")
    for folder in (folders or "").split(os.pathsep):
        if folder and not os.path.isdir(folder):  # noqa: PTH112 - Path.is_dir raises where a folder is closed
            raise ConfigurationError(f"SSL_CERT_DIR: expected a folder of certificates, not {folder!r}")
        if folder:
            made.load_verify_locations(capath=folder)
    return made


def _system() -> ssl.SSLContext:
    import truststore  # noqa: PLC0415 - what needs no TLS should not pay for it

    made = truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if sys.platform in ("darwin", "win32"):
        return made
    # Elsewhere truststore reads all of the system's authorities for each connection (15 ms), and the context behind
    # the first one has them for good.
    return made.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname="localhost").context


def _trust(made: ssl.SSLContext, file: Path, where: str) -> None:
    with _explained(where, "expected certificates in PEM form"):
        made.load_verify_locations(file)


def _identify(made: ssl.SSLContext, certificate: Path, key: Path) -> None:
    def refuse() -> NoReturn:
        # Else OpenSSL would ask for it on the terminal.
        raise ConfigurationError(f"{key}: its private key is encrypted, expected one without a passphrase")

    for file in (certificate, key):
        # OpenSSL does not say which of the two it could not read.
        with _explained(str(file), "expected a file"):
            file.open("rb").close()
    apart = f"its private key in {key}" if key != certificate else "its private key in it"
    if key == certificate and certificate.suffix == ".cert":
        apart += f" or in {certificate.stem}.key beside it; an authority's file ends in .crt"
    with _explained(str(certificate), f"expected a certificate in PEM form, with {apart}"):
        made.load_cert_chain(certificate, key, refuse)


@contextmanager
def _explained(where: str, expected: str) -> Iterator[None]:
    try:
        yield
    except ssl.SSLError as error:
        cause = "the private key is another's: " if error.reason == "KEY_VALUES_MISMATCH" else ""
        raise ConfigurationError(f"{where}: {cause}{expected}") from error
    except OSError as error:
        raise ConfigurationError(f"{where} cannot be read: {error.strerror}") from error
