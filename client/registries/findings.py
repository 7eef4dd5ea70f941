"""What an examination finds, in words: how each step went, why, and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Any
from urllib.parse import urlsplit

from client.hosts.endpoint import Route
from client.registries.probing import Certificate, Greeting
from client.wording import counted, one_line

_DAY = 24 * 3600.0
_SOON = 14 * _DAY
# Tokens and certificates are good at certain times, and a clock that is wrong sees other times.
_SKEW = 60.0
_EXPIRED, _OTHER_NAMES = 10, (62, 64)
# What OpenSSL says of an answer that is no TLS.
_NO_TLS = ("wrong version number", "http request", "record layer failure", "packet length too long")
_LIMITS = ("ratelimit-", "x-ratelimit-")


class State(StrEnum):
    """How a step went; a warning is what the client gets along with."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one step found.

    Attributes:
        step: its name.
        state: how it went.
        text: what was found, in one line.
        advice: what to do about it.
    """

    step: str
    state: State
    text: str
    advice: str = ""

    def to_json(self) -> dict[str, Any]:
        return {"step": self.step, "state": str(self.state), "text": self.text, "advice": self.advice or None}


def of_tls(host: str, route: Route, greeting: Greeting, now: float) -> Finding:
    """Judges how TLS began; `now` in seconds since 1970."""
    shown = greeting.certificate
    text = "its certificate" if shown is None else _certificate(shown, now)
    if greeting.failure:
        return Finding("tls", State.FAILED, f"{greeting.failure}: {text}", _remedy(host, greeting))
    if not route.tls.verified:
        return Finding("tls", State.WARNING, f"{greeting.version}, not checked: {text}", "leave --insecure out")
    trusted = ", ".join(map(str, route.tls.authorities))
    by = f"trusted by {trusted} or the system" if trusted else "trusted by the system"
    ends = shown.until is not None and shown.until - now < _SOON if shown else False
    advice = "it ends soon: whoever runs the registry has to renew it" if ends else ""
    return Finding("tls", State.WARNING if ends else State.OK, f"{greeting.version}, {text}, {by}", advice)


def _certificate(shown: Certificate, now: float) -> str:
    names = one_line(", ".join(shown.names[:3])) or "no name"
    more = f" and {len(shown.names) - 3} more" if len(shown.names) > 3 else ""
    until = "" if shown.until is None else f", {_until(shown.until, now)}"
    return f"certificate for {names}{more} by {one_line(shown.issuer)[:80]}{until}"


def _until(moment: float, now: float) -> str:
    day = datetime.fromtimestamp(moment, UTC).date()
    days = int(abs(moment - now) / _DAY)
    return f"until {day} ({counted(days, 'day')})" if moment > now else f"ended {day} ({counted(days, 'day')} ago)"


def _remedy(host: str, greeting: Greeting) -> str:
    if greeting.code == _EXPIRED:
        return "whoever runs the registry has to renew it; check this machine's clock"
    if greeting.code in _OTHER_NAMES:
        return "use a name that the certificate is for"
    return f"put its authority's certificate into /etc/docker/certs.d/{host}/ca.crt, or use --insecure"


def tls_remedy(host: str, reason: str) -> str:
    """What to do where TLS does not begin."""
    if "certificate required" in reason:
        return f"put a client's certificate and key into /etc/docker/certs.d/{host}/client.cert and client.key"
    if reason in _NO_TLS:
        return "the port may speak plain http: try --plain-http"
    return "whoever runs the host can tell more"


def of_clock(date: str, now: float) -> Finding:
    """Compares the `Date` that a host says with this machine's clock."""
    try:
        skew = now - parsedate_to_datetime(date).timestamp()
    except (ValueError, OverflowError):
        return Finding("clock", State.SKIPPED, "the host does not tell the time")
    if abs(skew) <= _SKEW:
        return Finding("clock", State.OK, "this machine's and the host's agree within a minute")
    text = f"this machine's is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} the host's"
    return Finding("clock", State.WARNING, text, "set the clock: tokens and certificates are good at certain times")


def of_limit(host: str, headers: Mapping[str, str]) -> Finding:
    """Says what a host tells of its rate limit; both numbers are followed by the window, in seconds, on Docker Hub."""
    told = {}
    for name, value in headers.items():
        for prefix in _LIMITS:
            if name.lower().startswith(prefix):
                told[name.lower().removeprefix(prefix)] = value
    limit, left = _number(told.get("limit", "")), _number(told.get("remaining", ""))
    if left is None:
        return Finding("rate limit", State.SKIPPED, f"{host} does not tell")
    of = "" if limit is None else f" of {limit}"
    text = f"{left}{of} requests left{_window(told.get('limit', ''))}"
    if left:
        return Finding("rate limit", State.OK, text)
    return Finding("rate limit", State.FAILED, text, "log in for a higher one, use a mirror, or wait")


def _number(text: str) -> int | None:
    bare = text.partition(";")[0].strip()
    return int(bare) if bare.isdecimal() and bare.isascii() and len(bare) < 20 else None


def _window(text: str) -> str:
    seconds = _number(text.partition("w=")[2])
    return f" in {seconds / 3600:g} h" if seconds else ""


def of_proxy(route: Route) -> Finding:
    """Says whether a proxy is used, without its password."""
    if route.proxy is None:
        return Finding("proxy", State.OK, "none: the host is reached directly")
    parts = urlsplit(route.proxy)
    login = " with a login" if "@" in parts.netloc else ""
    return Finding("proxy", State.OK, f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{login}")
