"""Registries with TLS, users and tokens, behind nginx and before another registry: files as people have them."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.authority import Authority
from tests.support.callers import basic, htpasswd
from tests.support.deployments import Client, Deployments, complaints, deploying, free_port
from tests.support.host import eventually
from tests.support.images import RefusedError, pull_image, pull_image_on, push_image, push_image_on, tar_layer
from tests.support.nginx import Nginx
from tests.support.processes import run
from tests.support.receiver import Receiver, receiving
from tests.support.tokens import bearer, certify, key, signed

pytestmark = pytest.mark.peer("openssl")
deploy, receiver = pytest.fixture(deploying), pytest.fixture(receiving)
UPLOADS = "/v2/an/image/blobs/uploads/"
AS_DOCUMENTED = (
    "proxy_set_header Host $http_host; proxy_set_header X-Real-IP $remote_addr; "
    "proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; proxy_set_header X-Forwarded-Proto $scheme;"
)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    made = Authority(tmp_path_factory.mktemp("authority"))
    made.make("server", "server")
    made.make("client", "client")
    return made


@pytest.fixture
def trusting(authority: Authority) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(authority.certificate))


@pytest.fixture
def trusted(authority: Authority, tmp_path: Path) -> Path:
    """A folder of certificates as skopeo takes it."""
    folder = tmp_path / "trusted"
    folder.mkdir()
    (folder / "ca.crt").write_bytes(authority.certificate.read_bytes())
    return folder


@pytest.fixture
def in_front(authority: Authority, tmp_path: Path) -> Callable[[str], Nginx]:
    certificate, private = authority.folder / "server.crt", authority.folder / "server.key"
    return lambda locations: Nginx(tmp_path / "nginx", certificate, private, locations)


def moved(client: Client, host: str, trusted: Path, *words: str) -> None:
    """Has an image pushed and pulled over TLS: by plain requests, then from one repository to another by skopeo."""
    digest = push_image_on(client, "an/image", "1", [tar_layer("a", b"a" * 100_000)])
    certificates = ["--src-cert-dir", str(trusted), "--dest-cert-dir", str(trusted)]
    names = (f"docker://{host}/{name}:1" for name in ("an/image", "by/skopeo"))
    run("skopeo", "--insecure-policy", "copy", "--preserve-digests", *certificates, *words, *names)
    assert next(iter(pull_image_on(client, "by/skopeo", "1"))) == digest


@pytest.mark.peer("nginx", "skopeo", "root")
def test_users_behind_nginx(
    deploy: Deployments, in_front: Callable[[str], Nginx], trusting: ssl.SSLContext, trusted: Path, tmp_path: Path
) -> None:
    port = free_port()
    with in_front(f"location /v2/ {{ proxy_pass http://127.0.0.1:{port}; {AS_DOCUMENTED} }}") as nginx:
        server = deploy(
            "htpasswd-behind-nginx",
            port=port,
            HTTP_HOST=f"https://{nginx.host}",
            AUTH_HTPASSWD_PATH=htpasswd(tmp_path / "htpasswd", alice="secret"),
        )
        with Client(nginx.host, tls=trusting) as client:
            answer = client.ask("GET", "/v2/", expect=401)
            assert answer.headers["www-authenticate"] == 'Basic realm="basic-realm"'
        with Client(nginx.host, tls=trusting, headers=basic("alice", "secret")) as client:
            location = client.ask("POST", UPLOADS, expect=202).headers["location"]
            assert location.startswith(f"https://{nginx.host}{UPLOADS}")
            moved(client, nginx.host, trusted, "--src-creds=alice:secret", "--dest-creds=alice:secret")
    assert complaints(server) == []
    assert "response completed" not in server.text
    assert {line["environment"] for line in server.lines()} == {"production"}


@pytest.mark.peer("nginx", "root")
def test_under_a_prefix_behind_nginx(
    deploy: Deployments, in_front: Callable[[str], Nginx], trusting: ssl.SSLContext
) -> None:
    server = deploy("under-a-prefix")
    with (
        in_front(f"location /containers/ {{ proxy_pass {server.url}; {AS_DOCUMENTED} }}") as nginx,
        Client(nginx.host, tls=trusting, below="/containers") as client,
    ):
        assert client.ask("POST", UPLOADS).headers["location"].startswith(f"/containers{UPLOADS}")
        digest = push_image_on(client, "an/image", "1", [b"layer"])
        assert digest in pull_image_on(client, "an/image", "1")
        shown = client.ask("GET", "/v2/_catalog", Origin="https://ui.example.com").headers
        assert shown["access-control-allow-origin"] == "https://ui.example.com"
    with Client(server.host) as client:
        assert client.ask("GET", "/v2/").status == 404
    assert complaints(server) == []


@pytest.mark.peer("skopeo")
def test_a_certificate_of_its_own(
    deploy: Deployments, authority: Authority, trusting: ssl.SSLContext, trusted: Path
) -> None:
    given = {"CERTIFICATE": authority.folder / "server.crt", "KEY": authority.folder / "server.key"}
    server = deploy("own-certificate", **{f"HTTP_TLS_{name}": path for name, path in given.items()})
    with Client(server.host, tls=trusting) as client:
        moved(client, server.host, trusted)
    with pytest.raises(RuntimeError, match="certificate signed by unknown authority"):
        run("skopeo", "inspect", f"docker://{server.host}/an/image:1")
    assert complaints(server) == []


@pytest.mark.peer("skopeo")
def test_certificates_of_clients(
    deploy: Deployments, authority: Authority, trusting: ssl.SSLContext, trusted: Path
) -> None:
    server = deploy(
        "tls",
        HTTP_TLS_CERTIFICATE=authority.folder / "server.crt",
        HTTP_TLS_KEY=authority.folder / "server.key",
        HTTP_TLS_CLIENTCAS_0=authority.certificate,
    )
    with Client(server.host, tls=trusting) as stranger, pytest.raises((ssl.SSLError, ConnectionError)):
        stranger.ask("GET", "/v2/")
    certificate, private = authority.folder / "client.crt", authority.folder / "client.key"
    trusting.load_cert_chain(certificate, private)
    (trusted / "client.cert").write_bytes(certificate.read_bytes())
    (trusted / "client.key").write_bytes(private.read_bytes())
    with Client(server.host, tls=trusting) as client:
        moved(client, server.host, trusted)
        assert client.ask("GET", "/v2/").headers["strict-transport-security"] == "max-age=63072000; includeSubDomains"
    trusting.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(OSError, match=r"EOF|reset|alert"), Client(server.host, tls=trusting):
        pass
    eventually(lambda: "UNSUPPORTED_PROTOCOL" in server.text)
    assert complaints(server) == []


def test_a_cache_before_a_registry_that_wants_a_password(deploy: Deployments, tmp_path: Path) -> None:
    """Whose zeros at its beginning belong to it."""
    users = htpasswd(tmp_path / "htpasswd", someone="00123456")
    upstream = deploy("htpasswd-behind-nginx", root="upstream", AUTH_HTPASSWD_PATH=users)
    server = deploy("proxy-cache", PROXY_REMOTEURL=upstream.url)
    with Client(upstream.host, headers=basic("someone", "00123456")) as client:
        digest = push_image_on(client, "library/image", "1", [b"layer"])
    assert digest in pull_image(server.host, "library/image", "1")
    with pytest.raises(RefusedError, match="this registry mirrors"):
        push_image(server.host, "library/other", "1", [b"layer"])
    assert complaints(server) == []
    assert "00123456" not in server.text


def test_tokens_of_harbor(deploy: Deployments, receiver: Receiver, tmp_path: Path) -> None:
    """The registry that Harbor has within: Harbor's core gives out tokens, and is told of what happens."""
    core = certify("harbor-token-ca", private=key("RSA2048"))
    (tmp_path / "root.crt").write_bytes(core.pem)
    server = deploy(
        "token-server",
        AUTH_TOKEN_ROOTCERTBUNDLE=tmp_path / "root.crt",
        HTTP_DEBUG_ADDR=f"127.0.0.1:{free_port()}",
        NOTIFICATIONS_ENDPOINTS_0_URL=receiver.url,
    )

    def token(*actions: str) -> dict[str, str]:
        access = [{"type": "repository", "name": "library/image", "actions": list(actions)}]
        said = {"iss": "harbor-token-issuer", "aud": "harbor-registry", "sub": "robot", "access": access}
        return bearer(signed(core.key, "RS256", {"x5c": [core.der]}, **said))

    with Client(server.host) as client:
        assert client.ask("GET", "/v2/", expect=401).headers["www-authenticate"] == (
            'Bearer realm="https://harbor.example.com/service/token",service="harbor-registry"'
        )
    with Client(server.host, headers=token("pull", "push")) as client:
        digest = push_image_on(client, "library/image", "1", [b"layer"])
    with Client(server.host, headers=token("pull")) as client:
        assert digest in pull_image_on(client, "library/image", "1")
        refused = client.ask("POST", "/v2/library/image/blobs/uploads/", expect=401).headers["www-authenticate"]
        assert refused.endswith('scope="repository:library/image:pull,push",error="insufficient_scope"')
        assert client.ask("GET", "/v2/library/other/tags/list").status == 401
    receiver.wait_taken(6)
    assert {each["actor"]["name"] for each in receiver.taken} == {"robot"}
    assert [each.split(": ")[1:3] for each in complaints(server)] == [["compatibility", "is not served"]]
