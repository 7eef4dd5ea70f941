"""Pushes and pulls by way of nginx, which ends TLS and hands on in the ways that people write down."""

from __future__ import annotations

import http.client
import json
import ssl
import tempfile
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from pathlib import Path

import pytest

from tests.support.authority import Authority
from tests.support.docker import DockerEngine
from tests.support.images import pull_image, push_image, tar_layer
from tests.support.nginx import Nginx
from tests.support.processes import RegistryProcess, run

pytestmark = pytest.mark.peer("nginx", "openssl", "skopeo", "root")
Serve = Callable[..., RegistryProcess]
TOLD = (
    "proxy_set_header Host $http_host; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; "
    "proxy_set_header X-Forwarded-Proto $scheme;"
)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    made = Authority(tmp_path_factory.mktemp("authority"))
    made.make("server", "server")
    return made


@pytest.fixture
def in_front(authority: Authority, tmp_path: Path) -> Callable[[str], Nginx]:
    return lambda locations: Nginx(
        tmp_path / "nginx", authority.folder / "server.crt", authority.folder / "server.key", locations
    )


@pytest.fixture
def trusted(authority: Authority, tmp_path: Path) -> Path:
    """A folder of certificates as skopeo takes it."""
    folder = tmp_path / "trusted"
    folder.mkdir()
    (folder / "ca.crt").write_bytes(authority.certificate.read_bytes())
    return folder


def moves(host: str, trusted: Path, registry_server: Serve, tmp_path: Path) -> None:
    """Have skopeo push an image and pull it again, by way of `host`, and check every byte."""
    tmp_path.mkdir(exist_ok=True)
    source = registry_server().host
    digest = push_image(source, "an/image", "1", [tar_layer("a", b"a" * 5_000_000), tar_layer("b", b"b" * 1000)])
    run("skopeo", "--insecure-policy", "copy", "--src-tls-verify=false", f"docker://{source}/an/image:1",
        f"dir:{tmp_path / 'out'}")  # fmt: skip
    run("skopeo", "--insecure-policy", "copy", "--preserve-digests", "--dest-cert-dir", str(trusted),
        f"dir:{tmp_path / 'out'}", f"docker://{host}/by/nginx:1")  # fmt: skip
    run("skopeo", "--insecure-policy", "copy", "--preserve-digests", "--src-cert-dir", str(trusted),
        f"docker://{host}/by/nginx:1", f"docker://{source}/came/back:1", "--dest-tls-verify=false")  # fmt: skip
    assert next(iter(pull_image(source, "came/back", "1"))) == digest


def begins(host: str, authority: Authority, path: str = "/v2/a/blobs/uploads/", **headers: str) -> str:
    """Begin an upload by way of `host`, from another address of this machine, and return its location."""
    context = ssl.create_default_context(cafile=str(authority.certificate))
    connection = http.client.HTTPSConnection(host, context=context, timeout=30, source_address=("127.0.0.9", 0))
    connection.request("POST", path, headers={name.replace("_", "-"): text for name, text in headers.items()})
    answer = connection.getresponse()
    answer.read()
    connection.close()
    assert answer.status == 202
    return answer.headers["location"]


def test_nothing_has_to_be_said(
    registry_server: Serve, in_front: Callable[[str], Nginx], authority: Authority, trusted: Path, tmp_path: Path
) -> None:
    """Not even Host is handed on: relative locations hold."""
    ours = registry_server()
    with in_front(f"location / {{ proxy_pass {ours.url}; }}") as nginx:
        moves(nginx.host, trusted, registry_server, tmp_path)
        assert begins(nginx.host, authority).startswith("/v2/a/blobs/uploads/")


def test_a_trusted_proxy_tells_scheme_host_and_client(
    registry_server: Serve, in_front: Callable[[str], Nginx], authority: Authority, trusted: Path, tmp_path: Path
) -> None:
    ours = registry_server(
        env={"REGISTRY_HTTP_RELATIVEURLS": "false", "REGISTRY_LAYERHOUSE_TRUSTEDPROXIES": "[127.0.0.1]"}
    )
    with in_front(f"location / {{ proxy_pass {ours.url}; {TOLD} }}") as nginx:
        moves(nginx.host, trusted, registry_server, tmp_path)
        claims = {"X_Forwarded_For": "203.0.113.7", "Forwarded": "for=203.0.113.8;host=evil.example"}
        assert begins(nginx.host, authority, **claims).startswith(f"https://{nginx.host}/v2/a/blobs/uploads/")
    ours.stop()
    assert "127.0.0.9" in ours.log()
    assert "203.0.113" not in ours.log()


