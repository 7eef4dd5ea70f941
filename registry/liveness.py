"""Whether the registry of this machine answers, asked from outside of it."""

from __future__ import annotations

import http.client
import socket
import ssl

from ocispec.errors import LayerhouseError
from registry.config.http import Http

_PATIENCE = 4.0
_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 - who listens everywhere listens there


class Unanswered(LayerhouseError):
    """The registry does not answer, or answers that it cannot serve."""

    code, summary = "NOT_HEALTHY", "the registry does not answer"


def check(settings: Http) -> str:
    """Asks the base endpoint (end-1) and returns what it said; it blocks for a few seconds at most.

    Any status below 500 is a sign of life: 401 is what a registry with access rules says. Its certificate is not
    verified: it need not name this machine's loopback address.

    Raises:
        Unanswered: naming address and cause.
    """
    path = f"{settings.prefix.rstrip('/')}/v2/"
    connection = _connection(settings)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
    except ssl.SSLError as error:
        if settings.tls.clientcas:
            return f"{settings.addr}: asks for a client's certificate"
        raise Unanswered(f"{settings.addr}: {error}") from error
    except (OSError, http.client.HTTPException) as error:
        raise Unanswered(f"{settings.addr}: {error or type(error).__name__}") from error
    finally:
        connection.close()
    told = f"{settings.addr}: GET {path} answered {answer.status} {answer.reason}"
    if answer.status >= 500:
        raise Unanswered(told)
    return told


def _connection(settings: Http) -> http.client.HTTPConnection:
    if settings.net == "unix":
        return _UnixConnection(settings.addr)
    host = _ANY.get(settings.bound_host, settings.bound_host)
    if not settings.tls.certificate:
        return http.client.HTTPConnection(host, settings.bound_port, timeout=_PATIENCE)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return http.client.HTTPSConnection(host, settings.bound_port, timeout=_PATIENCE, context=context)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=_PATIENCE)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(_PATIENCE)
        self.sock.connect(self._path)
