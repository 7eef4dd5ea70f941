"""Where the keys of an outside token server come from: a bundle of certificates, a key set in a file or at a URL."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from ocispec.errors import LayerhouseError, ResponseInvalid
from registry.auth.jwks import Identified, StoredKey, libtrust_id, parse_jwks, thumbprint
from registry.auth.watched import Watched
from registry.config import ConfigError
from registry.outgoing import Outgoing, shown

_ANSWER_SECONDS = 10.0
_LEAST_SECONDS = 60.0
_USUAL_SECONDS = 600.0
_MOST_BYTES = 1 << 20
_NONE: Identified = {}
_log = logging.getLogger("registry")


@dataclass(frozen=True, slots=True)
class Roots:
    """The certificates of a bundle.

    Attributes:
        certificates: all of them.
        keys: theirs, which may sign tokens too, by thumbprint and by libtrust's id.
    """

    certificates: tuple[x509.Certificate, ...]
    keys: Identified

    @classmethod
    def parse(cls, data: bytes, place: str) -> Roots:
        """Reads a PEM file; raises ConfigError where it has no certificate, or one that cannot be read."""
        try:
            certificates = tuple(x509.load_pem_x509_certificates(data))
        except ValueError as error:
            raise ConfigError(f"{place}: expected certificates in PEM: {error}") from error
        stored = [key for each in certificates if (key := StoredKey.of(each.public_key()))]
        return cls(certificates, {name(each.key): each for each in stored for name in (thumbprint, libtrust_id)})


class OutsideKeys:
    """The keys of an outside token server. Files are read again when they change.

    Args:
        rootcertbundle: certificates in PEM.
        jwks: path or address (http, https) of a JSON Web Key Set.

    Raises:
        ConfigError: a file cannot be read or used.
    """

    def __init__(self, rootcertbundle: Path | None, jwks: str | None) -> None:
        self._bundle = None
        if rootcertbundle:
            bundle = f"auth.token.rootcertbundle: {rootcertbundle}"
            self._bundle = Watched(rootcertbundle, lambda data: Roots.parse(data, bundle), place=bundle)
        is_remote = jwks is not None and jwks.startswith(("http://", "https://"))
        self._remote = RemoteKeys(jwks) if jwks and is_remote else None
        self._file = None
        if jwks and not is_remote:
            place = f"auth.token.jwks: {jwks}"
            self._file = Watched(Path(jwks), lambda data: parse_jwks(data, place), place=place)

    @property
    def roots(self) -> tuple[x509.Certificate, ...]:
        return self._bundle.value.certificates if self._bundle else ()

    def is_current(self) -> bool:
        return all(each is None or each.is_current() for each in (self._bundle, self._file))

    async def refresh(self) -> None:
        for each in (self._bundle, self._file):
            if each is not None:
                await each.refresh()

    async def look_again(self) -> None:
        if self._remote is not None:
            await self._remote.refresh()

    def find(self, kid: str) -> StoredKey | None:
        sets = (
            self._file.value if self._file else _NONE,
            self._remote.keys if self._remote else _NONE,
            self._bundle.value.keys if self._bundle else _NONE,
        )
        return next((found[kid] for found in sets if kid in found), None)

    async def run(self) -> None:
        """Fetches the keys at an address now, and every ten minutes, for those that are taken back."""
        while self._remote is not None:
            await self._remote.refresh()
            await asyncio.sleep(_USUAL_SECONDS)


class RemoteKeys:
    """A key set at an address. While it cannot be had, the keys of the last time stay in force.

    Attributes:
        keys: those of the last time.
    """

    def __init__(self, url: str) -> None:
        self.keys: Mapping[str, StoredKey] = {}
        self._url = url
        self._asked: float | None = None
        self._lock = asyncio.Lock()

    async def refresh(self) -> None:
        """Fetches the keys, at most once a minute: who sends tokens with invented ids makes nobody else busy.

        Whoever asks while they are being fetched waits for that, ten seconds at most.
        """
        async with self._lock:
            now = time.monotonic()
            if self._asked is None or now - self._asked >= _LEAST_SECONDS:
                self._asked = now
                await self._fetch()

    async def _fetch(self) -> None:
        try:
            async with Outgoing(_ANSWER_SECONDS) as client:
                answer = await client.ask("GET", self._url, {"accept": ["application/json"]}, limit=_MOST_BYTES)
            if answer.status != 200:
                raise ResponseInvalid(f"{shown(self._url)} answered with {answer.status}")
            self.keys = parse_jwks(answer.body, shown(self._url))
        except LayerhouseError as error:
            kept = f"the {len(self.keys)} ids of keys before stay in force" if self.keys else "no token can be verified"
            _log.error("auth.token.jwks: %s; %s", error.message, kept)
