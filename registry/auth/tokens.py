"""Bearer tokens of an outside token server: Docker's token specification, as `docs/tokens.md` tells.

A token is verified in this order, and nothing of it is believed before: its algorithm is one that is allowed, none of
them symmetric; its key is found by its certificates or by an id among the stored keys; the key is one for that
algorithm; the signature; issuer, audience, and times. What it covers is for the gate.
"""

from __future__ import annotations

import logging
import math
import re
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jwt

from ocispec import strictjson
from ocispec.headers import Challenge, Scope
from registry import context
from registry.api.urls import HOST
from registry.auth.authenticator import CONTROLS, Bearer, Credentials, Identity, Kind
from registry.auth.jwks import KeySource, StoredKey, TokenRefused
from registry.auth.tokens_chain import verified as verified_chain
from registry.auth.tokens_keys import OutsideKeys
from registry.config.authentication import SIGNING_ALGORITHMS, Token

LEEWAY = 60.0
"""Seconds that clocks may differ by, as with Distribution."""
_MOST_CHARACTERS = 32 * 1024
_MOST_NAME = 512
_PARTS = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)")
_LOCAL = re.compile(r"(?:localhost|127(?:\.\d+){3}|\[::1\])(?::\d+)?")
_log = logging.getLogger("registry")


@dataclass(frozen=True, slots=True)
class Verified:
    """A token that is valid.

    Attributes:
        claims: what it says.
        until: when it ends, in seconds since the epoch, with the leeway.
        is_trusted: whether its key still is.
    """

    claims: Mapping[str, Any]
    until: float
    is_trusted: Callable[[], bool]

    def holds(self) -> bool:
        """Whether it is valid still."""
        return time.time() < self.until and self.is_trusted()

    def grants(self) -> tuple[Scope, ...]:
        """What it covers; raises TokenRefused where `access` is not what the specification says."""
        return _grants(self.claims.get("access"))

    def text(self, name: str) -> str:
        """A claim that is a text, empty where it is not there; raises TokenRefused."""
        found = self.claims.get(name) or ""
        if not isinstance(found, str) or len(found) > _MOST_NAME or CONTROLS.search(found):
            raise TokenRefused(f"its {name} is no text of at most {_MOST_NAME} printable characters")
        return found


class Verifier:
    """Verifies tokens of one issuer.

    Args:
        keys: those that are trusted.
        issuer: what has to stand in `iss`.
        service: what has to stand in `aud`, alone or among others.
        algorithms: those that are allowed.
    """

    def __init__(self, keys: KeySource, issuer: str, service: str, algorithms: Iterable[str]) -> None:
        self._keys = keys
        self._issuer = issuer
        self._service = service
        self._algorithms = frozenset(algorithms)

    async def verify(self, token: str) -> Verified:
        """Returns what a token says.

        Raises:
            TokenRefused: it is not valid here.
        """
        await self._keys.refresh()
        header, payload = _read(token)
        algorithm = header.get("alg")
        if not isinstance(algorithm, str) or algorithm not in self._algorithms:
            raise TokenRefused(f"its alg is {algorithm!r:.40}, expected one of {', '.join(sorted(self._algorithms))}")
        if "crit" in header:
            raise TokenRefused("its header has crit, and none of what that could name is known (RFC 7515)")
        key, is_trusted, until = await self._key(header)
        if algorithm not in key.algorithms:
            raise TokenRefused(f"its key signs by {', '.join(sorted(key.algorithms))}, and its alg is {algorithm}")
        self._hold(token, key, algorithm)
        return Verified(payload, min(until, _number(payload, "exp") + LEEWAY), is_trusted)

    async def _key(self, header: Mapping[str, Any]) -> tuple[StoredKey, Callable[[], bool], float]:
        """Returns the key, whether it is trusted still, and until when."""
        roots = self._keys.roots
        if "x5c" in header and roots:
            chain = verified_chain(header["x5c"], roots)
            return chain.key, lambda: self._keys.is_current() and self._keys.roots is roots, chain.until
        kid = header.get("kid")
        if not isinstance(kid, str) or not kid:
            raise TokenRefused("it names no key: expected kid, or x5c where rootcertbundle is set")
        key = self._keys.find(kid)
        if key is None:
            await self._keys.look_again()
            key = self._keys.find(kid)
        if key is None:
            raise TokenRefused(f"its kid is {kid!r:.80}, and no key with this id is trusted")
        return key, lambda: self._keys.is_current() and self._keys.find(kid) is key, math.inf

    def _hold(self, token: str, key: StoredKey, algorithm: str) -> None:
        """Raises TokenRefused: by its signature, or its claims."""
        try:
            jwt.decode(
                token,
                key.key,
                algorithms=[algorithm],
                audience=self._service,
                issuer=self._issuer,
                leeway=LEEWAY,
                options={"require": ["exp", "iss", "aud"], "verify_iat": False},
            )
        except jwt.PyJWTError as error:
            raise TokenRefused(f"{type(error).__name__}: {error}") from error


