"""Proxies, as the environment tells them (Go's golang.org/x/net/http/httpproxy; docker and skopeo read the same).

HTTPS_PROXY and HTTP_PROXY for a URL's scheme, else ALL_PROXY; each name also in small letters, the capitals first. An
empty value counts as none. Where a CGI server set REQUEST_METHOD, a client of ours may have set HTTP_PROXY by a header
(httpoxy, CVE-2016-5385), so only http_proxy counts.

NO_PROXY = entry *("," entry)
entry    = "*" / address / network "/" bits / address ":" port / [("." / "*.")] domain [":" port]

`example.com` stands for that host and all below it, `.example.com` and `*.example.com` for those below it. Localhost
and loopback addresses are never asked for through a proxy.
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import TypeAlias
from urllib.parse import urlsplit

from ocispec.errors import ConfigurationError

Address: TypeAlias = IPv4Address | IPv6Address

_SCHEMES = {"http": 80, "https": 443}


def choose(environ: Mapping[str, str], scheme: str, host: str, port: int) -> str | None:
    """Returns the proxy's URL for a host; None where it is reached without one.

    Args:
        environ: the variables.
        scheme: http or https.
        host: name or address, IPv6 without brackets.
        port: the port.

    Raises:
        ConfigurationError: the variable's value is no proxy; it is not shown, since it may hold a password.
    """
    cgi = {"HTTP_PROXY"} if environ.get("REQUEST_METHOD") else set()
    names = [name for base in (f"{scheme}_proxy", "all_proxy") for name in (base.upper(), base) if name not in cgi]
    name = next((each for each in names if environ.get(each)), None)
    if name is None or bypassed(environ.get("NO_PROXY") or environ.get("no_proxy") or "", host, port):
        return None
    return parse(environ[name], name)


def parse(text: str, where: str) -> str:
    """Reads a proxy's URL, `[http[s]://][user[:password]@]host[:port][/]`, and returns it with scheme and port.

    Args:
        text: the URL.
        where: what messages call its source.

    Raises:
        ConfigurationError: it is none, or of another scheme; it is not shown, since it may hold a password.
    """
    expected = "expected http[s]://[user:password@]host[:port]"
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        port = parts.port
    except ValueError:
        raise ConfigurationError(f"{where} is no proxy's URL: {expected}") from None
    if parts.scheme not in _SCHEMES:
        raise ConfigurationError(f"{where} names a proxy of scheme {parts.scheme[:20]!r}: {expected}")
    if not parts.hostname or not (text.isascii() and text.isprintable()) or " " in text or parts.query:
        raise ConfigurationError(f"{where} is no proxy's URL: {expected}")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    login, at, _ = parts.netloc.rpartition("@")
    return f"{parts.scheme}://{login}{at}{host}:{port or _SCHEMES[parts.scheme]}"


def bypassed(no_proxy: str, host: str, port: int) -> bool:
    """Whether a host is reached without a proxy; see the head of this file. An entry that is none matches nothing."""
    host, address = host.lower(), _address(host)
    if host == "localhost" or (address and address.is_loopback):
        return True
    entries = no_proxy.lower().replace(",", " ").split()
    return any(entry == "*" or _matches(entry, host, address, port) for entry in entries)


def _matches(entry: str, host: str, address: Address | None, port: int) -> bool:
    if "/" in entry:
        return address is not None and _within(address, entry)
    wanted, wanted_port = _split_port(entry)
    if wanted_port not in ("", str(port)):
        return False
    if listed := _address(wanted):
        return listed == address
    domain = wanted[1:] if wanted.startswith("*.") else wanted
    return bool(domain) and (host == domain or host.endswith(domain if domain.startswith(".") else f".{domain}"))


def _split_port(entry: str) -> tuple[str, str]:
    if entry.startswith("["):
        host, _, rest = entry[1:].partition("]")
        return host, rest.removeprefix(":")
    # Several colons are an IPv6 address.
    host, _, port = entry.partition(":") if entry.count(":") == 1 else (entry, "", "")
    return host, port


def _address(text: str) -> Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return (address.ipv4_mapped if isinstance(address, IPv6Address) else None) or address


def _within(address: Address, text: str) -> bool:
    try:
        return address in ip_network(text, strict=False)
    except ValueError:
        return False
