"""Real certificates, and servers that ask for them."""

from __future__ import annotations

import asyncio
import re
import ssl
from pathlib import Path
from types import SimpleNamespace

import httpcore
import pytest
import truststore

from client.hosts.endpoint import Tls
from client.hosts.tls import context
from client.wire.exchange import Request, read
from client.wire.network import Backend
from client.wire.transport import HttpTransport
from ocispec.errors import ConfigurationError, HostUnreachable
from ocispec.reference import RepositoryName
from tests.client.scripted import Reply, scripted, serving
from tests.support.authority import Authority, openssl
from tests.support.machine import Machine

pytestmark = pytest.mark.peer("openssl")


async def whoami(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers the name in the client's certificate."""
    await reader.read(1)
    subject = (writer.get_extra_info("peercert") or {}).get("subject", ((("commonName", "nobody"),),))
    writer.write(dict(pair[0] for pair in subject)["commonName"].encode())
    await writer.drain()


async def seen(tls: ssl.SSLContext, settings: Tls, hostname: str = "localhost", **environ: str) -> str:
    """Whom a server says it sees."""
    made = await asyncio.to_thread(context, settings, environ)
    async with serving(whoami, tls) as port:
        stream = await Backend().connect_tcp("127.0.0.1", port, timeout=30)
        stream = await stream.start_tls(made, hostname, timeout=30)
        try:
            await stream.write(b"?", timeout=30)
            return (await stream.read(1, timeout=30)).decode()
        finally:
            await stream.aclose()


@pytest.mark.parametrize("hostname", ["localhost", "127.0.0.1", "registry.example.com"])
async def test_an_authority_of_the_users_is_trusted(authority: Authority, hostname: str):
    assert await seen(authority.server(), Tls((authority.certificate,)), hostname) == "nobody"


async def test_nobody_else_is_trusted(authority: Authority):
    with pytest.raises(httpcore.ConnectError, match="its certificate is not trusted: unable to get local issuer"):
        await seen(authority.server(), Tls())
    other = Authority(authority.folder, "other-ca")
    with pytest.raises(httpcore.ConnectError, match="its certificate is not trusted"):
        await seen(authority.server(), Tls((other.certificate,)))
    assert await seen(authority.server(), Tls((other.certificate, authority.certificate))) == "nobody"


async def test_a_certificate_for_another_host_is_not_trusted(authority: Authority):
    with pytest.raises(httpcore.ConnectError, match="its certificate is not trusted: Hostname mismatch"):
        await seen(authority.server(), Tls((authority.certificate,)), "example.org")


async def test_an_authority_need_not_be_a_root(authority: Authority):
    assert await seen(authority.server("below"), Tls((authority.folder / "between.crt",))) == "nobody"


async def test_unverified_takes_any_certificate_and_any_name(authority: Authority):
    assert await seen(authority.server(), Tls(verified=False), "example.org") == "nobody"
    missing = Tls((Path("/does/not/exist.crt"),), verified=False)
    assert await seen(authority.server(), missing) == "nobody"


@pytest.mark.parametrize(
    ("identities", "name"),
    [
        ([("client.crt", "client.key")], "client"),
        ([("both.pem", "both.pem")], "client"),
        ([("rsa.crt", "rsa.key")], "rsa"),
        ([("client.crt", "client.key"), ("other.crt", "other.key")], "client"),
    ],
)
@pytest.mark.parametrize("verified", [True, False])
async def test_a_client_certificate_is_shown_where_it_is_asked_for(
    authority: Authority, identities: list[tuple[str, str]], name: str, verified: bool
):
    pairs = tuple((authority.folder / each, authority.folder / key) for each, key in identities)
    assert await seen(authority.server(asks=True), Tls((authority.certificate,), pairs, verified)) == name


async def test_a_server_that_asks_for_a_certificate_gets_none_that_it_was_not_given(authority: Authority):
    with pytest.raises((httpcore.ReadError, httpcore.ConnectError), match="TLS failed"):
        await seen(authority.server(asks=True), Tls((authority.certificate,)))


async def test_old_tls_is_not_spoken(authority: Authority):
    old = authority.server()
    old.set_ciphers("ALL:@SECLEVEL=0")
    old.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(httpcore.ConnectError, match="TLS failed"):
        await seen(old, Tls(verified=False))


async def test_the_environment_names_what_is_trusted_in_place_of_the_system(authority: Authority, tmp_path: Path):
    assert await seen(authority.server(), Tls(), SSL_CERT_FILE=str(authority.certificate)) == "nobody"
    (tmp_path / "ca.pem").write_bytes(authority.certificate.read_bytes())
    openssl("rehash", tmp_path)
    folders = f"{tmp_path.parent}:{tmp_path}:"
    assert await seen(authority.server(), Tls(), SSL_CERT_DIR=folders) == "nobody"
    assert context(Tls(), {"SSL_CERT_FILE": str(authority.certificate)}).cert_store_stats()["x509"] == 1
    assert context(Tls(), {"SSL_CERT_FILE": "", "SSL_CERT_DIR": ""}).cert_store_stats()["x509"] > 1


@pytest.mark.parametrize("system", ["linux", "darwin"])
async def test_the_systems_store_is_trusted_beside_the_users(
    authority: Authority, monkeypatch: pytest.MonkeyPatch, system: str
):
    # On macOS and Windows truststore's own context stays, which verifies after the handshake.
    monkeypatch.setattr("client.hosts.tls.sys", SimpleNamespace(platform=system))
    between = Tls(
        (authority.folder / "between.crt",), ((authority.folder / "client.crt", authority.folder / "client.key"),)
    )
    assert await seen(authority.server("below"), between) == "nobody"
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.certificate))
    made = context(Tls(), {})
    assert type(made) is ssl.SSLContext or system == "darwin"


