"""Requests that no honest client writes, on real sockets: one request is one answer, and none slips past the gate.

A request that a proxy in front and the registry would end at different bytes lets a client put words into the mouth of
the next one (request smuggling; RFC 9112, section 11.2).
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from contextlib import closing, suppress

import pytest

from tests.support.callers import basic, htpasswd
from tests.support.images import sha256
from tests.support.processes import RegistryProcess

LOGIN = f"authorization: {basic('alice', '1')['authorization']}\r\n".encode()
# Whatever is answered to this came by a request that the client did not make: `inner` is in no log and no answer.
INNER = b"GET /v2/inner/manifests/inner HTTP/1.1\r\nhost: inner\r\n" + LOGIN + b"\r\n"
POST = b"POST /v2/app/blobs/uploads/ HTTP/1.1\r\nhost: a\r\n" + LOGIN
DIGEST = sha256(b"x").encode()
AT_ONCE = b"POST /v2/app/blobs/uploads/?digest=" + DIGEST + b" HTTP/1.1\r\nhost: a\r\n" + LOGIN


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryProcess]:
    folder = tmp_path_factory.mktemp("wire")
    users = htpasswd(folder / "htpasswd", alice="1")
    env = {"REGISTRY_AUTH_HTPASSWD_REALM": "wire", "REGISTRY_AUTH_HTPASSWD_PATH": str(users)}
    server = RegistryProcess(folder / "root", log=folder / "log", env=env)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def said(server: RegistryProcess, sent: bytes) -> list[bytes]:
    """Every answer to these bytes, after which the client sends nothing more."""
    host, _, port = server.host.partition(":")
    with closing(socket.create_connection((host, int(port)), timeout=30)) as connection:
        received = b""
        with suppress(OSError):
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
            while piece := connection.recv(65536):
                received += piece
    return re.split(rb"(?=HTTP/1\.1 \d\d\d )", received)[1:]


def log_of(server: RegistryProcess) -> str:
    return server._log.read_text(errors="surrogateescape")


SMUGGLED = {
    "two lengths": POST + b"content-length: 0\r\ncontent-length: %d\r\n\r\n" % len(INNER) + INNER,
    "two lengths, the other way": POST + b"content-length: %d\r\ncontent-length: 0\r\n\r\n" % len(INNER) + INNER,
    "a list of lengths": POST + b"content-length: 0, %d\r\n\r\n" % len(INNER) + INNER,
    "a length and chunks": POST + b"content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n" + INNER,
    "chunks and a length": POST + b"transfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n0\r\n\r\n" + INNER,
    "chunks that are not the last coding": POST + b"transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n" + INNER,
    "chunks twice": POST + b"transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n\r\n0\r\n\r\n" + INNER,
    "an unknown coding": POST + b"transfer-encoding: xchunked\r\n\r\n0\r\n\r\n" + INNER,
    "no coding": POST + b"transfer-encoding: identity\r\n\r\n0\r\n\r\n" + INNER,
    "a coding with a space": POST + b"transfer-encoding : chunked\r\n\r\n0\r\n\r\n" + INNER,
    "a coding with a control": POST + b"transfer-encoding: \x0bchunked\r\n\r\n0\r\n\r\n" + INNER,
    "a folded coding": POST + b"transfer-encoding:\r\n chunked\r\n\r\n0\r\n\r\n" + INNER,
    "a folded field": POST + b"x: a\r\n\tb\r\ncontent-length: 0\r\n\r\n" + INNER,
    "a signed length": POST + b"content-length: +0\r\n\r\n" + INNER,
    "a negative length": POST + b"content-length: -1\r\n\r\n" + INNER,
    "a length in hex": POST + b"content-length: 0x0\r\n\r\n" + INNER,
    "a length with a line below": POST + b"content-length: 1_0\r\n\r\n" + INNER,
    "a length above all": POST + b"content-length: 18446744073709551616\r\n\r\n" + INNER,
    "a bare line feed": POST + b"content-length: 0\n\n" + INNER,
    "a bare carriage return": POST + b"x: a\rcontent-length: 0\r\n\r\n" + INNER,
    "a NUL in a field": POST + b"x: a\0b\r\ncontent-length: 0\r\n\r\n" + INNER,
    "a space in a field's name": POST + b"content length: 0\r\n\r\n" + INNER,
    "no name": POST + b": 0\r\n\r\n" + INNER,
    "no host": POST.replace(b"host: a\r\n", b"") + b"content-length: 0\r\n\r\n" + INNER,
    "two hosts": POST + b"host: b\r\ncontent-length: 0\r\n\r\n" + INNER,
    "a negative chunk": AT_ONCE + b"transfer-encoding: chunked\r\n\r\n-1\r\nx\r\n0\r\n\r\n" + INNER,
    "a chunk of all": AT_ONCE + b"transfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\nx\r\n0\r\n\r\n" + INNER,
    "a chunk without its end": AT_ONCE + b"transfer-encoding: chunked\r\n\r\n1\r\nxy0\r\n\r\n" + INNER,
    "a chunk that a bare line feed ends": AT_ONCE + b"transfer-encoding: chunked\r\n\r\n1\nx\n0\n\n" + INNER,
    "a chunk with an odd extension": AT_ONCE + b"transfer-encoding: chunked\r\n\r\n1;a\n=b\r\nx\r\n0\r\n\r\n" + INNER,
}


@pytest.mark.parametrize("kind", SMUGGLED)
def test_what_could_end_at_two_places_is_refused_with_all_that_follows(server: RegistryProcess, kind: str) -> None:
    answers = said(server, SMUGGLED[kind])
    assert len(answers) <= 1
    for each in answers:
        assert each.startswith(b"HTTP/1.1 400 "), each
        assert b"\r\nconnection: close\r\n" in each
    assert "inner" not in log_of(server)


@pytest.mark.parametrize("sent", [b"GET / HTTP/1.0\r\n\r\n", b"GET / HTTP/1.1\r\nhost:\r\n\r\n"])
def test_a_host_is_asked_for_once_and_of_http_1_1_alone(server: RegistryProcess, sent: bytes) -> None:
    (answer,) = said(server, sent)
    assert answer.startswith(b"HTTP/1.1 404 ")


TARGETS = {
    "absolute": b"http://elsewhere/v2/app/tags/list",
    "absolute, with a user": b"http://alice:1@elsewhere/v2/app/tags/list",
    "another scheme": b"file:///etc/passwd",
    "two slashes": b"//v2/app/tags/list",
    "two slashes and a host": b"//elsewhere/v2/app/tags/list",
    "slashes within": b"/v2//app//tags//list",
    "dots": b"/v2/x/../app/tags/list",
    "dots that are encoded": b"/v2/x/%2e%2e/app/tags/list",
    "slashes that are encoded": b"/v2%2fapp%2ftags%2flist",
    "a backslash": b"/v2\\app\\tags\\list",
    "a fragment": b"/v2/app/tags/list#/v2/",
    "a question twice": b"/v2/app/tags/list??x=/v2/",
    "parameters of a path": b"/v2/app;x=y/tags/list",
    "a percent sign": b"/v2/app/tags/%",
    "the letters of a gate that is open": b"/%2e",
    "no path": b"?/v2/",
    "all": b"*",
    "a very long one": b"/v2/" + b"a" * 60_000 + b"/tags/list",
    "one that is too long": b"/v2/" + b"a" * 600_000 + b"/tags/list",
    "a NUL": b"/v2/a\0pp/tags/list",
    "bytes above ASCII": b"/v2/\xff\xfe/tags/list",
    "a space": b"/v2/app/tags/list HTTP/1.1 ",
}


@pytest.mark.parametrize("method", [b"GET", b"OPTIONS", b"CONNECT", b"TRACE", b"PRI", b"get", b"G\x00T", b"PROPFIND"])
@pytest.mark.parametrize("kind", TARGETS)
def test_however_an_address_is_written_nobody_gets_in_by_it(server: RegistryProcess, kind: str, method: bytes) -> None:
    answers = said(server, method + b" " + TARGETS[kind] + b" HTTP/1.1\r\nhost: a\r\n\r\n")
    assert len(answers) <= 1
    for each in answers:
        assert re.match(rb"HTTP/1\.1 (400|401|403|404|405) ", each), each
        assert b"Traceback" not in each
        assert b'"tags"' not in each


def test_a_body_of_a_get_is_no_request(server: RegistryProcess) -> None:
    head = b"GET / HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % len(INNER)
    assert len(said(server, head + INNER)) == 1
    assert "inner" not in log_of(server)


def test_an_offer_of_http_2_hides_nothing_behind_it(server: RegistryProcess) -> None:
    offer = b"connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n\r\n"
    (answer,) = said(server, b"GET / HTTP/1.1\r\nhost: a\r\n" + offer + INNER)
    assert answer.startswith(b"HTTP/1.1 404 ")
    assert "inner" not in log_of(server)


def test_the_log_has_no_fault_and_no_line_that_a_client_wrote(server: RegistryProcess) -> None:
    for forged in (b"GET /%0a2026-01-01T00:00:00Z HTTP/1.1\r\nhost: a\r\nuser-agent: x\r\n\r\n",
                   b'GET /" HTTP/1.1\r\nhost: "\xe2\x80\xae\r\nuser-agent: a\x9b31m\xc2\x85b\r\n\r\n'):  # fmt: skip
        assert len(said(server, forged)) == 1
    log = log_of(server)
    assert "Traceback" not in log
    assert " error " not in log
    assert all(line.isprintable() for line in log.split("\n")), [
        each for each in log.split("\n") if not each.isprintable()
    ]
