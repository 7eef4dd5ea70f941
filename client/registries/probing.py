"""How far a host can be reached, floor by floor: name, connection, TLS. Everything here blocks: call it in a thread."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

WITHIN = 5.0
# More addresses tell nothing more, and each that does not answer costs `WITHIN`.
MAX_ADDRESSES = 4
_NO_CHECK_TIME = ssl.VerifyFlags(0x200000)  # X509_V_FLAG_NO_CHECK_TIME, which Python has no name for


@dataclass(frozen=True, slots=True)
class Certificate:
    """What a host shows of itself.

    Attributes:
        names: for which hosts it is good.
        issuer: who signed it.
        until: when it ends, in seconds since 1970; None where that could not be read.
    """

    names: tuple[str, ...]
    issuer: str
    until: float | None

    @classmethod
    def of(cls, members: Mapping[str, Any]) -> Certificate:
        """Reads what `ssl` gives."""
        subject, issuer = _flat(members.get("subject", ())), _flat(members.get("issuer", ()))
        others = tuple(text for _, text in members.get("subjectAltName", ()))
        called = ", ".join(dict.fromkeys(issuer[each] for each in ("organizationName", "commonName") if each in issuer))
        until = members.get("notAfter")
        return cls(
            others or tuple(filter(None, (subject.get("commonName"),))),
            "itself" if subject == issuer and subject else called or "nobody",
            float(ssl.cert_time_to_seconds(until)) if until else None,
        )


@dataclass(frozen=True, slots=True)
class Greeting:
    """How TLS began.

    Attributes:
        version: like `TLSv1.3`.
        certificate: the host's; None where it could not be read.
        failure: why it is not trusted.
        code: OpenSSL's number for that.
    """

    version: str
    certificate: Certificate | None
    failure: str = field(default="")
    code: int = 0


def addresses(host: str, port: int) -> list[str]:
    """Returns the addresses that a name has, in the order in which they are tried; raises OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(each[4][0]) for each in found))


def connect(address: str, port: int) -> str:
    """Opens a connection, and closes it; returns why it could not be opened, nothing where it could."""
    try:
        socket.create_connection((address, port), WITHIN).close()
    except TimeoutError:
        return f"no answer within {WITHIN:g} s"
    except OSError as error:
        return (error.strerror or str(error)).lower()
    return ""


def greet(host: str, port: int, context: ssl.SSLContext) -> Greeting:
    """Begins TLS; where the certificate is not trusted, looks at it all the same.

    Raises:
        OSError: there is no TLS (`ssl.SSLError`), or the connection broke.
    """
    try:
        version, der, members = _handshake(host, port, context)
    except ssl.SSLCertVerificationError as error:
        return Greeting("", _seen(host, port), error.verify_message, error.verify_code)
    return Greeting(version, Certificate.of(members) if members else _decoded(host, port, der))


def _seen(host: str, port: int) -> Certificate | None:
    with suppress(OSError):
        _, der, _ = _handshake(host, port, _lenient())
        return _decoded(host, port, der)
    return None


def _decoded(host: str, port: int, der: bytes) -> Certificate | None:
    """Reads a certificate that nobody vouches for: `ssl` shows the inside only of one that it trusts."""
    trusting = _lenient()
    trusting.verify_mode = ssl.CERT_REQUIRED
    trusting.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | _NO_CHECK_TIME
    with suppress(OSError):
        trusting.load_verify_locations(cadata=der)
        return Certificate.of(_handshake(host, port, trusting)[2])
    return None


def _lenient() -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname = False
    made.verify_mode = ssl.CERT_NONE
    return made


def _handshake(host: str, port: int, context: ssl.SSLContext) -> tuple[str, bytes, Mapping[str, Any]]:
    with (
        socket.create_connection((host, port), WITHIN) as plain,
        context.wrap_socket(plain, server_hostname=host) as stream,
    ):
        shown = stream.version() or "", stream.getpeercert(binary_form=True) or b"", stream.getpeercert() or {}
        _speak(host, stream)
        return shown


def _speak(host: str, stream: ssl.SSLSocket) -> None:
    """Asks something: TLS 1.3 says only with the first answer that it wanted a certificate of the client.

    Raises:
        ssl.SSLError: it did.
    """
    # A host that has hung up takes nothing, but its last word may still be read.
    with suppress(OSError):
        stream.sendall(f"HEAD /v2/ HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    try:
        stream.recv(1)
    except OSError as error:
        # What else may be wrong is for HTTP to find out.
        if isinstance(error, ssl.SSLError) and "CERTIFICATE_REQUIRED" in (error.reason or ""):
            raise


def _flat(name: Any) -> dict[str, str]:
    return {key: text for part in name for key, text in part}
