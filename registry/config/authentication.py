"""`auth`: how callers say who they are. Distribution takes one kind, we take several at once."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from registry.config.values import Section


class Htpasswd(Section):
    realm: str = "Registry Realm"
    path: Path


class Token(Section):
    """Tokens of a token server (Docker's token specification)."""

    realm: str
    service: str
    issuer: str
    rootcertbundle: Path | None = None
    jwks: str | None = None
    autoredirect: bool = False
    autoredirectpath: str = "/auth/token"
    signingalgorithms: tuple[str, ...] = ()


class NoAuthentication(Section):
    """Nobody is asked who they are, as without `auth`."""


class Authentication(Section):
    refused: ClassVar = {
        "silly": "a kind for tests, which lets in whoever sends any credentials, expected htpasswd or token"
    }

    none: NoAuthentication | None = None
    htpasswd: Htpasswd | None = None
    token: Token | None = None
