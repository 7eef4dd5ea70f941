"""Pins: images that stay, however long nobody uses them and however full it is."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator, TypeAdapter, ValidationError

from ocispec.digest import Digest
from ocispec.errors import DigestInvalid
from ocispec.reference import RepositoryName
from registry.auth.rules import matching
from registry.config.access import Pattern
from registry.mirror import tree
from storage.engine import Engine

_TAG = re.compile(r"[A-Za-z0-9_.*-]{1,128}", re.ASCII)
_EXPECTED = "expected names like docker.io/library/alpine, docker.io/library/alpine:3* or ghcr.io/team/**"


@dataclass(frozen=True, slots=True)
class Pin:
    """Images that stay.

    Attributes:
        matches: whether a repository's name is meant.
        tag: whether a tag is meant; None where all that the repository has is.
        digest: the one manifest that is meant, where it is one.
    """

    matches: Callable[[str], object]
    tag: Callable[[str], object] | None = None
    digest: Digest | None = None

    @classmethod
    def parse(cls, text: str) -> Pin:
        """Reads `NAME`, `NAME:TAG` or `NAME@DIGEST`; `*` and `**` may stand in the name, `*` in the tag.

        Raises:
            ValueError: it is none.
        """
        rest, at, digest = text.partition("@")
        name, colon, tag = rest.rpartition(":")
        if not colon:
            name, tag = rest, "*"
        try:
            TypeAdapter(Pattern).validate_python(name)
            found = Digest.parse(digest) if at else None
        except (ValidationError, DigestInvalid):
            raise ValueError(f"{_EXPECTED}, got {text!r:.160}") from None
        if not _TAG.fullmatch(tag):
            raise ValueError(f"{_EXPECTED}, got {text!r:.160}")
        expression = re.escape(tag).replace(r"\*", ".*")
        return cls(matching([name]), None if tag == "*" else re.compile(expression).fullmatch, found)


class Pins:
    """All that is pinned; raises ValueError, see `Pin.parse`."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._pins = [Pin.parse(each) for each in texts]

    def of(self, name: RepositoryName) -> list[Pin]:
        """Those that concern a repository."""
        return [each for each in self._pins if each.matches(name)]

    async def roots(self, engine: Engine, name: RepositoryName, manifests: Iterable[Digest]) -> set[Digest]:
        """Returns which manifests of a repository are pinned, of those that it has."""
        pins, everything = self.of(name), set(manifests)
        if not pins:
            return set()
        if any(pin.tag is None and pin.digest is None for pin in pins):
            return everything
        named = {pin.digest for pin in pins if pin.digest in everything}
        tagged = [each async for each in tree.tags(engine, name)] if any(pin.tag for pin in pins) else []
        for tag, digest in tagged:
            if any(pin.tag and pin.digest is None and pin.tag(tag) for pin in pins):
                named.add(digest)
        return {each for each in named if each}


def _checked(text: str) -> str:
    Pin.parse(text)
    return text


PinPattern = Annotated[str, AfterValidator(_checked)]
