"""TLS as clients meet it: certificates, their renewal, clients' certificates, and plain HTTP beside it."""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from registry.config.tls import CIPHER_SUITES, Tls
from registry.serving.tls import Certificates, TlsError, check, load
from tests.support.authority import Authority, openssl
from tests.support.host import WAIT, Host, answering, eventually, hang_up, read, read_all
from tests.support.served import GET, GET_FILE, GET_SCOPE, Application

pytestmark = pytest.mark.peer("openssl")
Start = Callable[..., Application]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Signed `server` and `other` for servers, `client` for clients; `stranger` is of another authority."""
    made = Authority(tmp_path_factory.mktemp("authority"))
    made.make("server", "server")
    made.make("other", "server")
    made.make("client", "client")
    Authority(made.folder, "elsewhere").make("stranger", "client")
    return made


@pytest.fixture
def start(tmp_path: Path, authority: Authority) -> Iterator[Start]:
    """Serve with copies of the authority's files, `certificate.pem` and `key.pem`, that a test may replace."""
    with ExitStack() as ending:

        def starting(name: str = "server", tls: Any = (), **options: Any) -> Application:
            install(authority, name, tmp_path)
            files = {"certificate": str(tmp_path / "certificate.pem"), "key": str(tmp_path / "key.pem")}
            server = Application("pid_or_file", tmp_path, tls={**files, **dict(tls)}, **options)
            ending.callback(server.kill)
            server.start()
            return server

        yield starting


def install(authority: Authority, name: str, folder: Path) -> None:
    """Put the certificate in place as certbot does: each file in one step, the one after the other."""
    for ending, file in (("crt", "certificate.pem"), ("key", "key.pem")):
        new = folder / f"{file}.new"
        new.write_bytes((authority.folder / f"{name}.{ending}").read_bytes())
        new.replace(folder / file)


def trusting(authority: Authority, client: str | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(authority.certificate))
    if client:
        context.load_cert_chain(authority.folder / f"{client}.crt", authority.folder / f"{client}.key")
    return context


def ask(server: Application | Host, context: ssl.SSLContext, request: bytes = GET) -> bytes:
    with context.wrap_socket(server.connect(), server_hostname="127.0.0.1") as connection:
        connection.sendall(request)
        return read(connection)[2]


def served(server: Application, authority: Authority) -> tuple[int, str]:
    """The process that answered, and whose certificate it showed."""
    with trusting(authority).wrap_socket(server.connect(), server_hostname="127.0.0.1") as connection:
        certificate: Any = connection.getpeercert()
        connection.sendall(GET)
        return int(read(connection)[2]), dict(each[0] for each in certificate["subject"])["commonName"]


@pytest.mark.parametrize("workers", [1, 2])
def test_it_serves_over_tls_and_ends_with_status_0(start: Start, authority: Authority, workers: int) -> None:
    server = start(workers=workers)
    assert ask(server, trusting(authority), GET_FILE) == server.file.read_bytes()
    assert "listening on https://127.0.0.1:" in server.log()
    assert json.loads(ask(server, trusting(authority), GET_SCOPE))["scheme"] == "https"
    assert server.end() == 0


@pytest.mark.parametrize("workers", [1, 2])
def test_a_renewed_certificate_is_served_without_a_restart(
    start: Start, authority: Authority, tmp_path: Path, workers: int
) -> None:
    server = start(workers=workers)
    assert served(server, authority)[1] == "server"
    with trusting(authority).wrap_socket(server.connect(), server_hostname="127.0.0.1") as kept:
        install(authority, "other", tmp_path)
        names: dict[int, str] = {}
        eventually(lambda: names.update([served(server, authority)]) or list(names.values()) == ["other"] * workers)
        kept.sendall(GET)
        assert read(kept)[0] == 200


