"""What trusted proxies tell of a request, and that nobody else tells anything."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry import context
from registry.api.forwarded import ForwardedRequests, element, node
from registry.config import Settings
from storage.memory import MemoryEngine
from tests.support.api import serving

TRUSTED = ("10.0.0.0/8", "fd00::/8", "192.0.2.1")
Fields = list[tuple[str, str]]


async def rewritten(fields: Fields, peer: tuple[str, int] | None = ("10.0.0.1", 4000)) -> dict[str, Any]:
    seen: dict[str, Any] = {}

    async def app(scope: Any, _receive: Any, _send: Any) -> None:
        seen.update(scope)

    headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in (("Host", "inner:5000"), *fields)]
    scope = {"type": "http", "client": peer, "scheme": "http", "headers": headers}
    unused: Any = None
    await ForwardedRequests(app, map(ip_network, TRUSTED))(scope, unused, unused)
    return seen


def told(seen: dict[str, Any]) -> tuple[str, str, str, str]:
    return context.address(seen), seen["scheme"], context.header(seen, b"host"), context.taken_off(seen)


UNTOLD = ("10.0.0.1:4000", "http", "inner:5000", "")


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ([], UNTOLD),
        ([("X-Forwarded-For", "203.0.113.7")], ("203.0.113.7", *UNTOLD[1:])),
        ([("X-Forwarded-For", "203.0.113.7:1234")], ("203.0.113.7", *UNTOLD[1:])),
        ([("X-Forwarded-For", "2001:db8::7")], ("2001:db8::7", *UNTOLD[1:])),
        ([("X-Forwarded-For", "[2001:db8::7]:1234")], ("2001:db8::7", *UNTOLD[1:])),
        ([("X-Forwarded-For", "::ffff:203.0.113.7")], ("203.0.113.7", *UNTOLD[1:])),
        # What the client says of itself stands left of what the proxy says of the client.
        ([("X-Forwarded-For", "198.51.100.1, 203.0.113.7")], ("203.0.113.7", *UNTOLD[1:])),
        ([("X-Forwarded-For", "198.51.100.1, 203.0.113.7, 10.9.9.9")], ("203.0.113.7", *UNTOLD[1:])),
        ([("X-Forwarded-For", "198.51.100.1"), ("X-Forwarded-For", "203.0.113.7")], ("203.0.113.7", *UNTOLD[1:])),
        # Where all are trusted, the left-most asked.
        ([("X-Forwarded-For", "10.1.1.1, fd00::1")], ("10.1.1.1", *UNTOLD[1:])),
        ([("X-Forwarded-For", "203.0.113.7, unknown, 10.9.9.9")], ("10.9.9.9", *UNTOLD[1:])),
        ([("X-Forwarded-For", "nobody")], UNTOLD),
        ([("X-Forwarded-For", "999.1.1.1")], UNTOLD),
        ([("X-Forwarded-Proto", "HTTPS")], (UNTOLD[0], "https", *UNTOLD[2:])),
        ([("X-Forwarded-Proto", "gopher")], UNTOLD),
        ([("X-Forwarded-Host", "outer.example:8443")], (*UNTOLD[:2], "outer.example:8443", "")),
        ([("X-Forwarded-Host", "outer/../example")], UNTOLD),
        ([("X-Forwarded-Prefix", "/images/")], (*UNTOLD[:3], "/images")),
        ([("X-Forwarded-Prefix", "images")], UNTOLD),
        ([("X-Forwarded-Prefix", "/../x")], UNTOLD),
        # Two proxies: the outer one's word, which the client's own cannot push away.
        (
            [
                ("X-Forwarded-For", "1.1.1.1, 203.0.113.7, 10.9.9.9"),
                ("X-Forwarded-Proto", "http, https, http"),
                ("X-Forwarded-Host", "evil.example, outer.example, middle.example"),
            ],
            ("203.0.113.7", "https", "outer.example", ""),
        ),
        (
            [("Forwarded", 'for="[2001:db8::7]:4711";proto=https;host=outer.example:8443')],
            ("2001:db8::7", "https", "outer.example:8443", ""),
        ),
        (
            [("Forwarded", "for=1.1.1.1;host=evil, For=203.0.113.7; Proto=https;by=10.9.9.9, for=10.9.9.9")],
            ("203.0.113.7", "https", "inner:5000", ""),
        ),
        # A client that opens a quote does not hide what the proxy adds.
        ([("Forwarded", 'for="1.1.1.1, for=203.0.113.7')], ("203.0.113.7", *UNTOLD[1:])),
        ([("Forwarded", "for=203.0.113.7, for=_hidden")], UNTOLD),
        # A proxy that writes the one kind hands the other on as the client sent it.
        (
            [("X-Forwarded-For", "203.0.113.7"), ("Forwarded", "for=1.1.1.1;host=evil.example;proto=https")],
            ("203.0.113.7", *UNTOLD[1:]),
        ),
    ],
)
async def test_what_a_trusted_proxy_tells_counts(fields: Fields, expected: tuple[str, str, str, str]) -> None:
    assert told(await rewritten(fields)) == expected


@pytest.mark.parametrize("peer", [("203.0.113.7", 4000), ("2001:db8::7", 4000), ("::ffff:203.0.113.7", 4000)])
async def test_what_anybody_else_tells_does_not(peer: tuple[str, int]) -> None:
    fields = [
        ("X-Forwarded-For", "198.51.100.1"),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Host", "evil.example"),
        ("X-Forwarded-Prefix", "/evil"),
        ("Forwarded", "for=198.51.100.1;proto=https;host=evil.example"),
    ]
    seen = await rewritten(fields, peer)
    assert told(seen) == (f"{peer[0]}:4000", *UNTOLD[1:])


async def test_who_comes_by_a_unix_socket_is_trusted() -> None:
    seen = await rewritten([("X-Forwarded-For", "203.0.113.7")], None)
    assert context.address(seen) == "203.0.113.7"


async def test_an_address_of_ipv4_within_ipv6_is_the_one_of_ipv4() -> None:
    seen = await rewritten([("X-Forwarded-For", "203.0.113.7")], ("::ffff:10.0.0.1", 4000))
    assert context.address(seen) == "203.0.113.7"


async def test_a_hundred_thousand_addresses_cost_nothing() -> None:
    for fields in ([("X-Forwarded-For", ",".join(["10.1.1.1"] * 100_000))], [("Forwarded", "for=10.1.1.1," * 100_000)]):
        assert context.address(await rewritten(fields)).startswith("10.")


@pytest.mark.parametrize("trusted", [[], ["192.0.2.1"], ["198.51.100.0/24"]])
async def test_locations_follow_a_trusted_proxy_only(trusted: list[str]) -> None:
    settings = Settings.model_validate({"http": {"relativeurls": False}, "layerhouse": {"trustedproxies": trusted}})
    async with serving(MemoryEngine(), settings) as api:
        given = {"Host": "inner:5000", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "outer.example"}
        begun = await api.ask("POST", "/v2/a/blobs/uploads/", headers={**given, "X-Forwarded-Prefix": "/images"})
        begins = "https://outer.example/images/v2/" if trusted == ["192.0.2.1"] else "http://inner:5000/v2/"
        assert begun.headers["location"].startswith(begins)


NAMES = st.sampled_from(["X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Forwarded-Prefix", "Forwarded"])
PIECES = st.sampled_from(
    ["for=", "host=", '"', "\\", ";", ",", "[", "]", ":", "1.2.3.4", "10.0.0.2", "::1", " ", "a", "/"]
)
VALUES = st.one_of(st.text(st.characters(max_codepoint=255)), st.lists(PIECES).map("".join))


@given(st.lists(st.tuples(NAMES, VALUES), max_size=4))
async def test_no_header_is_an_error_and_what_comes_of_it_is_sound(fields: Fields) -> None:
    seen = await rewritten(fields)
    address, scheme, host, prefix = told(seen)
    assert address == "10.0.0.1:4000" or ip_address(address)
    assert scheme in ("http", "https")
    assert len([name for name, _ in seen["headers"] if name == b"host"]) == 1
    assert host.isprintable()
    assert not set(host) & set(' ,/@\\"')
    assert prefix == "" or prefix.startswith("/")


WORDS = st.text("!#$%&'*+-.^_`|~abcXYZ019", min_size=1)


def written(value: str, quoted: bool) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"' if quoted else value


@given(st.dictionaries(st.sampled_from(["for", "by", "host", "proto", "secret"]), st.tuples(WORDS, st.booleans())))
def test_an_element_is_read_as_it_was_written(pairs: dict[str, tuple[str, bool]]) -> None:
    text = ";".join(f"{name.title()}={written(value, quoted)}" for name, (value, quoted) in pairs.items())
    assert element(text) == {name: value for name, (value, _) in pairs.items()}


@given(st.text(st.characters(max_codepoint=255), min_size=1))
def test_what_stands_in_quotes_is_read_as_it_was_meant(value: str) -> None:
    assert element(f"for={written(value, True)}") == {"for": value}


@pytest.mark.parametrize("text", ["for", "for=", "=a", "for=a b", 'for="a', "for=a;;by=b", "fo r=a", "for=é"])
def test_an_element_that_is_malformed_says_nothing(text: str) -> None:
    assert element(text) == {}


@given(st.ip_addresses(), st.integers(0, 65535))
def test_an_address_is_read_with_and_without_its_port(address: Any, port: int) -> None:
    expected = getattr(address, "ipv4_mapped", None) or address
    assert node(str(address)) == expected
    assert node(f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}") == expected