def _read(token: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Returns header and claims, which are not verified yet, of a token that can be read in one way only.

    Base64 has several texts for some bytes, and JSON several readings of a doubled name: neither is taken.
    """
    match = _PARTS.fullmatch(token) if len(token) <= _MOST_CHARACTERS else None
    if match is None:
        raise TokenRefused(f"it is not of the form of a signed JWT, or longer than {_MOST_CHARACTERS} characters")
    header, payload, _ = (_decoded(each) for each in match.groups())
    try:
        read = strictjson.loads(header), strictjson.loads(payload)
    except strictjson.AmbiguousJSON as error:
        raise TokenRefused(str(error)) from error
    if not all(isinstance(each, dict) for each in read):
        raise TokenRefused("its header or its claims are no object")
    for name in ("exp", "nbf"):
        _number(read[1], name)
    return read


def _decoded(text: str) -> bytes:
    padding = "=" * (-len(text) % 4)
    try:
        data = urlsafe_b64decode(text + padding)
    except ValueError as error:
        raise TokenRefused("it is not base64url") from error
    if urlsafe_b64encode(data).decode() != text + padding:
        raise TokenRefused("it is not base64url as there is one way to write it")
    return data


def _number(claims: Mapping[str, Any], name: str) -> float:
    """A time in seconds since the epoch, 0 where it is not there; raises TokenRefused."""
    found = claims.get(name, 0)
    if isinstance(found, bool) or not isinstance(found, int | float) or not abs(found) < 1 << 53:
        raise TokenRefused(f"its {name} is no time in seconds")
    return found


def _grants(access: Any) -> tuple[Scope, ...]:
    if access is None:
        return ()
    if not isinstance(access, list):
        raise TokenRefused("its access is no list")
    return tuple(_scope(each) for each in access)


def _scope(entry: Any) -> Scope:
    given = entry if isinstance(entry, dict) else {}
    kind, name, actions = given.get("type"), given.get("name"), given.get("actions") or []
    texts = [kind, name, *actions] if isinstance(actions, list) else [None]
    if not all(isinstance(each, str) for each in texts):
        raise TokenRefused("an entry of its access has no type, name and actions")
    return Scope(str(kind), str(name), tuple(actions))


class OutsideTokens:
    """Knows whoever a token of an outside token server names.

    Raises:
        ConfigError: the keys cannot be read or used.
    """

    def __init__(self, given: Token) -> None:
        self._given = given
        self._keys = OutsideKeys(given.rootcertbundle, given.jwks)
        algorithms = given.signingalgorithms or SIGNING_ALGORITHMS
        self._verifier = Verifier(self._keys, given.issuer, given.service, algorithms)

    async def run(self) -> None:
        """Fetches keys at an address, now and again."""
        await self._keys.run()

    async def identify(self, credentials: Credentials | None, scope: context.Scope) -> Identity | None:  # noqa: ARG002 - as the protocol has it
        if not isinstance(credentials, Bearer):
            return None
        try:
            found = await self._verifier.verify(credentials.token)
            name = found.text("sub") or None
            kind = Kind.ANONYMOUS if name is None else Kind.USER
            return Identity(name, kind, _groups(found.claims), found.grants(), holds=found.holds)
        except TokenRefused as error:
            _log.info("a token of auth.token is refused: %s", error.message)
            return None

    def challenge(self, wanted: Sequence[Scope], error: str | None, scope: context.Scope) -> str:
        realm = self._given.realm
        host = context.header(scope, b"host")
        if self._given.autoredirect and HOST.fullmatch(host):
            realm = f"{_scheme(scope)}://{host}{self._given.autoredirectpath}"
        return challenge(realm, self._given.service, wanted, error)


def challenge(realm: str, service: str, wanted: Sequence[Scope], error: str | None) -> str:
    """Returns the challenge as Distribution writes it (RFC 6750, section 3; Docker's token specification)."""
    given = {"realm": realm, "service": service, "scope": " ".join(map(str, wanted)), "error": error}
    return str(Challenge("bearer", {name: text for name, text in given.items() if text}))


def _groups(claims: Mapping[str, Any]) -> frozenset[str]:
    found = claims.get("groups") or []
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        raise TokenRefused("its groups are no list of texts")
    return frozenset(found)


def _scheme(scope: context.Scope) -> str:
    """How the client came: https unless something tells otherwise, for a password must not travel in the clear.

    As with Distribution, a proxy that ends TLS may tell nothing; and a header that a client invents changes nothing
    but what it is told itself.
    """
    told = context.header(scope, b"x-forwarded-proto").lower()
    if scope["scheme"] == "https" or told == "https":
        return "https"
    is_plain = told == "http" or _LOCAL.fullmatch(context.header(scope, b"host"))
    return "http" if is_plain else "https"
