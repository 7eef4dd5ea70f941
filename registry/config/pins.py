"""Pins: names of images that stay, with patterns."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator, TypeAdapter, ValidationError

from ocispec.digest import Digest
from ocispec.errors import DigestInvalid
from registry.config.access import Pattern

_TAG = re.compile(r"[A-Za-z0-9_.*-]{1,128}", re.ASCII)
_EXPECTED = "expected an image like docker.io/library/alpine, docker.io/library/alpine:3* or ghcr.io/team/**"


@dataclass(frozen=True, slots=True)
class Pin:
    """Images that stay.

    Attributes:
        name: of repositories; `*` stands for anything without a slash, `**` for any number of parts.
        tag: of theirs, in which `*` stands for anything; None where all that they have is meant.
        digest: the one manifest that is meant, where it is one.
    """

    name: str
    tag: str | None = None
    digest: Digest | None = None

    @classmethod
    def parse(cls, text: str) -> Pin:
        """Reads `NAME`, `NAME:TAG` or `NAME@DIGEST`; raises ValueError."""
        rest, at, digest = text.partition("@")
        name, colon, tag = rest.partition(":")
        try:
            TypeAdapter(Pattern).validate_python(name)
            found = Digest.parse(digest) if at else None
        except (ValidationError, DigestInvalid):
            raise ValueError(f"{_EXPECTED}, got {text!r:.160}") from None
        if colon and not _TAG.fullmatch(tag):
            raise ValueError(f"{_EXPECTED}, got {text!r:.160}")
        return cls(name, None if not colon or tag == "*" else tag, found)


def _checked(text: str) -> str:
    Pin.parse(text)
    return text


Pinned = Annotated[str, AfterValidator(_checked)]
