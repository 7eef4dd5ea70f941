"""Digests: the names of content (image-spec, descriptor.md, "Digests")."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

from ocispec.errors import DigestInvalid

# The registered algorithms and the length of their hex form. Others match the grammar but cannot be verified.
HEX_LENGTHS = {"sha256": 64, "sha512": 128}
CANONICAL = "sha256"

# Every request parses the same few names again and again; remembering them is cheaper than the grammar.
PARSED = 4096

_GRAMMAR = re.compile(r"(sha256:[a-f0-9]{64}|sha512:[a-f0-9]{128})", re.ASCII)


class Hash(Protocol):
    """A running hash, as `hashlib` gives it."""

    def update(self, data: bytes | bytearray | memoryview, /) -> None: ...
    def hexdigest(self) -> str: ...


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """A validated digest: safe to become a path, because nothing but lower-case hex follows a known algorithm."""

    algorithm: str
    hex: str

    @classmethod
    @lru_cache(PARSED)
    def parse(cls, text: str) -> Digest:
        """Reads `sha256:<64 hex>` or `sha512:<128 hex>`.

        Raises:
            DigestInvalid: any other text, another algorithm among them.
        """
        if not _GRAMMAR.fullmatch(text):
            expected = "expected sha256:<64 lower-case hex digits> or sha512:<128>"
            raise DigestInvalid(f"invalid digest {text[:200]!r}: {expected}", detail={"digest": text[:200]})
        algorithm, _, hex_part = text.partition(":")
        return cls(algorithm, hex_part)

    @classmethod
    def of(cls, data: bytes, algorithm: str = CANONICAL) -> Digest:
        """Returns the digest of `data`; see `new_hash` for errors."""
        running = new_hash(algorithm)
        running.update(data)
        return cls(algorithm, running.hexdigest())

    def matches(self, data: bytes) -> bool:
        return Digest.of(data, self.algorithm) == self

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"

    @property
    def short(self) -> str:
        """The first 12 hex digits, as docker shows them."""
        return self.hex[:12]


def new_hash(algorithm: str = CANONICAL) -> Hash:
    """Starts a running hash.

    Raises:
        DigestInvalid: an algorithm other than sha256 and sha512.
    """
    if algorithm not in HEX_LENGTHS:
        raise DigestInvalid(f"unsupported digest algorithm {algorithm[:40]!r}: expected sha256 or sha512")
    return hashlib.new(algorithm, usedforsecurity=False)


class Verifier:
    """Checks content against a digest while it passes.

    `update` releases the interpreter lock for pieces above 2 KiB; call it from a worker thread for large ones.
    """

    __slots__ = ("_hash", "digest", "size")

    def __init__(self, digest: Digest) -> None:
        self.digest = digest
        self.size = 0
        self._hash = new_hash(digest.algorithm)

    def update(self, data: bytes | bytearray | memoryview) -> None:
        self._hash.update(data)
        self.size += len(data)

    @property
    def actual(self) -> Digest:
        return Digest(self.digest.algorithm, self._hash.hexdigest())

    def verified(self) -> bool:
        return self.actual == self.digest
