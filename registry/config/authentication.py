"""`auth`: how callers say who they are. Distribution takes one kind, we take several at once."""

from __future__ import annotations

from pathlib import Path

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


class Authentication(Section):
    htpasswd: Htpasswd | None = None
    token: Token | None = None