def test_a_broken_certificate_is_told_of_and_the_old_one_stays(
    start: Start, authority: Authority, tmp_path: Path
) -> None:
    server = start()
    assert served(server, authority)[1] == "server"
    (tmp_path / "key.pem").write_text("none")
    eventually(lambda: "key.pem: expected a private key in PEM" in server.log())
    assert served(server, authority)[1] == "server"
    install(authority, "other", tmp_path)
    eventually(lambda: served(server, authority)[1] == "other")
    assert server.log().count("is kept") == 1
    assert "the certificate was read anew: CN=other, valid until 2" in server.log()


@pytest.fixture
def encrypted(serve: Any, authority: Authority) -> Callable[..., Host]:
    """Serve the scope of each request over TLS, on each event loop; arguments as `http.tls`."""
    return lambda **given: serve(telling, certificates=Certificates(tls_of(authority, **given)))


async def telling(scope: Any, receive: Any, send: Any) -> None:
    told = {name: scope[name] for name in ("scheme", "extensions")}
    await answering(json.dumps(told).encode())(scope, receive, send)


@pytest.mark.parametrize(
    ("mode", "client", "name"),
    [
        (None, "client", "CN=client"),
        ("require-and-verify-client-cert", "client", "CN=client"),
        ("verify-client-cert-if-given", "client", "CN=client"),
        ("verify-client-cert-if-given", None, None),
        ("request-client-cert", "stranger", None),
        ("request-client-cert", None, None),
    ],
)
def test_an_application_learns_whose_certificate_was_verified(
    encrypted: Callable[..., Host], authority: Authority, mode: str | None, client: str | None, name: str | None
) -> None:
    host = encrypted(clientcas=[authority.certificate], clientauth=mode)
    told = json.loads(ask(host, trusting(authority, client)))
    assert told["scheme"] == "https"
    assert told["extensions"]["tls"]["client_cert_name"] == name
    assert len(told["extensions"]["tls"]["client_cert_chain"]) == (name is not None)
    assert told["extensions"]["tls"]["tls_version"] == 0x0304


@pytest.mark.parametrize(
    ("mode", "client"),
    [
        ("require-and-verify-client-cert", None),
        ("require-and-verify-client-cert", "stranger"),
        ("verify-client-cert-if-given", "stranger"),
    ],
)
def test_who_shows_no_certificate_that_counts_is_not_served(
    encrypted: Callable[..., Host], authority: Authority, mode: str, client: str | None
) -> None:
    host = encrypted(clientcas=[authority.certificate], clientauth=mode)
    with pytest.raises((OSError, IndexError)):
        ask(host, trusting(authority, client))
    assert ask(host, trusting(authority, "client"))
    eventually(lambda: not host.state.connections and not host.state.tasks)


def test_plain_http_is_served_beside_tls_where_asked(start: Start, authority: Authority) -> None:
    server = start(plain=True)
    assert ask(server, trusting(authority))
    port = int(server.log().rpartition("http://127.0.0.1:")[2].split()[0])
    with socket.create_connection(("127.0.0.1", port), WAIT) as connection:
        connection.sendall(GET_SCOPE)
        told = json.loads(read(connection)[2])
    assert told["scheme"] == "http"
    assert "tls" not in told["extensions"]
    assert server.end() == 0


@pytest.mark.parametrize("more", [0, 100_000])
def test_who_speaks_plain_http_to_tls_is_told(encrypted: Callable[..., Host], authority: Authority, more: int) -> None:
    host = encrypted()
    connection = host.connect()
    connection.sendall(GET + b"x" * more)
    status, _, body = read(connection)
    assert (status, body) == (400, b"Client sent an HTTP request to an HTTPS server.\n")
    assert ask(host, trusting(authority))


def test_what_comes_with_the_end_of_the_handshake_is_not_lost(
    encrypted: Callable[..., Host], authority: Authority
) -> None:
    """The last message of a client's handshake and its first request in one segment, byte by byte before that."""
    connection = encrypted().connect()
    came, leaving = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = trusting(authority).wrap_bio(came, leaving, server_hostname="127.0.0.1")
    with suppress(ssl.SSLWantReadError):
        client.do_handshake()
    for byte in leaving.read():
        connection.sendall(bytes([byte]))
    while True:
        came.write(connection.recv(1 << 16))
        with suppress(ssl.SSLWantReadError):
            client.do_handshake()
            break
    client.write(GET)
    connection.sendall(leaving.read())
    answer = b""
    while b'"scheme"' not in answer:
        came.write(connection.recv(1 << 16))
        with suppress(ssl.SSLWantReadError):
            answer += client.read()


