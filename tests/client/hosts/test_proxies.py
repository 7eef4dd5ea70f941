"""Which proxy leads to a host, and which hosts need none."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.hosts.proxies import bypassed, choose, parse
from ocispec.errors import ConfigurationError


@pytest.mark.parametrize(
    ("environ", "http", "https"),
    [
        ({}, None, None),
        ({"HTTP_PROXY": "http://a"}, "http://a:80", None),
        ({"https_proxy": "a:3128"}, None, "http://a:3128"),
        ({"HTTPS_PROXY": "http://a", "https_proxy": "http://b"}, None, "http://a:80"),
        ({"HTTPS_PROXY": "", "https_proxy": "http://b"}, None, "http://b:80"),
        ({"ALL_PROXY": "http://a", "HTTPS_PROXY": "https://b"}, "http://a:80", "https://b:443"),
        ({"all_proxy": "http://a"}, "http://a:80", "http://a:80"),
        ({"ALL_PROXY": "http://a", "NO_PROXY": "*"}, None, None),
        ({"ALL_PROXY": "http://a", "no_proxy": "example.com"}, None, None),
        ({"ALL_PROXY": "http://a", "NO_PROXY": "", "no_proxy": "x,.com"}, None, None),
        ({"ALL_PROXY": "http://a", "NO_PROXY": "other.com"}, "http://a:80", "http://a:80"),
        ({"HTTP_PROXY": "http://a", "REQUEST_METHOD": "GET"}, None, None),
        ({"HTTP_PROXY": "http://a", "http_proxy": "http://b", "REQUEST_METHOD": "GET"}, "http://b:80", None),
        ({"HTTPS_PROXY": "http://a", "REQUEST_METHOD": "GET"}, None, "http://a:80"),
    ],
)
def test_a_proxy_is_chosen_by_the_scheme(environ: dict[str, str], http: str | None, https: str | None):
    assert choose(environ, "http", "example.com", 80) == http
    assert choose(environ, "https", "example.com", 443) == https


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST", "127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1"])
def test_this_machine_is_reached_without_a_proxy(host: str):
    assert choose({"ALL_PROXY": "http://a"}, "http", host, 5000) is None


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("proxy", "http://proxy:80"),
        ("proxy:3128", "http://proxy:3128"),
        ("http://Proxy:3128/", "http://proxy:3128"),
        ("HTTPS://proxy", "https://proxy:443"),
        ("http://me:p%40ss@proxy", "http://me:p%40ss@proxy:80"),
        ("me:pass@proxy:1", "http://me:pass@proxy:1"),
        ("http://[::1]:3128", "http://[::1]:3128"),
    ],
)
def test_a_proxy_is_read_as_people_write_it(text: str, url: str):
    assert parse(text, "X") == url
    assert parse(url, "X") == url


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("socks5://me:secret@proxy", r"^HTTPS_PROXY names a proxy of scheme 'socks5': expected http\[s\]://"),
        ("http://me:secret@", r"^HTTPS_PROXY is no proxy's URL: expected http\[s\]://\[user:password@\]host\[:port\]$"),
        ("http://me:secret@proxy:port", "^HTTPS_PROXY is no proxy's URL: "),
        ("http://me:secret@proxy:99999", "^HTTPS_PROXY is no proxy's URL: "),
        ("http://me:secret@[::1", "^HTTPS_PROXY is no proxy's URL: "),
        ("http://me:secret@proxy\r\nX: y", "^HTTPS_PROXY is no proxy's URL: "),
        ("http://me:secret@pro xy", "^HTTPS_PROXY is no proxy's URL: "),
        ("http://me:secret@proxy?x", "^HTTPS_PROXY is no proxy's URL: "),
        ("http://me:secret@pröxy", "^HTTPS_PROXY is no proxy's URL: "),
        ("http://", "^HTTPS_PROXY is no proxy's URL: "),
    ],
)
def test_what_is_no_proxy_is_told_without_its_password(text: str, message: str):
    with pytest.raises(ConfigurationError, match=message) as caught:
        choose({"HTTPS_PROXY": text}, "https", "example.com", 443)
    assert "secret" not in caught.value.message
    assert caught.value.__cause__ is None
    assert choose({"HTTPS_PROXY": text}, "http", "example.com", 80) is None


@pytest.mark.parametrize(
    ("entry", "reached", "not_reached"),
    [
        ("example.com", ["example.com", "EXAMPLE.com", "a.example.com"], ["notexample.com", "example.org"]),
        (".example.com", ["a.example.com", "b.a.example.com"], ["example.com", "notexample.com"]),
        ("*.example.com", ["a.example.com"], ["example.com", "notexample.com"]),
        ("*example.com", [], ["notexample.com"]),
        ("10.0.0.0/8", ["10.1.2.3", "::ffff:10.1.2.3"], ["11.0.0.1", "10.example.com"]),
        ("10.1.2.3/8", ["10.200.0.1"], ["11.0.0.1"]),
        ("10.1.2.3", ["10.1.2.3"], ["10.1.2.4"]),
        ("fd00::/8", ["fd00::1"], ["fe00::1", "10.1.2.3"]),
        ("fd00::1", ["fd00::1", "fd00:0::1"], ["fd00::2"]),
        ("[fd00::1]", ["fd00::1"], ["fd00::2"]),
        ("10.0.0.0/99", [], ["10.0.0.1"]),
        ("a/b", [], ["a", "b", "10.0.0.1"]),
        (" , ,", [], ["example.com"]),
        ("a.com b.com, c.com", ["a.com", "b.com", "c.com"], ["d.com"]),
        (":443", [], ["example.com"]),
    ],
)
def test_no_proxy_names_hosts_domains_addresses_and_networks(entry: str, reached: list[str], not_reached: list[str]):
    assert [each for each in (*reached, *not_reached) if bypassed(entry, each, 443)] == reached


@pytest.mark.parametrize("entry", ["example.com:5000", ".com:5000", "*.com:5000", "10.1.2.3:5000", "[fd00::1]:5000"])
def test_a_port_in_no_proxy_is_for_that_port_alone(entry: str):
    hosts = [host for host in ("example.com", "10.1.2.3", "fd00::1") if bypassed(entry, host, 5000)]
    assert len(hosts) == 1
    assert not bypassed(entry, hosts[0], 443)


labels = st.lists(st.sampled_from(["a", "b", "ab"]), min_size=1, max_size=3)
ports = st.sampled_from([80, 443])


@given(
    host=labels, entries=st.lists(st.tuples(labels, st.sampled_from(["", ".", "*."]), st.none() | ports)), port=ports
)
def test_names_are_matched_by_whole_labels(host: list[str], entries: list, port: int):
    def fits(listed: list[str], dots: str, listed_port: int | None) -> bool:
        below = host[-len(listed) :] == listed and (len(host) > len(listed) or not dots)
        return below and listed_port in (None, port)

    text = ",".join(dots + ".".join(listed) + (f":{at}" if at else "") for listed, dots, at in entries)
    assert bypassed(text, ".".join(host), port) == any(fits(*each) for each in entries)


@given(address=st.integers(1 << 24, (1 << 31) - 1), network=st.integers(0, (1 << 32) - 1), bits=st.integers(0, 32))
def test_ipv4_networks_are_matched_by_their_leading_bits(address: int, network: int, bits: int):
    text = f"{ipaddress.IPv4Address(network)}/{bits}"
    host = ipaddress.IPv4Address(address)
    assert bypassed(text, str(host), 80) == (host.is_loopback or address >> (32 - bits) == network >> (32 - bits))


@given(address=st.integers(2, (1 << 128) - 1), flipped=st.integers(0, 127), bits=st.integers(0, 128))
def test_ipv6_networks_are_matched_by_their_leading_bits(address: int, flipped: int, bits: int):
    host, listed = ipaddress.IPv6Address(address | 1 << 127), ipaddress.IPv6Address((address | 1 << 127) ^ 1 << flipped)
    assert bypassed(f"{listed}/{bits}", str(host), 80) == (flipped < 128 - bits)
