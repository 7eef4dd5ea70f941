"""The same files lead a real ctr, a real skopeo and us to the same places."""

from __future__ import annotations

import asyncio
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from client.hosts.endpoint import Endpoint
from client.wire.exchange import Request, read
from client.wire.transport import HttpTransport
from ocispec.errors import ConfigurationError, HostUnreachable
from ocispec.reference import Reference
from tests.client.scripted import Reply, ScriptedRegistry, scripted
from tests.support.authority import Authority
from tests.support.images import push_image, sha256, tar_layer
from tests.support.machine import Machine
from tests.support.peers import find
from tests.support.processes import RegistryProcess, run

IMAGE = "registry.example.com/lib/image:1"
Fetch = Callable[[str, Machine], None]


@pytest.fixture(scope="module")
def ctr() -> Iterator[Fetch]:
    """Fetches an image's content into a containerd of its own, as the machine's hosts.toml say."""
    with tempfile.TemporaryDirectory(prefix="lh-containerd-") as folder:
        config, socket = Path(folder, "config.toml"), Path(folder, "sock")
        config.write_text(
            f'version = 2\nroot = "{folder}/root"\nstate = "{folder}/state"\n'
            'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
            f'[grpc]\naddress = "{socket}"\n[debug]\naddress = "{folder}/debug"\n'
        )
        command = [find("containerd") or "containerd", "--config", str(config)]
        with Path(folder, "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as running:
            deadline = time.monotonic() + 60
            while not socket.exists() and running.poll() is None and time.monotonic() < deadline:
                time.sleep(0.01)

            def fetch(image: str, machine: Machine) -> None:
                words = ["ctr", "--address", str(socket)]
                hosts = str(machine.root / "etc/containerd/certs.d")
                run(*words, "content", "fetch", "--platform", "linux/amd64", "--hosts-dir", hosts, image)
                run(*words, "images", "remove", "--sync", image)

            try:
                yield fetch
            finally:
                running.terminate()


def skopeo(image: str, machine: Machine) -> str:
    """The digest of an image's manifest, fetched as the machine's registries.conf and the user's folders say."""
    conf, home = machine.root / "etc/containers/registries.conf", str(machine.root)
    conf = conf if conf.exists() else machine.write("etc/containers/registries.conf")
    words = ["--registries-conf", str(conf), "inspect", "--raw", f"docker://{image}"]
    return sha256(run("skopeo", *words, env={"HOME": home, "XDG_CONFIG_HOME": f"{home}/config"}).encode())


async def ours(image: str, machine: Machine) -> tuple[Endpoint, str]:
    """The first endpoint of an image that can be reached, and the digest of the manifest from there."""
    reference, hosts = Reference.parse(image), machine.hosts()
    transport = HttpTransport(2, routes=hosts.route)
    try:
        for endpoint in await hosts.endpoints(reference.host, reference.repository):
            query = f"?ns={endpoint.namespace}" if endpoint.namespace else ""
            url = f"{endpoint.api}/{endpoint.repository}/manifests/{reference.tag}{query}"
            try:
                async with transport.send(Request("GET", url, endpoint.headers)) as response:
                    return endpoint, sha256(await read(response.pieces(), 1 << 20) or b"")
            except HostUnreachable:
                continue
    finally:
        await transport.aclose()
    raise AssertionError("no endpoint can be reached")


def asked(registry: ScriptedRegistry) -> set[tuple[str, str | None, str | None]]:
    """Where a manifest was asked for, for which registry, and with which header."""
    found = {(each.path, each.query.get("ns"), each.headers.get("x-key")) for each in registry.seen}
    registry.seen.clear()
    return {each for each in found if each[0].endswith("/manifests/1")}


def published(registry: ScriptedRegistry) -> str:
    registry.behaviours["/v2/"] = Reply()
    return registry.publish("lib/image", "1", [b"a layer"]).digest


@pytest.mark.peer("containerd")
@pytest.mark.parametrize(
    ("image", "folder", "text"),
    [
        (IMAGE, "registry.example.com", '[host."http://{0}"]\ncapabilities = ["pull", "resolve"]'),
        (IMAGE, "registry.example.com", 'server = "http://{0}"\n[host]'),
        (IMAGE, "registry.example.com", '[host."http://{0}/v2"]\noverride_path = true'),
        (IMAGE, "_default", '[host."http://{0}"]'),
        ("docker.io/lib/image:1", "docker.io", '[host."http://{0}"]\n[host."http://{0}".header]\nx-key = "value"'),
        ("registry.example.com:5000/lib/image:1", "registry.example.com_5000_", '[host."http://{0}"]'),
        ("registry.example.com:5000/lib/image:1", "registry.example.com:5000", '[host."http://{0}/v2/"]'),
        ("{0}/lib/image:1", "elsewhere.example.com", ""),
    ],
)
async def test_ctr_and_we_ask_the_same_of_the_hosts_in_hosts_toml(
    machine: Machine, ctr: Fetch, image: str, folder: str, text: str
):
    async with scripted() as registry:
        digest = published(registry)
        image = image.format(registry.host)
        machine.write(f"etc/containerd/certs.d/{folder}/hosts.toml", text.format(registry.host))
        await asyncio.to_thread(ctr, image, machine)
        theirs = asked(registry)
        endpoint, found = await ours(image, machine)
        assert asked(registry) == theirs
        assert (endpoint.host, found) == (registry.host, digest)


@pytest.mark.peer("containerd", "openssl")
@pytest.mark.parametrize("client", ['"{0}/both.pem"', '["{0}/both.pem"]', '[["{0}/client.crt", "{0}/client.key"]]'])
async def test_ctr_and_we_show_a_mirror_the_same_certificate(
    machine: Machine, ctr: Fetch, authority: Authority, client: str
):
    async with scripted(authority.server(asks=True)) as registry:
        digest = published(registry)
        machine.write(
            "etc/containerd/certs.d/registry.example.com/hosts.toml",
            f'[host."https://{registry.host}"]\nca = "{authority.certificate}"\n'
            f"client = {client.format(authority.folder)}\n",
        )
        await asyncio.to_thread(ctr, IMAGE, machine)
        assert (await ours(IMAGE, machine))[1] == digest


@pytest.mark.peer("skopeo", "openssl")
@pytest.mark.parametrize("authorities", ["ca", "between"])
async def test_skopeo_and_we_show_a_registry_the_certificate_of_its_folder(
    machine: Machine, authority: Authority, authorities: str
):
    name = {"ca": "server", "between": "below"}[authorities]
    async with scripted(authority.server(name, asks=True)) as registry:
        digest = published(registry)
        # The root alone is not read from the user's settings, but from the home folder.
        for home in ("config", ".config"):
            folder = machine.root / home / "containers/certs.d" / registry.host
            folder.mkdir(parents=True)
            for target, source in (
                ("ca.crt", authorities + ".crt"),
                ("me.cert", "client.crt"),
                ("me.key", "client.key"),
            ):
                (folder / target).write_bytes((authority.folder / source).read_bytes())
        image = f"{registry.host}/lib/image:1"
        assert await asyncio.to_thread(skopeo, image, machine) == digest
        assert (await ours(image, machine))[1] == digest


REGISTRIES_CONF = [
    '[[registry]]\nprefix = "registry.example.com"\nlocation = "{0}/copies"\ninsecure = true',
    '[[registry]]\nprefix = "registry.example.com/lib"\nlocation = "{0}/copies/lib/"\ninsecure = true',
    '[[registry]]\nprefix = "*.example.com"\nlocation = "{0}/copies"\ninsecure = true',
    '[[registry]]\nlocation = "registry.example.com"\n[[registry.mirror]]\nlocation = "{0}/copies"\ninsecure = true',
    """
    [[registry]]
    location = "registry.example.com"
    blocked = true
    [[registry]]
    prefix = "registry.example.com/lib/image"
    location = "{0}/copies/lib/image"
    insecure = true
    """,
]


@pytest.mark.peer("skopeo")
def test_skopeo_and_we_are_led_to_the_same_place_by_registries_conf(
    machine: Machine, registry_server: Callable[..., RegistryProcess]
):
    host = registry_server().host
    digest = push_image(host, "copies/lib/image", "1", [tar_layer("a", b"b")])
    for text in REGISTRIES_CONF:
        machine.write("etc/containers/registries.conf", text.format(host))
        endpoint, found = asyncio.run(ours(IMAGE, machine))
        assert (endpoint.host, endpoint.repository) == (host, "copies/lib/image")
        assert skopeo(IMAGE, machine) == found == digest


@pytest.mark.peer("skopeo")
@pytest.mark.parametrize(
    "text",
    [
        '[[registry]]\nlocation = "registry.example.com"\nblocked = true',
        '[[registry]]\nlocation = "https://registry.example.com"',
        '[[registry]]\nlocation = "registry.example.com"\ninsecure = "yes"',
        "[[registry]]\ninsecure = true",
        '[[registry]]\nlocation = "registry.example.com"\n[[registry.mirror]]\ninsecure = true',
        "registry",
    ],
)
def test_skopeo_and_we_refuse_the_same(machine: Machine, text: str):
    machine.write("etc/containers/registries.conf", text)
    with pytest.raises(ConfigurationError, match=r"registries\.conf"):
        machine.endpoints(IMAGE)
    with pytest.raises(RuntimeError):
        skopeo(IMAGE, machine)


@pytest.mark.peer("containerd")
def test_a_registry_of_ours_is_a_mirror_for_ctr_and_for_us(
    machine: Machine, ctr: Fetch, registry_server: Callable[..., RegistryProcess]
):
    host = registry_server().host
    digest = push_image(host, "lib/image", "1", [tar_layer("a", b"b")])
    machine.write("etc/containerd/certs.d/_default/hosts.toml", f'[host."http://{host}"]')
    ctr(IMAGE, machine)
    endpoint, found = asyncio.run(ours(IMAGE, machine))
    assert (endpoint.host, endpoint.namespace, found) == (host, "registry.example.com", digest)
