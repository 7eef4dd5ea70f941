"""Who somebody is: what a request says of it, and the seam that every kind of authentication implements."""

from __future__ import annotations

import binascii
import re
from base64 import b64decode
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from ocispec.errors import Unauthorized
from ocispec.headers import Scope
from registry import context

CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class Kind(StrEnum):
    """What somebody is. Names are told apart by it: a robot `ci` and a user `ci` are two."""

    USER = "user"
    ROBOT = "robot"
    CERTIFICATE = "certificate"
    ANONYMOUS = "anonymous"

    # Decisions are remembered by it, and an enum's own hash is a call of Python's.
    __hash__ = str.__hash__


class Limits(Protocol):
    """What the credentials of somebody can be used for at most, whatever else he may do."""

    def cover(self, action: str, repository: str | None) -> bool:
        """Whether they can be used for this; no repository stands for what concerns all. Quick, without I/O."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Somebody, once it is known who.

    Attributes:
        name: None for anonymous alone.
        kind: of the name.
        groups: those that the authenticator knows of; the access rules add their own.
        grants: the scopes that a token limits it to; None where nothing does. What the rules refuse, no grant allows.
        holds: whether the credentials that told it still count, asked before each request that brings them again:
            quick, and without waiting for anything. None where the authenticator is to be asked each time.
        limits: those of a personal or robot token; None where there are none. Unlike with `grants`, whoever asks for
            another token gets no further.
    """

    name: str | None
    kind: Kind
    groups: frozenset[str] = frozenset()
    grants: tuple[Scope, ...] | None = None
    holds: Callable[[], bool] | None = field(default=None, repr=False, compare=False)
    limits: Limits | None = field(default=None, compare=False)

    def granted(self, kind: str, name: str, action: str) -> bool:
        """Whether its token covers `kind:name:action`; true where no token limits it."""
        if self.grants is None:
            return True
        for each in self.grants:
            if each.name == name and each.type == kind and (action in each.actions or "*" in each.actions):
                return True
        return False


ANONYMOUS = Identity(None, Kind.ANONYMOUS)


@dataclass(frozen=True, slots=True)
class Basic:
    """User and password (RFC 7617)."""

    user: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Bearer:
    """A token (RFC 6750)."""

    token: str = field(repr=False)


Credentials = Basic | Bearer


class Authenticator(Protocol):
    """One kind of authentication. Several are asked in their order, and the first that knows somebody decides."""

    async def identify(self, credentials: Credentials | None, scope: context.Scope) -> Identity | None:
        """Says who asks; None where these credentials are none of its kind, or wrong.

        Args:
            credentials: None where the request carries none: a connection may tell who is at its other end.
            scope: the ASGI scope of the request.
        """

    def challenge(self, wanted: Sequence[Scope], error: str | None, scope: context.Scope) -> str | None:
        """Returns a `WWW-Authenticate` value, or None where it asks for nothing.

        Args:
            wanted: the scopes that would do.
            error: `invalid_token` or `insufficient_scope` where credentials came and did not do (RFC 6750,
                section 3.1).
            scope: the ASGI scope of the request: tokens may be had at the host that it was sent to.
        """


def parse_credentials(header: bytes) -> Credentials | None:
    """Reads an `Authorization` header; None for neither user nor password, which containers/image sends for nobody.

    Raises:
        Unauthorized: another scheme, or not the scheme's grammar. Nothing of the value stands in the message.
    """
    scheme, _, rest = header.partition(b" ")
    rest = rest.strip(b" \t")
    match scheme.lower():
        case b"basic":
            return _basic(rest)
        case b"bearer" if rest and rest.isascii() and not rest.split()[1:]:
            return Bearer(rest.decode("ascii"))
    raise Unauthorized("the Authorization header cannot be read: expected Basic or Bearer, followed by one value")


def _basic(encoded: bytes) -> Basic | None:
    try:
        user, colon, password = b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        colon = ""
    if not colon or CONTROLS.search(user + password):
        expected = "expected user:password as base64 of UTF-8, without control characters"
        raise Unauthorized(f"the Authorization header cannot be read: {expected}")
    return Basic(user, password) if user or password else None
