"""Where a repository is asked for, in which order, and over which connections."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from client.hosts.endpoint import Endpoint, Route, Tls
from client.hosts.hosts import Folders, Hosts
from ocispec.errors import ConfigurationError
from ocispec.reference import RepositoryName
from tests.support.machine import Machine


@pytest.fixture
def nobody(tmp_path: Path) -> Iterator[Callable[[Path], None]]:
    """Closes a file or folder to this user, who is no longer root for the rest of the test."""
    user, closed = os.geteuid(), []

    def close(path: Path) -> None:
        closed.append(path)
        path.chmod(0)
        if user == 0:
            for folder in (tmp_path, *tmp_path.parents):
                if folder.owner() == "root" and not folder.stat().st_mode & 1:
                    closed_modes[folder] = folder.stat().st_mode
                    folder.chmod(folder.stat().st_mode | 0o011)
            os.seteuid(65534)

    closed_modes: dict[Path, int] = {}
    yield close
    os.seteuid(user)
    for folder, mode in closed_modes.items():
        folder.chmod(mode)
    for path in closed:
        path.chmod(0o700)


HUB = "https://registry-1.docker.io/v2/library/node"


@pytest.mark.parametrize(
    ("image", "place"),
    [
        ("node", HUB),
        ("index.docker.io/node", HUB),
        ("registry.example.com/a/b", "https://registry.example.com/v2/a/b"),
        ("registry.example.com:5000/a", "https://registry.example.com:5000/v2/a"),
        ("localhost/a", "http://localhost/v2/a"),
        ("localhost:5000/a", "http://localhost:5000/v2/a"),
        ("127.0.0.1:5000/a", "http://127.0.0.1:5000/v2/a"),
        ("127.9.8.7:5000/a", "http://127.9.8.7:5000/v2/a"),
        ("[::1]:5000/a", "http://[::1]:5000/v2/a"),
        ("127.0.0.1.example.com/a", "https://127.0.0.1.example.com/v2/a"),
        ("127.0.0.256:5000/a", "https://127.0.0.256:5000/v2/a"),
        ("[::2]:5000/a", "https://[::2]:5000/v2/a"),
    ],
)
def test_a_registry_is_asked_itself_by_https_and_this_machine_by_http(machine: Machine, image: str, place: str):
    assert machine.places(image) == [place]


def test_docker_hub_has_one_name_for_logins_and_one_for_messages(machine: Machine):
    (hub,) = machine.endpoints("node")
    assert (hub.login, hub.host, hub.repository, hub.mirror) == (
        "docker.io",
        "registry-1.docker.io",
        "library/node",
        False,
    )
    (other,) = machine.endpoints("quay.io/a/b")
    assert (other.login, other.host) == ("quay.io", "quay.io")


def test_plain_http_and_insecure_change_how_the_registry_is_reached(machine: Machine):
    assert machine.places("r.example.com:5000/a", plain_http=True) == ["http://r.example.com:5000/v2/a"]
    both = ["https://r.example.com:5000/v2/a", "http://r.example.com:5000/v2/a"]
    assert machine.places("r.example.com:5000/a", insecure=True) == both
    assert machine.places("localhost:5000/a", insecure=True) == [
        "https://localhost:5000/v2/a",
        "http://localhost:5000/v2/a",
    ]
    assert machine.places("r.example.com/a", insecure=True, plain_http=True) == ["http://r.example.com/v2/a"]


@pytest.mark.parametrize(
    ("mirror", "place"),
    [
        ("https://m.example.com", "https://m.example.com/v2/library/node?ns=docker.io"),
        ("https://M.example.com:5000/", "https://m.example.com:5000/v2/library/node?ns=docker.io"),
        ("http://m.example.com/hub/", "http://m.example.com/hub/v2/library/node?ns=docker.io"),
        ("https://m.example.com/v2/", "https://m.example.com/v2/library/node?ns=docker.io"),
        ("m.example.com:5000", "https://m.example.com:5000/v2/library/node?ns=docker.io"),
        ("127.0.0.1:5000", "http://127.0.0.1:5000/v2/library/node?ns=docker.io"),
        ("https://[::2]:5000", "https://[::2]:5000/v2/library/node?ns=docker.io"),
    ],
)
def test_a_mirror_is_asked_before_the_registry_and_told_which_it_is(machine: Machine, mirror: str, place: str):
    asked, hub = machine.endpoints("node", mirrors=(mirror,))
    assert machine.places("node", mirrors=(mirror,)) == [place, HUB]
    assert asked.mirror
    assert not hub.mirror
    assert asked.login == asked.host in mirror.lower()


def test_a_mirror_without_a_scheme_is_reached_as_the_call_says(machine: Machine):
    mirrors = ("m.example.com", "https://n.example.com")
    assert machine.places("r.example.com/a", mirrors=mirrors, plain_http=True) == [
        "http://m.example.com/v2/a?ns=r.example.com",
        "https://n.example.com/v2/a?ns=r.example.com",
        "http://r.example.com/v2/a",
    ]
    assert machine.places("r.example.com/a", mirrors=mirrors, insecure=True)[:3] == [
        "https://m.example.com/v2/a?ns=r.example.com",
        "http://m.example.com/v2/a?ns=r.example.com",
        "https://n.example.com/v2/a?ns=r.example.com",
    ]


@pytest.mark.parametrize(
    "mirror",
    ["", "https://", "ftp://m", "https://m:0", "https://m:99999", "https://m:", "https://m/x?y", "https://m#x", "a b",
     "https://mé", "https://[::1", "http://m\n", "/path"],
)  # fmt: skip
def test_a_mirror_that_is_no_url_is_told(machine: Machine, mirror: str):
    with pytest.raises(ConfigurationError, match=r"^--mirror: expected https://host\[:port\]\[/path\], not "):
        machine.endpoints("node", mirrors=(mirror,))


def test_a_mirror_with_a_password_is_refused_without_showing_it(machine: Machine):
    with pytest.raises(ConfigurationError, match=r"^--mirror: expected a URL without credentials$"):
        machine.endpoints("node", mirrors=("https://user:secret@m.example.com",))


def all_sources(machine: Machine) -> None:
    machine.write(
        "etc/containerd/certs.d/r.example.com/hosts.toml",
        'server = "https://upstream.example.com"\n[host."https://two.example.com"]\n[host."https://one.example.com"]\n',
    )
    machine.write(
        "etc/containers/registries.conf",
        '[[registry]]\nlocation = "r.example.com"\n[[registry.mirror]]\nlocation = "three.example.com/copy"\n'
        '[[registry.mirror]]\nlocation = "one.example.com"\n',
    )


def test_mirrors_are_asked_in_the_order_of_call_containerd_and_containers_each_once(machine: Machine):
    all_sources(machine)
    assert machine.places("r.example.com/a", mirrors=("https://one.example.com", "zero.example.com")) == [
        "https://one.example.com/v2/a?ns=r.example.com",
        "https://zero.example.com/v2/a?ns=r.example.com",
        "https://two.example.com/v2/a?ns=r.example.com",
        "https://three.example.com/v2/copy/a",
        "https://upstream.example.com/v2/a?ns=r.example.com",
    ]


def test_a_location_of_containers_comes_before_a_server_of_containerd(machine: Machine):
    all_sources(machine)
    machine.write(
        "etc/containers/registries.conf",
        '[[registry]]\nprefix = "r.example.com"\nlocation = "moved.example.com/all"\n',
    )
    assert machine.places("r.example.com/a")[-1] == "https://moved.example.com/v2/all/a"


def test_the_registry_itself_is_no_mirror_of_its_own(machine: Machine):
    machine.write(
        "etc/containerd/certs.d/docker.io/hosts.toml",
        'server = "https://docker.io"\n[host."https://registry-1.docker.io"]\ncapabilities = ["pull", "resolve"]\n',
    )
    assert machine.places("node", mirrors=("https://registry-1.docker.io",)) == [HUB]
    assert not machine.endpoints("node")[0].mirror


async def test_files_are_read_once_and_for_any_number_of_callers(machine: Machine):
    all_sources(machine)
    hosts = machine.hosts()
    asked = [hosts.endpoints("r.example.com", RepositoryName(name)) for name in ("a", "b", "a")]
    first, second, third = await asyncio.gather(*asked)
    assert first == third != second
    machine.write("etc/containerd/certs.d/r.example.com/hosts.toml", "now = wrong")
    machine.write("etc/containers/registries.conf", "so is this")
    assert await hosts.endpoints("r.example.com", RepositoryName("a")) == first


async def test_nothing_is_read_before_it_is_needed(machine: Machine):
    machine.write("etc/containers/registries.conf", "is wrong")
    hosts = machine.hosts(mirrors=("is wrong",))
    assert await hosts.route("https", "cdn.example.com", None) == Route()
    with pytest.raises(ConfigurationError, match=r"etc/containers/registries.conf is no TOML: .*line 1, column"):
        await hosts.endpoints("docker.io", RepositoryName("library/node"))


async def test_a_registry_is_reached_with_the_certificates_of_its_folder(machine: Machine):
    for name in ("ca.crt", "client.cert", "client.key", "README"):
        machine.write(f"etc/docker/certs.d/r.example.com:5000/{name}")
    folder = machine.root / "etc/docker/certs.d/r.example.com:5000"
    tls = Tls((folder / "ca.crt",), ((folder / "client.cert", folder / "client.key"),))
    hosts = machine.hosts()
    assert await hosts.route("https", "r.example.com", 5000) == Route(tls)
    await hosts.endpoints("r.example.com:5000", RepositoryName("a"))
    assert await hosts.route("https", "R.example.com", 5000) == Route(tls)
    assert await hosts.route("http", "r.example.com", 80) == Route()
    assert await hosts.route("https", "r.example.com", 5001) == Route()
    assert await hosts.route("https", "r.example.com", None) == Route()
    insecure = machine.hosts(insecure=True)
    await insecure.endpoints("r.example.com:5000", RepositoryName("a"))
    assert (await insecure.route("https", "r.example.com", 5000)).tls.verified is False


@pytest.mark.parametrize(
    ("folder", "host", "port"),
    [
        ("config/containers/certs.d/r.example.com", "r.example.com", None),
        ("etc/containers/certs.d/r.example.com:443", "r.example.com", 443),
        ("config/docker/certs.d/r.example.com", "r.example.com", 443),
        ("etc/docker/certs.d/docker.io", "registry-1.docker.io", None),
        ("etc/docker/certs.d/[::2]:5000", "::2", 5000),
        ("etc/docker/certs.d/[::2]", "[::2]", None),
    ],
)
async def test_folders_of_certificates_are_found_by_any_name_of_the_host(
    machine: Machine, folder: str, host: str, port: int | None
):
    authority = machine.write(f"{folder}/ca.crt")
    assert await machine.hosts().route("https", host, port) == Route(Tls((authority,)))


async def test_of_several_folders_the_first_counts_as_for_containers(machine: Machine):
    machine.write("etc/docker/certs.d/r.example.com/docker.crt")
    second = machine.write("etc/containers/certs.d/r.example.com/system.crt")
    assert (await machine.hosts().route("https", "r.example.com", None)).tls.authorities == (second,)
    first = machine.write("config/containers/certs.d/r.example.com/user.crt")
    assert (await machine.hosts().route("https", "r.example.com", None)).tls.authorities == (first,)


@pytest.mark.parametrize(
    "file",
    [
        "etc/docker/certs.d/localhost:5000/ca.crt",
        "etc/containerd/certs.d/localhost_5000_/ca.crt",
        "etc/containerd/certs.d/localhost:5000/client.cert",
    ],
)
def test_this_machine_is_reached_by_https_where_there_are_certificates_for_it(machine: Machine, file: str):
    machine.write(file)
    assert machine.places("localhost:5000/a") == ["https://localhost:5000/v2/a"]


def test_this_machine_is_reached_by_https_where_hosts_toml_says_so(machine: Machine):
    machine.write("etc/docker/certs.d/localhost:5000/README")
    assert machine.places("localhost:5000/a") == ["http://localhost:5000/v2/a"]
    machine.write("etc/containerd/certs.d/localhost_5000_/hosts.toml", 'server = "https://localhost:5000"')
    assert machine.places("localhost:5000/a") == ["https://localhost:5000/v2/a"]
    assert machine.places("localhost:5000/a", plain_http=True) == ["http://localhost:5000/v2/a"]


async def test_what_a_registry_leads_to_is_trusted_as_it_is_and_shown_no_client_certificate(machine: Machine):
    for name in ("ca.crt", "client.cert", "client.key"):
        machine.write(f"etc/docker/certs.d/r.example.com/{name}")
    own = machine.write("etc/docker/certs.d/own.example.com/ca.crt")
    hosts, behind = machine.hosts(), "https://r.example.com/v2/a/blobs/x"
    await hosts.endpoints("r.example.com", RepositoryName("a"))
    (authority,) = (await hosts.route("https", "r.example.com", None, behind=behind)).tls.authorities
    assert await hosts.route("https", "cdn.example.com", None) == Route()
    assert await hosts.route("https", "cdn.example.com", None, behind=behind) == Route(Tls((authority,)))
    assert await hosts.route("https", "own.example.com", None, behind=behind) == Route(Tls((own,)))
    assert await hosts.route("https", "cdn.example.com", None, behind="https://other.example.com/") == Route()
    assert await hosts.route("http", "cdn.example.com", None, behind=behind) == Route()


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_insecure_holds_where_a_registry_leads_to_and_nowhere_else(machine: Machine, scheme: str):
    hosts = machine.hosts(insecure=True)
    await hosts.endpoints("r.example.com", RepositoryName("a"))
    led = await hosts.route("https", "cdn.example.com", None, behind=f"{scheme}://r.example.com/v2/")
    assert led == Route(Tls(verified=False))
    assert await hosts.route("https", "elsewhere.example.com", None) == Route()


async def test_a_proxy_is_used_where_the_environment_says_so(machine: Machine):
    machine.environ = {"HTTPS_PROXY": "http://user:secret@proxy:3128", "NO_PROXY": "r.example.com"}
    hosts = machine.hosts()
    route = await hosts.route("https", "q.example.com", None)
    assert route.proxy == "http://user:secret@proxy:3128"
    assert "secret" not in repr(route)
    assert await hosts.route("https", "r.example.com", None) == Route()
    assert await hosts.route("http", "q.example.com", None) == Route()


async def test_a_proxy_of_hosts_toml_is_for_its_host_whatever_the_environment_says(machine: Machine):
    machine.environ = {"NO_PROXY": "*"}
    machine.write(
        "etc/containerd/certs.d/r.example.com/hosts.toml",
        '[host."http://m.example.com"]\nproxy = "proxy:3128"\n[host."https://n.example.com"]\n',
    )
    hosts = machine.hosts()
    await hosts.endpoints("r.example.com", RepositoryName("a"))
    assert await hosts.route("http", "m.example.com", None) == Route(proxy="http://proxy:3128")
    assert await hosts.route("https", "n.example.com", None) == Route()
    behind = "http://m.example.com/v2/"
    assert await hosts.route("https", "cdn.example.com", None, behind=behind) == Route()


async def test_what_several_files_tell_of_one_host_holds_together(machine: Machine):
    for registry, line in (("a.example.com", 'ca = "/a.pem"'), ("b.example.com", 'ca = "/b.pem"\nskip_verify = true')):
        machine.write(f"etc/containerd/certs.d/{registry}/hosts.toml", f'[host."https://m.example.com"]\n{line}\n')
    hosts = machine.hosts()
    for registry in ("a.example.com", "b.example.com"):
        await hosts.endpoints(registry, RepositoryName("a"))
    assert (await hosts.route("https", "m.example.com", None)).tls == Tls(
        (Path("/a.pem"), Path("/b.pem")), verified=False
    )


def test_endpoints_and_routes_are_values(machine: Machine):
    machine.write(
        "etc/containerd/certs.d/_default/hosts.toml", '[host."https://m.example.com".header]\nx-key = "secret"\n'
    )
    first, second = machine.endpoints("node"), machine.endpoints("node")
    assert first == second
    assert len({*first, *second}) == 2
    assert first[0].headers == {"x-key": "secret"}
    assert "secret" not in repr(first)
    assert hash(Route(Tls((Path("a"),)))) == hash(Route(Tls((Path("a"),))))
    assert isinstance(first[0], Endpoint)


@pytest.mark.parametrize(
    ("environ", "user"),
    [
        ({"XDG_CONFIG_HOME": "/x", "HOME": "/h"}, "/x"),
        ({"HOME": "/h"}, "/h/.config"),
        ({"XDG_CONFIG_HOME": "", "HOME": "/h"}, "/h/.config"),
    ],
)
def test_the_users_folders_are_where_the_environment_says(environ: dict[str, str], user: str):
    folders = Folders.of(environ)
    assert (folders.user, folders.system) == (Path(user), Path("/etc"))
    assert folders.certificates == tuple(
        map(Path, (f"{user}/containers/certs.d", "/etc/containers/certs.d",
                   f"{user}/docker/certs.d", "/etc/docker/certs.d"))
    )  # fmt: skip
    assert Folders.of({}).user.is_absolute()


def test_folders_that_are_closed_to_this_user_are_as_good_as_none(machine: Machine, nobody: Callable[[Path], None]):
    all_sources(machine)
    machine.write("etc/docker/certs.d/r.example.com/ca.crt")
    machine.write("etc/containers/registries.conf.d/1.conf", "is wrong")
    nobody(machine.root / "etc")
    hosts = machine.hosts()
    assert machine.places("r.example.com/a") == ["https://r.example.com/v2/a"]
    assert asyncio.run(hosts.route("https", "r.example.com", None)) == Route()


def test_a_file_that_is_closed_to_this_user_is_told(machine: Machine, nobody: Callable[[Path], None]):
    nobody(machine.write("etc/containers/registries.conf"))
    with pytest.raises(ConfigurationError, match=r"etc/containers/registries.conf cannot be read: Permission denied$"):
        machine.endpoints("node")


def test_this_machine_as_it_is_can_be_asked():
    assert asyncio.run(Hosts(environ={}).endpoints("localhost:1", RepositoryName("a")))[-1].mirror is False
