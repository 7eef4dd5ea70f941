"""Platforms: what an image runs on, and which of an index's images runs best here (image-spec, image-index.md).

platform = [os ["(" os.version ")"] "/"] architecture ["/" variant], or an os alone

The order of preference is containerd's: amd64 vN runs vN down to v1, then 386; arm vN runs vN down to v5;
arm64 v8.N runs v8.N down to v8, v9.N runs v9.N down to v9, then v8.(N+5) down to v8 (the baseline it grew from);
every arm64 then runs arm v8 down to v5.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from platform import machine
from typing import Any, TypeVar

from ocispec.errors import GrammarError
from ocispec.members import as_object, as_string, optional_string

_PART = r"([A-Za-z0-9_.-]+)"
_GRAMMAR = re.compile(rf"(?:{_PART}(?:\({_PART}\))?/)?{_PART}(?:/{_PART})?")
_VERSION = re.compile(r"v?([0-9]{1,2})(?:\.([0-9]{1,2}))?")
_ARCHITECTURES = {
    "x86_64": ("amd64", ""),
    "x86-64": ("amd64", ""),
    "aarch64": ("arm64", ""),
    "armhf": ("arm", "v7"),
    "armel": ("arm", "v6"),
    "armv8l": ("arm", "v8"),
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
    "i386": ("386", ""),
    "i686": ("386", ""),
    "loongarch64": ("loong64", ""),
}
_SYSTEMS = {"macos": "darwin", "win32": "windows"}
_KNOWN_SYSTEMS = frozenset({"linux", "windows", "darwin", "freebsd"})
_DEFAULT_VARIANTS = {"arm": "v7", "arm64": "v8", "amd64": "v1"}

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Platform:
    """One platform in its normal form.

    Attributes:
        os: `linux`, `windows`, …, as Go names them.
        architecture: `amd64`, `arm64`, …, as Go names them.
        variant: version of the processor, None where it is the architecture's default.
        os_version: exact build of the system, used by Windows images.
    """

    os: str
    architecture: str
    variant: str | None = None
    os_version: str | None = None

    @classmethod
    def parse(cls, text: str) -> Platform:
        """Reads the grammar above; an architecture alone is Linux's, a system alone is of this machine's architecture.

        Raises:
            GrammarError: not that grammar.
        """
        match = _GRAMMAR.fullmatch(text)
        if not match:
            expected = "expected os/architecture[/variant], like linux/arm64/v8"
            raise GrammarError(f"invalid platform {text[:200]!r}: {expected}")
        os, version, architecture, variant = match.groups()
        alone = _system(architecture)
        if os is None and variant is None and alone in _KNOWN_SYSTEMS:
            return replace(cls.here(), os=alone)
        return cls.normal(os or "linux", architecture, variant, version)

    @classmethod
    def normal(cls, os: str, architecture: str, variant: str | None = None, os_version: str | None = None) -> Platform:
        """Returns the platform with every name in the form that Go uses."""
        lower = architecture.lower()
        known, implied = _ARCHITECTURES.get(lower, (lower, ""))
        return cls(_system(os), known, _normal_variant(known, implied or (variant or "").lower()), os_version)

    @classmethod
    def from_json(cls, value: Any, where: str = "platform") -> Platform:
        """Reads a descriptor's `platform`; raises GrammarError where a member is missing or no string."""
        fields = as_object(value, where)
        return cls.normal(
            as_string(fields.get("os"), f"{where}.os"),
            as_string(fields.get("architecture"), f"{where}.architecture"),
            optional_string(fields.get("variant"), f"{where}.variant"),
            optional_string(fields.get("os.version"), f"{where}.os.version"),
        )

    def to_json(self) -> dict[str, str]:
        """Returns the members that stand; `from_json` reads the same platform from them."""
        optional = {"os.version": self.os_version, "variant": self.variant}
        given = {name: text for name, text in optional.items() if text}
        return {"architecture": self.architecture, "os": self.os, **given}

    @classmethod
    def here(cls) -> Platform:
        """The platform this process runs on; images for it are Linux images on macOS, as docker has it."""
        return cls.normal("windows" if sys.platform == "win32" else "linux", machine() or "amd64")

    def __str__(self) -> str:
        os = f"{self.os}({self.os_version})" if self.os_version else self.os
        return "/".join((os, self.architecture, *((self.variant,) if self.variant else ())))

    def runs(self) -> tuple[Platform, ...]:
        """All platforms whose images run here, best first, without an `os_version`."""
        older = (Platform(self.os, *each) for each in _older(self.architecture, self.variant))
        return (Platform(self.os, self.architecture, self.variant), *older)

    def rank(self, image: Platform) -> int | None:
        """How well `image` runs here: 0 is best, None is not at all.

        Where both have an `os_version`, major, minor and build must agree: Windows shares no kernel across builds.
        """
        if self.os_version and image.os_version and _build(self.os_version) != _build(image.os_version):
            return None
        bare, runs = replace(image, os_version=None), self.runs()
        return runs.index(bare) if bare in runs else None


def best(wanted: Platform, choices: Iterable[tuple[Platform, T]]) -> T | None:
    """Returns the choice that runs best on `wanted`, the earlier of equals; None where none runs."""
    ranked = [(rank, each) for platform, each in choices if (rank := wanted.rank(platform)) is not None]
    return min(ranked, key=lambda item: item[0])[1] if ranked else None


def _system(os: str) -> str:
    return _SYSTEMS.get(os.lower(), os.lower())


def _build(version: str) -> list[str]:
    return version.split(".")[:3]


def _normal_variant(architecture: str, variant: str) -> str | None:
    match = _VERSION.fullmatch(variant)
    if match and architecture in _DEFAULT_VARIANTS:
        return _named(architecture, int(match[1]), int(match[2] or 0))[1]
    return variant or None


def _named(architecture: str, major: int, minor: int = 0) -> tuple[str, str | None]:
    variant = f"v{major}.{minor}" if minor else f"v{major}"
    return architecture, None if variant == _DEFAULT_VARIANTS[architecture] else variant


def _older(architecture: str, variant: str | None) -> Iterator[tuple[str, str | None]]:
    match = _VERSION.fullmatch(variant or _DEFAULT_VARIANTS.get(architecture, ""))
    major, minor = (int(match[1]), int(match[2] or 0)) if match else (0, 0)
    if architecture == "amd64":
        yield from (_named("amd64", n) for n in range(major - 1, 0, -1))
        yield "386", None
    elif architecture == "arm":
        yield from (_named("arm", n) for n in range(major - 1, 4, -1))
    elif architecture == "arm64":
        yield from (_named("arm64", major, n) for n in range(minor - 1, -1, -1))
        # v8 ends at v8.9.
        yield from (_named("arm64", 8, n) for n in range(min(minor + 5, 9), -1, -1) if major == 9)
        yield from (_named("arm", n) for n in (8, 7, 6, 5))
    elif variant:
        # An image that asks for no version of its processor runs on all of them.
        yield architecture, None