async def test_what_is_found_wrong_after_the_handshake_is_told_like_the_rest(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
):
    def verify(*_: object, server_hostname: str | None) -> None:
        error = ssl.SSLCertVerificationError(f"{server_hostname} is not on the list")
        error.verify_message = "not on the list"
        raise error

    monkeypatch.setattr("client.hosts.tls.sys", SimpleNamespace(platform="darwin"))
    monkeypatch.setitem(truststore.SSLContext.__init__.__globals__, "_verify_peercerts_impl", verify)
    with pytest.raises(httpcore.ConnectError, match=r"^its certificate is not trusted: not on the list$"):
        await seen(authority.server(), Tls((authority.certificate,)))


PAIR = "expected a certificate in PEM form, with its private key in "


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (Tls((Path("no.crt"),)), "{0}/no.crt cannot be read: No such file or directory"),
        (Tls((Path("garbage.pem"),)), "{0}/garbage.pem: expected certificates in PEM form"),
        (Tls((Path("ca.key"),)), "{0}/ca.key: expected certificates in PEM form"),
        (Tls((Path(),)), "{0} cannot be read: Is a directory"),
        (Tls((), ((Path("no.crt"), Path("ca.key")),)), "{0}/no.crt cannot be read: No such file or directory"),
        (Tls((), ((Path("ca.crt"), Path("no.key")),)), "{0}/no.key cannot be read: No such file or directory"),
        (Tls((), ((Path("garbage.pem"), Path("ca.key")),)),
         "{0}/garbage.pem: expected a certificate in PEM form, with its private key in {0}/ca.key"),
        (Tls((), ((Path("ca.crt"), Path("garbage.pem")),)),
         "{0}/ca.crt: expected a certificate in PEM form, with its private key in {0}/garbage.pem"),
        (Tls((), ((Path("client.crt"), Path("other.key")),)),
         "{0}/client.crt: the private key is another's: " + PAIR + "{0}/other.key"),
        (Tls((), ((Path("ca.crt"), Path("ca.crt")),)),
         "{0}/ca.crt: expected a certificate in PEM form, with its private key in it"),
        (Tls((), ((Path("alone.cert"), Path("alone.cert")),)),
         "{0}/alone.cert: " + PAIR + "it or in alone.key beside it; an authority's file ends in .crt"),
        (Tls((), ((Path("ca.crt"), Path("encrypted.key")),)),
         "{0}/encrypted.key: its private key is encrypted, expected one without a passphrase"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_named(authority: Authority, settings: Tls, message: str):
    folder = authority.folder
    placed = Tls(
        tuple(folder / each for each in settings.authorities),
        tuple((folder / each, folder / key) for each, key in settings.identities),
    )
    with pytest.raises(ConfigurationError) as caught:
        context(placed, {})
    assert caught.value.message == message.format(folder)


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"SSL_CERT_FILE": "/no/such"}, "SSL_CERT_FILE: /no/such cannot be read: No such file or directory"),
        ({"SSL_CERT_DIR": "/:/no/such"}, "SSL_CERT_DIR: expected a folder of certificates, not '/no/such'"),
    ],
)
def test_a_wrong_variable_is_named(environ: dict[str, str], message: str):
    with pytest.raises(ConfigurationError, match=f"^{re.escape(message)}$"):
        context(Tls(), environ)