def test_who_leaves_during_the_handshake_leaves_nothing(encrypted: Callable[..., Host], authority: Authority) -> None:
    host = encrypted()
    for sent in (b"", b"\x16", b"\x16\x03\x01", b"\x16" * 1000):
        for leave in (socket.socket.close, hang_up):
            connection = host.connect()
            connection.sendall(sent)
            leave(connection)
    with trusting(authority).wrap_socket(host.connect(), server_hostname="127.0.0.1"):
        pass
    eventually(lambda: not host.state.connections and not host.state.tasks)


def test_who_is_slow_with_the_handshake_is_cut_off(
    encrypted: Callable[..., Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("registry.serving.handshake.PATIENCE", 0.2)
    host = encrypted()
    for sent in (b"", b"\x16", b"\x16\x03\x01"):
        connection = host.connect()
        connection.sendall(sent)
        assert read_all(connection) == b""
    eventually(lambda: not host.state.connections and not host.state.tasks)


async def test_files_that_changed_are_read_once_they_stand_still(
    authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    files = {"certificate": tmp_path / "certificate.pem", "key": tmp_path / "key.pem"}
    certificates = Certificates(Tls.model_validate(files))
    await certificates.refresh()
    assert caplog.text.count("No such file") == 1
    await certificates.refresh()
    assert caplog.text.count("No such file") == 1
    for name in ("server", "other"):
        install(authority, name, tmp_path)
        await certificates.refresh()
        assert name not in caplog.text
        await certificates.refresh()
        await certificates.refresh()
        assert caplog.text.count(f"read anew: CN={name}, valid until ") == 1
    before = certificates.context
    (tmp_path / "key.pem").write_text("none")
    for _ in range(4):
        await certificates.refresh()
    assert caplog.text.count("expected a private key in PEM") == 1
    assert certificates.context is before


async def test_files_are_read_before_anybody_connects(authority: Authority, caplog: pytest.LogCaptureFixture) -> None:
    certificates = Certificates(tls_of(authority))
    await certificates.refresh()
    first = certificates.context
    await certificates.refresh()
    assert certificates.context is first
    assert not caplog.text


def test_files_that_are_gone_before_they_were_read_are_told_of(
    serve: Any, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    host = serve(telling, certificates=Certificates(tls_of(authority, "absent")))
    with pytest.raises(OSError):
        ask(host, trusting(authority))
    assert "no connection can be taken: " in caplog.text


def test_who_speaks_tls_to_plain_http_gets_an_answer_that_is_no_tls(serve: Any) -> None:
    host = serve(telling)
    with pytest.raises(ssl.SSLError, match="WRONG_VERSION_NUMBER"):
        ssl.create_default_context().wrap_socket(host.connect(), server_hostname="127.0.0.1")


@pytest.mark.parametrize("sent", [b"", b"\x16\x03\x01"])
def test_a_client_that_says_nothing_does_not_delay_the_end(start: Start, authority: Authority, sent: bytes) -> None:
    server = start()
    with server.connect() as silent:
        silent.sendall(sent)
        assert ask(server, trusting(authority))
        assert server.end() == 0
        assert read_all(silent) == b""


def handshake(host: Host, authority: Authority, **limits: Any) -> tuple[str, str]:
    context = trusting(authority)
    for name, value in limits.items():
        setattr(context, name, value)
    with context.wrap_socket(host.connect(), server_hostname="127.0.0.1") as connection:
        cipher = connection.cipher()
        return str(connection.version()), cipher[0] if cipher else ""


def test_the_least_version_is_kept(encrypted: Callable[..., Host], authority: Authority) -> None:
    host = encrypted(minimumtls="tls1.3")
    assert handshake(host, authority)[0] == "TLSv1.3"
    with pytest.raises(ssl.SSLError):
        handshake(host, authority, maximum_version=ssl.TLSVersion.TLSv1_2)


@pytest.mark.parametrize("least", ["tls1.0", "tls1.1", "tls1.2"])
def test_suites_of_tls_1_2_are_those_that_were_named(
    encrypted: Callable[..., Host], authority: Authority, least: str
) -> None:
    name = "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"
    host = encrypted(minimumtls=least, ciphersuites=["TLS_AES_128_GCM_SHA256", name])
    assert handshake(host, authority, maximum_version=ssl.TLSVersion.TLSv1_2) == ("TLSv1.2", CIPHER_SUITES[name])
    assert handshake(host, authority)[0] == "TLSv1.3"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"minimumtls": "tls1.0"}, "tls1.0 is not spoken any more"),
        ({"minimumtls": "tls1.2"}, ""),
        ({"clientauth": "request-client-cert"}, "no certificate is asked for"),
    ],
)
def test_what_is_served_otherwise_than_asked_is_warned_of(
    authority: Authority, caplog: pytest.LogCaptureFixture, given: Any, told: str
) -> None:
    check(tls_of(authority, clientcas=[authority.certificate], **given))
    assert told in caplog.text
    assert bool(caplog.text) == bool(told)


