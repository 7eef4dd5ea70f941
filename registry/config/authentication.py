"""`auth`: how callers say who they are. Distribution takes one kind, we take several at once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from registry.config.values import Section

_BITS = (256, 384, 512)
SIGNING_ALGORITHMS = ("EdDSA", *(f"{kind}{bits}" for kind in ("ES", "PS", "RS") for bits in _BITS))
"""Those that tokens may be signed by: none whose key verifies and signs alike."""


class Htpasswd(Section):
    """Users and their passwords in a file."""

    realm: str = Field(default="Registry Realm", description="What a client that asks for a password is told.")
    path: Path = Field(description="The file, with passwords hashed by bcrypt (`htpasswd -B`); read anew on a change.")


class Token(Section):
    """Tokens of a token server (Docker's token specification)."""

    realm: str = Field(description="The address of the token server, which clients are sent to.")
    service: Annotated[str, Field(min_length=1)] = Field(
        description="The name of this registry there, which a token has to name."
    )
    issuer: Annotated[str, Field(min_length=1)] = Field(
        description="The name of the token server, which a token has to name."
    )
    rootcertbundle: Path | None = Field(
        default=None,
        description="PEM file of the certificates that the keys of tokens lead, or belong, to; read anew on a change.",
    )
    jwks: str | None = Field(
        default=None,
        description="The keys themselves, as a JSON Web Key Set: a file, which is read anew on a change, or an address "
        "(http, https), which is asked every ten minutes, and when a token names a key that is not among them.",
    )
    autoredirect: bool = Field(
        default=False, description="Whether clients are sent to the host that they asked, in place of `realm`."
    )
    autoredirectpath: str = Field(default="/auth/token", description="To which path there.")
    signingalgorithms: tuple[str, ...] = Field(
        default=(),
        description="The algorithms that tokens may be signed by: any of EdDSA, and RS, ES or PS with 256, 384 or 512, "
        "like ES256; all of these where nothing is said. HS256 and its like are refused, unlike with Distribution.",
    )

    @field_validator("realm")
    @classmethod
    def _leads_somewhere(cls, realm: str) -> str:
        return address(realm)

    @field_validator("jwks")
    @classmethod
    def _is_file_or_address(cls, jwks: str | None) -> str | None:
        return address(jwks) if jwks and "://" in jwks else jwks

    @field_validator("autoredirectpath")
    @classmethod
    def _begins_with_a_slash(cls, path: str) -> str:
        return "/" + path.removeprefix("/") if path else "/auth/token"

    @field_validator("signingalgorithms")
    @classmethod
    def _are_asymmetric(cls, given: tuple[str, ...]) -> tuple[str, ...]:
        for each in given:
            if each not in SIGNING_ALGORITHMS:
                why = ": whoever verifies such a token could make one" if each.startswith("HS") else ""
                raise ValueError(f"expected any of {', '.join(SIGNING_ALGORITHMS)}, got {each!r:.40}{why}")
        return given

    @model_validator(mode="after")
    def _has_keys(self) -> Token:
        if self.rootcertbundle is None and not self.jwks:
            raise ValueError("expected rootcertbundle or jwks: without a key no token can be verified")
        return self


def address(url: str) -> str:
    """Reads an address that requests are sent to; raises ValueError.

    One with a password in it would show it to whoever asks (`realm`), and in the log (`jwks`).
    """
    try:
        parts = urlsplit(url)
        leads = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0 and url.isprintable()
    except ValueError:
        leads = False
    if not leads:
        raise ValueError("expected an address like https://host/path")
    if "@" in parts.netloc:
        raise ValueError("expected an address without user and password")
    return url


class NoAuthentication(Section):
    """Nobody is asked who they are, as without `auth`."""


class Authentication(Section):
    refused: ClassVar = {
        "silly": "a kind for tests, which lets in whoever sends any credentials, expected htpasswd or token"
    }

    none: NoAuthentication | None = None
    htpasswd: Htpasswd | None = None
    token: Token | None = None
