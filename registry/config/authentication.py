"""`auth`: how callers say who they are. Distribution takes one kind, we take several at once."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from pydantic import Field

from registry.config.values import Section


class Htpasswd(Section):
    """Users and their passwords in a file."""

    realm: str = Field(default="Registry Realm", description="What a client that asks for a password is told.")
    path: Path = Field(description="The file, with passwords hashed by bcrypt (`htpasswd -B`); read anew on a change.")


class Token(Section):
    """Tokens of a token server (Docker's token specification)."""

    realm: str = Field(description="The address of the token server, which clients are sent to.")
    service: str = Field(description="The name of this registry there, which a token has to name.")
    issuer: str = Field(description="The name of the token server, which a token has to name.")
    rootcertbundle: Path | None = Field(
        default=None, description="PEM file of the certificates that the keys of tokens lead to."
    )
    jwks: str | None = Field(default=None, description="File of the keys themselves, as a JSON Web Key Set.")
    autoredirect: bool = Field(default=False, description="Whether the token server stands behind this host's name.")
    autoredirectpath: str = Field(default="/auth/token", description="At which path it does.")
    signingalgorithms: tuple[str, ...] = Field(default=(), description="The algorithms that tokens may be signed by.")


class NoAuthentication(Section):
    """Nobody is asked who they are, as without `auth`."""


class Authentication(Section):
    refused: ClassVar = {
        "silly": "a kind for tests, which lets in whoever sends any credentials, expected htpasswd or token"
    }

    none: NoAuthentication | None = None
    htpasswd: Htpasswd | None = None
    token: Token | None = None