def test_who_names_suites_of_tls_1_3_only_speaks_nothing_older(authority: Authority) -> None:
    context, _ = load(tls_of(authority, ciphersuites=["TLS_AES_256_GCM_SHA384"]))
    assert context.minimum_version is ssl.TLSVersion.TLSv1_3
    assert load(tls_of(authority))[0].minimum_version is ssl.TLSVersion.TLSv1_2


def test_suites_that_openssl_does_not_have_are_named(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CIPHER_SUITES, "TLS_RSA_WITH_3DES_EDE_CBC_SHA", "NONE")
    with pytest.raises(TlsError, match="has none of TLS_RSA_WITH_3DES_EDE_CBC_SHA"):
        load(tls_of(authority, ciphersuites=["TLS_RSA_WITH_3DES_EDE_CBC_SHA"]))


@pytest.mark.parametrize("name", CIPHER_SUITES)
def test_openssl_knows_each_suite_but_those_that_debian_leaves_out(authority: Authority, name: str) -> None:
    if "3DES" in name:
        with suppress(TlsError):
            load(tls_of(authority, ciphersuites=[name]))
        return
    context, _ = load(tls_of(authority, ciphersuites=[name]))
    assert CIPHER_SUITES[name] in [each["name"] for each in context.get_ciphers()]


def tls_of(authority: Authority, name: str = "server", key: str | None = None, **more: Any) -> Tls:
    folder = authority.folder
    files = {"certificate": folder / f"{name}.crt", "key": folder / f"{key or name}.key"}
    return Tls.model_validate({**files, **more})


def test_files_that_cannot_be_served_are_named_with_what_was_expected(authority: Authority, tmp_path: Path) -> None:
    folder = authority.folder
    (folder / "text.crt").write_text("a certificate")
    (folder / "chain.crt").write_bytes(authority.certificate.read_bytes() + (folder / "server.crt").read_bytes())
    openssl("rsa", "-aes128", "-passout", "pass:secret", "-traditional", "-in", rsa_key(folder), "-out",
            folder / "locked.key")  # fmt: skip
    (folder / "old.key").write_bytes((folder / "locked.key").read_bytes())
    for tls, told in (
        (tls_of(authority, "absent"), r"^http\.tls: .*absent\.crt: No such file or directory$"),
        (tls_of(authority, key="absent"), r"absent\.key: No such file or directory$"),
        (tls_of(authority, "text", "server"), r"text\.crt: expected certificates in PEM"),
        (tls_of(authority, key="text"), "text.key: No such file"),
        (tls_of(authority, key="other"), r"other\.key: expected the key of .*server\.crt, got another one$"),
        (tls_of(authority, key="locked"), r"locked\.key: the key is encrypted, expected one without a passphrase$"),
        (tls_of(authority, "chain", "server"), r"chain\.crt: expected the server's own certificate first"),
        (tls_of(authority, clientcas=[tmp_path / "none"]), "none: No such file or directory$"),
        (tls_of(authority, clientcas=[folder / "text.crt"]), r"text\.crt: expected certificates in PEM"),
        (Tls(), "expected certificate and key"),
    ):
        with pytest.raises(TlsError, match=told) as error:
            load(tls)
        assert "\n" not in error.value.message
        assert "secret" not in error.value.message


