"""What a manifest names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from ocispec.digest import Digest
from ocispec.errors import ManifestInvalid
from ocispec.manifest import Manifest

_DIGEST = re.compile(rb"sha256:[a-f0-9]{64}|sha512:[a-f0-9]{128}")
# Where none of these stands, every digest in a manifest is one of a descriptor.
_TELLING = (b"annotations", b"subject", b"\\")


@dataclass(frozen=True, slots=True)
class References:
    """Digests that a manifest names.

    Attributes:
        named: whatever must be kept with it, in its order, its subject among them.
        subjects: those that keep it.
    """

    named: tuple[Digest, ...] = ()
    subjects: tuple[Digest, ...] = ()

    @classmethod
    def of(cls, raw: bytes) -> References:
        """Reads a manifest's bytes, of any type.

        What is no manifest that we know (schema 1, an artifact of a draft, members that stand twice) may mean any
        digest that stands in it, in any role.
        """
        if not any(word in raw for word in _TELLING):
            return cls(_every(raw))
        try:
            manifest = Manifest.parse(raw)
        except ManifestInvalid:
            return cls(_every(raw), _every(raw))
        subjects = (manifest.subject.digest,) if manifest.subject else ()
        descriptors = (*manifest.manifests, *manifest.blobs)
        return cls(tuple(dict.fromkeys((*(each.digest for each in descriptors), *subjects))), subjects)


def reach(roots: Iterable[Digest], manifests: Mapping[Digest, References]) -> set[Digest]:
    """Returns those of `manifests` that are in use when `roots` are; who names whom may go in circles."""
    referrers: dict[Digest, list[Digest]] = {}
    for digest, references in manifests.items():
        for subject in references.subjects:
            referrers.setdefault(subject, []).append(digest)
    reached: set[Digest] = set()
    waiting = [root for root in roots if root in manifests]
    while waiting:
        digest = waiting.pop()
        if digest not in reached:
            reached.add(digest)
            named = (*manifests[digest].named, *referrers.get(digest, ()))
            waiting += [each for each in named if each in manifests and each not in reached]
    return reached


def _every(raw: bytes) -> tuple[Digest, ...]:
    return tuple(dict.fromkeys(_parsed(_DIGEST.findall(raw))))


def _parsed(found: Iterable[bytes]) -> Iterator[Digest]:
    for each in found:
        algorithm, _, hex_part = each.decode("ascii").partition(":")
        yield Digest(algorithm, hex_part)
