"""registries.conf, as people write it."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.hosts.registries import matched
from ocispec.errors import ConfigurationError
from ocispec.reference import RepositoryName
from tests.support.machine import Machine

FILE = "etc/containers/registries.conf"
EXAMPLE = """
unqualified-search-registries = ["example.com"]

[[registry]]
prefix = "example.com/foo"
insecure = false
blocked = false
location = "internal.example.net/bar/"

[[registry.mirror]]
location = "mirror-0.example.net/mirror-for-foo"

[[registry.mirror]]
location = "mirror-1.example.net:5000/mirrors/foo"
insecure = true

[aliases]
"x" = "example.com/x"
"""


def test_a_prefix_leads_to_its_mirrors_and_its_location(machine: Machine):
    machine.write(FILE, EXAMPLE)
    assert machine.places("example.com/foo/image") == [
        "https://mirror-0.example.net/v2/mirror-for-foo/image",
        "https://mirror-1.example.net:5000/v2/mirrors/foo/image",
        "http://mirror-1.example.net:5000/v2/mirrors/foo/image",
        "https://internal.example.net/v2/bar/image",
    ]
    assert [each.mirror for each in machine.endpoints("example.com/foo/image")] == [True, True, True, False]
    assert machine.places("example.com/foobar") == ["https://example.com/v2/foobar"]


async def test_insecure_takes_any_certificate(machine: Machine):
    machine.write(FILE, EXAMPLE)
    hosts = machine.hosts()
    await hosts.endpoints("example.com", RepositoryName("foo/image"))
    found = {name: await hosts.route("https", name, port)
             for name, port in (("mirror-0.example.net", None), ("mirror-1.example.net", 5000))}  # fmt: skip
    assert [each.tls.verified for each in found.values()] == [True, False]


def test_an_insecure_registry_may_speak_http(machine: Machine):
    machine.write(FILE, '[[registry]]\nlocation = "r.example.com:5000"\ninsecure = true')
    assert machine.places("r.example.com:5000/a") == [
        "https://r.example.com:5000/v2/a",
        "http://r.example.com:5000/v2/a",
    ]


def test_docker_hub_is_mirrored_by_its_whole_name(machine: Machine):
    machine.write(
        FILE,
        """
        [[registry]]
        prefix = "docker.io"
        location = "docker.io"
        [[registry.mirror]]
        location = "127.0.0.1:5000/hub"
        [[registry]]
        prefix = "docker.io/library"
        location = "quay.io/official"
        """,
    )
    assert machine.places("me/node") == [
        "http://127.0.0.1:5000/v2/hub/me/node",
        "https://registry-1.docker.io/v2/me/node",
    ]
    assert machine.places("node") == ["https://quay.io/v2/official/node"]


@pytest.mark.parametrize(
    ("image", "place"),
    [
        ("a.example.com/x", "https://one.example.net/v2/x"),
        ("b.a.example.com/x", "https://one.example.net/v2/x"),
        ("a.example.com/deep/x", "https://two.example.net/v2/x"),
        ("kept.example.com/x", "https://kept.example.com/v2/x"),
        ("example.com/x", "https://example.com/v2/x"),
        ("a.example.com.evil.org/x", "https://a.example.com.evil.org/v2/x"),
        ("a.example.com:5000/x", "https://a.example.com:5000/v2/x"),
    ],
)
def test_a_star_stands_for_all_hosts_below_a_domain(machine: Machine, image: str, place: str):
    machine.write(
        FILE,
        """
        [[registry]]
        prefix = "*.example.com"
        location = "one.example.net"
        [[registry]]
        prefix = "*.example.com/deep"
        location = "two.example.net"
        [[registry]]
        prefix = "kept.example.com"
        """,
    )
    assert machine.places(image) == [place]


def test_a_mirror_may_be_for_tags_or_for_digests_only(machine: Machine):
    machine.write(
        FILE,
        """
        [[registry]]
        location = "r.example.com"
        [[registry.mirror]]
        location = "all.example.com"
        [[registry.mirror]]
        location = "digests.example.com"
        pull-from-mirror = "digest-only"
        [[registry.mirror]]
        location = "tags.example.com"
        pull-from-mirror = "tag-only"
        [[registry]]
        location = "s.example.com"
        mirror-by-digest-only = true
        [[registry.mirror]]
        location = "m.example.com"
        """,
    )
    trusted = {each.host.split(".")[0]: (each.resolves, each.serves) for each in machine.endpoints("r.example.com/a")}
    assert trusted == {"all": (True, True), "digests": (False, True), "tags": (True, False), "r": (True, True)}
    mirror, own = machine.endpoints("s.example.com/a")
    assert (mirror.resolves, own.resolves) == (False, True)


def test_a_blocked_registry_is_refused_by_the_file_that_blocks_it(machine: Machine):
    file = machine.write(FILE, '[[registry]]\nlocation = "bad.example.com"\nblocked = true')
    with pytest.raises(ConfigurationError) as caught:
        machine.endpoints("bad.example.com/a")
    assert caught.value.message == f"bad.example.com/a is blocked by {file}, prefix 'bad.example.com'"
    assert machine.places("example.com/a") == ["https://example.com/v2/a"]


def location(of: str) -> str:
    return f'[[registry]]\nprefix = "r.example.com"\nlocation = "{of}.example.com"'


def test_the_users_file_stands_in_place_of_the_machines(machine: Machine):
    machine.write(FILE, location("system"))
    assert machine.endpoints("r.example.com/a")[0].host == "system.example.com"
    machine.write("etc/containers/registries.conf.d/50.conf", location("dropped-in"))
    machine.write("etc/containers/registries.conf.d/60.conf.off", location("off"))
    assert machine.endpoints("r.example.com/a")[0].host == "dropped-in.example.com"
    machine.write("config/containers/registries.conf.d/10.conf", location("user-dropped-in"))
    assert machine.endpoints("r.example.com/a")[0].host == "user-dropped-in.example.com"
    (machine.root / "config/containers/registries.conf.d/10.conf").unlink()
    machine.write("config/containers/registries.conf", location("user"))
    assert machine.endpoints("r.example.com/a")[0].host == "user.example.com"


def test_the_environment_chooses_the_file(machine: Machine):
    machine.write("config/containers/registries.conf", location("user"))
    chosen = machine.write("chosen.conf", location("chosen"))
    machine.environ = {"CONTAINERS_REGISTRIES_CONF": str(chosen)}
    assert machine.endpoints("r.example.com/a")[0].host == "chosen.example.com"
    chosen.unlink()
    with pytest.raises(ConfigurationError, match=r"^CONTAINERS_REGISTRIES_CONF: .*/chosen.conf does not exist$"):
        machine.endpoints("r.example.com/a")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("registry = 1", ": registry: expected tables in double brackets$"),
        ("registry = [1]", ": registry: expected tables in double brackets$"),
        ("[registry]", ": registry: expected tables in double brackets$"),
        ("[[registry]]", r": registry\[0\].location: expected a location or a prefix$"),
        ("[[registry]]\nlocation = 1", r": registry\[0\].location: expected a string$"),
        ('[[registry]]\nlocation = "https://x.example.com"', r": registry\[0\].location: expected host"),
        ('[[registry]]\nlocation = "me:secret@x.example.com"', r": registry\[0\].location: expected host"),
        ('[[registry]]\nlocation = "x"\ninsecure = 1', r": registry\[0\].insecure: expected true or false$"),
        ('[[registry]]\nlocation = "x"\nmirror = "y"', r": registry\[0\].mirror: expected tables in double brackets$"),
        ('[[registry]]\nlocation = "x"\n[[registry.mirror]]\ninsecure = true',
         r": registry\[0\].mirror\[0\].location: expected host\[:port\]\[/path\]$"),
        ('[[registry]]\nlocation = "x"\n[[registry.mirror]]\nlocation = "y"\npull-from-mirror = "none"',
         r": registry\[0\].mirror\[0\].pull-from-mirror: expected all, digest-only, tag-only$"),
        ('[[registry]]\nprefix = "r.example.com"\nlocation = "UP/x y"',
         r": registry\[0\].location: r.example.com/a becomes 'UP/x y/a', expected an image's name$"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_by_file_and_key(machine: Machine, text: str, message: str):
    file = machine.write(FILE, text)
    with pytest.raises(ConfigurationError, match=f"^{re.escape(str(file))}{message}") as caught:
        machine.endpoints("r.example.com/a")
    assert "secret" not in caught.value.message


hosts = st.sampled_from(["a.b", "x.a.b", "xa.b", "y.x.a.b", "a.b:5", "x.a.b:5", "b"])
paths = st.lists(st.sampled_from(["a", "ab", "b"]), min_size=1, max_size=3).map("/".join)


@given(host=hosts, repository=paths, prefixed=st.tuples(hosts, st.booleans()), below=st.none() | paths)
def test_a_prefix_matches_whole_components_alone(host: str, repository: str, prefixed: tuple, below: str | None):
    wanted, star = prefixed
    prefix = ("*." if star else "") + wanted + (f"/{below}" if below else "")
    # The same by components: of the host's labels any number more than none may be in front, where there is a star.
    labels, last = host.split("."), wanted.split(".")
    fits_host = (labels[-len(last) :] == last and len(labels) > len(last)) if star else labels == last
    parts = below.split("/") if below else []
    fits = fits_host and repository.split("/")[: len(parts)] == parts
    length = matched(prefix, host, repository)
    assert bool(length) == fits
    if fits:
        assert f"{host}/{repository}"[:length] == "/".join([host, *parts])