def rsa_key(folder: Path) -> Path:
    openssl("genpkey", "-algorithm", "RSA", "-out", folder / "rsa.pem")
    return folder / "rsa.pem"


def test_a_key_that_is_too_short_for_anybody_is_named(authority: Authority) -> None:
    folder = authority.folder
    openssl("req", "-x509", "-newkey", "rsa:1024", "-nodes", "-subj", "/CN=short", "-days", "1", "-out",
            folder / "short.crt", "-keyout", folder / "short.key")  # fmt: skip
    with pytest.raises(TlsError, match=r"short\.crt and .*: ee key too small$"):
        load(tls_of(authority, "short"))


@pytest.mark.parametrize(
    ("dates", "told"),
    [
        (("20200101000000Z", "20200102000000Z"), "the certificate has expired: CN=dated, valid until 2020-01-02"),
        (("20990101000000Z", "20990102000000Z"), "valid from 2099-01-01"),
    ],
)
def test_a_certificate_that_clients_will_refuse_is_warned_of_and_served(
    authority: Authority, caplog: pytest.LogCaptureFixture, dates: tuple[str, str], told: str
) -> None:
    dated(authority, *dates)
    check(tls_of(authority, "dated"))
    assert told in caplog.text


def dated(authority: Authority, begins: str, ends: str) -> None:
    folder = authority.folder
    (folder / "index").write_text("")
    (folder / "serial").write_text("01\n")
    (folder / "ca.cnf").write_text(
        f"[ca]\ndefault_ca=c\n[c]\ndatabase={folder}/index\nserial={folder}/serial\nnew_certs_dir={folder}\n"
        "policy=p\ndefault_md=sha256\nunique_subject=no\n[p]\ncommonName=supplied\n"
    )
    openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", folder / "dated.key")
    openssl("req", "-new", "-key", folder / "dated.key", "-subj", "/CN=dated", "-out", folder / "dated.csr")
    openssl("ca", "-batch", "-config", folder / "ca.cnf", "-cert", authority.certificate, "-keyfile", authority.key,
            "-startdate", begins, "-enddate", ends, "-in", folder / "dated.csr", "-out", folder / "dated.crt",
            "-notext")  # fmt: skip


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"certificate": "a"}, "expected certificate and key, got certificate without key"),
        ({"key": "a"}, "expected certificate and key, got key without certificate"),
        ({"clientcas": ["a"]}, "clientcas count with TLS only"),
        ({"clientauth": "verify-client-cert-if-given"}, "needs clientcas"),
        ({"clientauth": "Require-Any-Client-Cert"}, "expected require-and-verify-client-cert"),
        ({"minimumtls": "ssl3"}, "tls1.2"),
        ({"ciphersuites": ["RC4"]}, "expected some of TLS_RSA.*, got 'RC4'"),
        ({"letsencrypt": {"cachefile": "/c"}}, "let certbot fetch them"),
        ({"letsencrypt": {"hosts": ["h"]}}, "let certbot fetch them"),
    ],
)
def test_what_cannot_be_served_is_refused_when_it_is_read(given: Any, told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        Tls.model_validate(given)


def test_nothing_said_of_tls_asks_for_nothing() -> None:
    assert Tls.model_validate({"certificate": "", "key": "", "letsencrypt": {}}).certificate is None
