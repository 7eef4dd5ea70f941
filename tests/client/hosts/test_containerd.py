"""hosts.toml, as people write it."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from client.hosts.endpoint import Tls
from ocispec.errors import ConfigurationError
from ocispec.reference import RepositoryName
from tests.support.machine import Machine

FOLDER = "etc/containerd/certs.d"


def test_hosts_are_asked_in_the_files_order_and_the_server_last(machine: Machine):
    machine.write(
        f"{FOLDER}/docker.io/hosts.toml",
        """
        server = "https://registry-1.docker.io"

        [host."https://public.example.com"]
          capabilities = ["pull"]           # not trusted with tags

        [host."http://192.168.31.250:5000"]
          capabilities = ["Pull", "resolve", "push"]

        [host."cache.example.com/hub"]
        """,
    )
    assert machine.places("node") == [
        "https://public.example.com/v2/library/node?ns=docker.io",
        "http://192.168.31.250:5000/v2/library/node?ns=docker.io",
        "https://cache.example.com/hub/v2/library/node?ns=docker.io",
        "https://registry-1.docker.io/v2/library/node",
    ]
    trusted = [(each.resolves, each.serves, each.pushes) for each in machine.endpoints("node")]
    assert trusted == [(False, True, False), (True, True, True), (True, True, True), (True, True, True)]


def test_a_default_is_for_registries_without_a_folder(machine: Machine):
    machine.write(f"{FOLDER}/_default/hosts.toml", '[host."https://m.example.com"]')
    machine.write(f"{FOLDER}/own.example.com/README")
    assert machine.places("r.example.com:5000/a") == [
        "https://m.example.com/v2/a?ns=r.example.com:5000",
        "https://r.example.com:5000/v2/a",
    ]
    assert machine.places("own.example.com/a") == ["https://own.example.com/v2/a"]


def test_a_server_elsewhere_takes_the_registrys_place(machine: Machine):
    machine.write(f"{FOLDER}/_default/hosts.toml", 'server = "https://all.example.com/mirror"')
    (only,) = machine.endpoints("quay.io/a/b")
    assert machine.places("quay.io/a/b") == ["https://all.example.com/mirror/v2/a/b?ns=quay.io"]
    assert (only.mirror, only.login) == (False, "all.example.com")


@pytest.mark.parametrize(
    ("host", "folders"),
    [
        ("r.example.com:5000", ["r.example.com_5000_", "r.example.com:5000", "_default"]),
        ("r.example.com", ["r.example.com", "_default"]),
        ("[::2]:5000", ["[::2]_5000_", "[::2]:5000", "_default"]),
    ],
)
def test_folders_are_looked_up_as_containerd_does(machine: Machine, host: str, folders: list[str]):
    for n, folder in reversed(list(enumerate(folders))):
        machine.write(f"{FOLDER}/{folder}/hosts.toml", f'[host."https://m{n}.example.com"]')
        assert machine.endpoints(f"{host}/a")[0].host == f"m{n}.example.com"
    machine.write(f"config/containerd/certs.d/{folders[0]}/hosts.toml", '[host."https://mine.example.com"]')
    assert machine.endpoints(f"{host}/a")[0].host == "mine.example.com"


@pytest.mark.parametrize(
    ("server", "override", "api"),
    [
        ("https://r.example.com/custom", "true", "https://r.example.com/custom"),
        ("https://r.example.com/custom/", "false", "https://r.example.com/custom/v2"),
        ("https://r.example.com/custom/v2", "false", "https://r.example.com/custom/v2"),
        ("https://r.example.com", "true", "https://r.example.com"),
        ("r.example.com", "false", "https://r.example.com/v2"),
        ("http://r.example.com:80", "false", "http://r.example.com:80/v2"),
    ],
)
def test_a_path_leads_to_the_api_or_is_it(machine: Machine, server: str, override: str, api: str):
    machine.write(f"{FOLDER}/x.example.com/hosts.toml", f'server = "{server}"\noverride_path = {override}')
    assert machine.endpoints("x.example.com/a")[0].api == api


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ('ca = "ca.pem"', Tls(("ca.pem",))),
        ('ca = ["ca.pem", "/etc/other.pem"]', Tls(("ca.pem", "/etc/other.pem"))),
        ('client = "both.pem"', Tls((), (("both.pem", "both.pem"),))),
        ('client = ["a.pem", "b.pem"]', Tls((), (("a.pem", "a.pem"), ("b.pem", "b.pem")))),
        ('client = [["a.cert", "/k/a.key"], ["b.pem", ""]]', Tls((), (("a.cert", "/k/a.key"), ("b.pem", "b.pem")))),
        ("skip_verify = true", Tls(verified=False)),
        ("skip_verify = false", Tls()),
        ('dial_timeout = "1s"\nlater = 1', Tls()),
    ],
)
@pytest.mark.parametrize("heading", ["", '[host."https://m.example.com"]\n'])
async def test_tls_is_read_for_server_and_host(machine: Machine, heading: str, lines: str, expected: Tls):
    folder = machine.write(f"{FOLDER}/r.example.com/hosts.toml", heading + lines).parent
    hosts = machine.hosts()
    await hosts.endpoints("r.example.com", RepositoryName("a"))
    told, other = ("m.example.com", "r.example.com") if heading else ("r.example.com", "m.example.com")
    assert (await hosts.route("https", told, None)).tls == replace(
        expected,
        authorities=tuple(folder / each for each in expected.authorities),
        identities=tuple((folder / each, folder / key) for each, key in expected.identities),
    )
    assert (await hosts.route("https", other, None)).tls == Tls()


def test_headers_are_sent_to_their_host(machine: Machine):
    machine.write(
        f"{FOLDER}/r.example.com/hosts.toml",
        """
        [header]
          x-own = "o"
        [host."https://m.example.com"]
        [host."https://m.example.com".header]
          x-one = "a value"
          x-two = ["1", "2"]
        """,
    )
    mirror, own = machine.endpoints("r.example.com/a")
    assert mirror.headers == {"x-one": "a value", "x-two": "1, 2"}
    assert own.headers == {"x-own": "o"}


async def test_a_folder_without_the_file_holds_certificates(machine: Machine):
    folder = machine.root / FOLDER / "r.example.com"
    for name in ("ca.crt", "own.cert", "pair.cert", "pair.key", "hosts.toml"):
        machine.write(f"{FOLDER}/r.example.com/{name}")
    hosts = machine.hosts()
    await hosts.endpoints("r.example.com", RepositoryName("a"))
    assert (await hosts.route("https", "r.example.com", None)).tls == Tls(
        (folder / "ca.crt",),
        ((folder / "own.cert", folder / "own.cert"), (folder / "pair.cert", folder / "pair.key")),
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("server 1\n", r" is no TOML: .* line 1, column"),
        ("server = 1", ": server: expected a string$"),
        ('server = "ftp://x"', r": server: expected https://host\[:port\]\[/path\], not 'ftp://x'$"),
        ("host = 1", ": host: expected a table$"),
        ("[[host]]", ": host: expected a table$"),
        ('[host]\n"https://m" = 1', ': host."https://m": expected a table$'),
        ('[host."https://m:x"]', r': host."https://m:x": expected https://host\[:port\]\[/path\], not \'https://m:x\'$'),
        ('capabilities = "pull"\n[host."https://m"]\ncapabilities = ["pul"]',
         ': host."https://m".capabilities: expected pull, resolve, push$'),
        ("capabilities = [1]", ": capabilities: expected a string or a list of strings$"),
        ("ca = 1", ": ca: expected a string or a list of strings$"),
        ("client = 1", ": client: expected a file, a list of files, or a list of pairs of certificate and key$"),
        ('client = [["a", "b", "c"]]', ": client: expected a file"),
        ('skip_verify = "yes"', ": skip_verify: expected true or false$"),
        ("override_path = 1\nserver = 'x'", ": override_path: expected true or false$"),
        ("header = 1", ": header: expected a table$"),
        ("[header]\nx-key = 1", ": header.x-key: expected a string or a list of strings$"),
        ('[header]\nx-key = "secret\\r\\nHost: x"',
         ": header.x-key: expected a header's name, and a value on one line$"),
        ('[header]\n"x key" = "secret"', ': header."x key": expected a header\'s name'),
        ('proxy = "socks5://user:secret@p"', ": proxy names a proxy of scheme 'socks5': expected http"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_by_file_and_key(machine: Machine, text: str, message: str):
    file = machine.write(f"{FOLDER}/r.example.com/hosts.toml", text)
    with pytest.raises(ConfigurationError, match=f"^{re.escape(str(file))}{message}") as caught:
        machine.endpoints("r.example.com/a")
    assert "secret" not in caught.value.message
    assert "\n" not in caught.value.message


def test_a_file_that_cannot_be_read_is_told(machine: Machine):
    (machine.root / FOLDER / "r.example.com/hosts.toml").mkdir(parents=True)
    with pytest.raises(ConfigurationError, match=r"hosts.toml cannot be read: Is a directory$"):
        machine.endpoints("r.example.com/a")