def test_a_key_without_its_certificate_is_named(machine: Machine):
    key = machine.write("etc/docker/certs.d/r.example.com/client.key")
    machine.write("etc/docker/certs.d/r.example.com/client.crt")
    with pytest.raises(ConfigurationError) as caught:
        machine.endpoints("r.example.com/a")
    assert caught.value.message == f"{key}: expected its client certificate beside it, in client.cert"


@pytest.mark.parametrize("source", ["docker", "containerd", "containers"])
async def test_a_registry_that_wants_a_certificate_is_reached_as_its_folder_says(
    authority: Authority, machine: Machine, source: str
):
    async with scripted(authority.server(asks=True)) as registry:
        registry.behaviours["/v2/"] = Reply(200, b"{}")
        port = int(registry.host.rpartition(":")[2])
        names = {"docker": registry.host, "containerd": f"127.0.0.1_{port}_", "containers": registry.host}
        folder = machine.root / f"etc/{source}/certs.d/{names[source]}"
        folder.mkdir(parents=True)
        for name, copied in (("ca.crt", "ca.crt"), ("client.cert", "client.crt"), ("client.key", "client.key")):
            (folder / name).write_bytes((authority.folder / copied).read_bytes())
        hosts = machine.hosts()
        (endpoint,) = await hosts.endpoints(registry.host, RepositoryName("a"))
        assert endpoint.api == f"https://{registry.host}/v2"
        transport = HttpTransport(2, routes=hosts.route)
        try:
            async with transport.send(Request("GET", f"{endpoint.api}/")) as response:
                assert await read(response.pieces(), 10) == b"{}"
        finally:
            await transport.aclose()


async def http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A server that speaks http, and tells at once who speaks TLS."""
    if await reader.readexactly(1) != b"G":
        writer.write(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
    else:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
    await writer.drain()


@pytest.mark.parametrize("secure", [True, False])
async def test_insecure_reaches_a_registry_with_any_certificate_and_one_without(
    authority: Authority, machine: Machine, secure: bool
):
    async with serving(http, authority.server() if secure else None) as port:
        hosts = machine.hosts(insecure=True)
        endpoints = await hosts.endpoints(f"127.0.0.1:{port}", RepositoryName("a"))
        transport = HttpTransport(2, routes=hosts.route)
        answers = []
        for endpoint in endpoints:
            try:
                async with transport.send(Request("GET", f"{endpoint.api}/")) as response:
                    answers.append((response.status, await read(response.pieces(), 10)))
            except HostUnreachable:
                answers.append((0, None))
        await transport.aclose()
    assert [answer == (200, b"{}") for answer in answers] == [secure, not secure]