def test_a_proxy_that_nobody_trusts_tells_nothing(
    registry_server: Serve, in_front: Callable[[str], Nginx], authority: Authority
) -> None:
    ours = registry_server(
        env={"REGISTRY_HTTP_RELATIVEURLS": "false", "REGISTRY_LAYERHOUSE_TRUSTEDPROXIES": "[127.0.0.2]"}
    )
    with in_front(f"location / {{ proxy_pass {ours.url}; {TOLD} }}") as nginx:
        assert begins(nginx.host, authority).startswith(f"http://{nginx.host}/v2/a/blobs/uploads/")
    ours.stop()
    assert "127.0.0.9" not in ours.log()


def test_a_prefix_is_served_and_stands_in_every_location(
    registry_server: Serve, in_front: Callable[[str], Nginx], authority: Authority, trusted: Path, tmp_path: Path
) -> None:
    """Clients ask below `/v2/`; what they are told next lies below the prefix, which they follow."""
    ours = registry_server(env={"REGISTRY_HTTP_PREFIX": "/my/registry/"})
    below = f"location /my/registry/ {{ proxy_pass {ours.url}; }}"
    with in_front(f"location /v2/ {{ proxy_pass {ours.url}/my/registry/v2/; }} {below}") as nginx:
        moves(nginx.host, trusted, registry_server, tmp_path)
        assert begins(nginx.host, authority).startswith("/my/registry/v2/a/blobs/uploads/")


def test_a_prefix_that_the_proxy_takes_off_stands_in_every_location(
    registry_server: Serve, in_front: Callable[[str], Nginx], authority: Authority
) -> None:
    ours = registry_server(env={"REGISTRY_LAYERHOUSE_TRUSTEDPROXIES": "[127.0.0.0/8]"})
    told = "proxy_set_header X-Forwarded-Prefix /images;"
    with in_front(f"location /images/ {{ proxy_pass {ours.url}/; {told} }}") as nginx:
        path = "/images/v2/a/blobs/uploads/"
        assert begins(nginx.host, authority, path).startswith(path)


def test_nginx_asks_by_a_unix_socket(
    registry_server: Serve, in_front: Callable[[str], Nginx], trusted: Path, tmp_path: Path
) -> None:
    # The path of a socket holds no more than 107 bytes.
    with tempfile.TemporaryDirectory(prefix="lh-") as folder, ExitStack() as ending:
        ours = RegistryProcess(tmp_path / "root", log=tmp_path / "log", env={"REGISTRY_HTTP_NET": "unix"})
        ending.callback(ours.kill)
        ours.start(f"{folder}/registry.sock")
        with in_front(f"location / {{ proxy_pass http://{ours.host}; }}") as nginx:
            moves(nginx.host, trusted, registry_server, tmp_path)


def served(authority: Authority) -> dict[str, str]:
    """What makes a registry serve TLS."""
    return {
        "REGISTRY_HTTP_TLS_CERTIFICATE": str(authority.folder / "server.crt"),
        "REGISTRY_HTTP_TLS_KEY": str(authority.folder / "server.key"),
    }


def certified(authority: Authority) -> dict[str, str]:
    """What makes it serve TLS to clients whose certificate the authority signed."""
    return {**served(authority), "REGISTRY_HTTP_TLS_CLIENTCAS": json.dumps([str(authority.certificate)])}


def give_certificate(authority: Authority, folder: Path) -> None:
    """Put a client's certificate where skopeo looks for it."""
    authority.make("client", "client")
    for name, ending in (("crt", "cert"), ("key", "key")):
        (folder / f"client.{ending}").write_bytes((authority.folder / f"client.{name}").read_bytes())


@pytest.mark.parametrize("workers", [1, 2])
def test_tls_ends_here_for_who_has_a_certificate(
    registry_server: Serve, authority: Authority, trusted: Path, tmp_path: Path, workers: int
) -> None:
    ours = registry_server(env=certified(authority), workers=workers)
    with pytest.raises(RuntimeError, match=r"certificate|EOF|reset"):
        moves(ours.host, trusted, registry_server, tmp_path)
    give_certificate(authority, trusted)
    moves(ours.host, trusted, registry_server, tmp_path / "again")


@pytest.mark.peer("docker", "busybox")
def test_docker_pushes_and_pulls_over_tls(
    registry_server: Serve, authority: Authority, docker_engine: DockerEngine, busybox_image: str
) -> None:
    """It verifies no certificate of a registry on this machine, and shows none of its own."""
    demanding, ours = registry_server(env=certified(authority)), registry_server(env=served(authority))
    for host, is_taken in ((demanding.host, False), (ours.host, True)):
        name = f"{host}/by/docker:1"
        docker_engine("tag", busybox_image, name)
        try:
            with nullcontext() if is_taken else pytest.raises(RuntimeError, match="an HTTP request to an HTTPS server"):
                docker_engine("push", name)
                docker_engine("rmi", name)
                docker_engine("pull", name)
        finally:
            docker_engine("rmi", name)
