"""Platforms: what an image runs on, and which of an index's images runs best here (image-spec, image-index.md).

The order of preference is containerd's: arm64 v8 runs arm 32-bit v8 down to v5, arm vN runs vN down to v5,
amd64 vN runs vN down to v1, arm64 vN.M runs lower versions; nothing else crosses architectures.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from platform import machine
from typing import Any, TypeVar

from ocispec.errors import GrammarError

_PART = re.compile(r"[A-Za-z0-9_.-]+", re.ASCII)
_ARCHITECTURES = {
    "x86_64": ("amd64", None),
    "x86-64": ("amd64", None),
    "aarch64": ("arm64", None),
    "armhf": ("arm", "v7"),
    "armel": ("arm", "v6"),
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
    "i386": ("386", None),
    "i686": ("386", None),
}
_SYSTEMS = {"macos": "darwin", "win32": "windows"}
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
        """Reads `os/architecture[/variant]`, or an architecture alone for Linux.

        Raises:
            GrammarError: not that grammar.
        """
        parts = text.split("/")
        if len(parts) > 3 or not all(_PART.fullmatch(part) for part in parts):
            raise GrammarError(f"invalid platform {text!r}: expected os/architecture[/variant], like linux/arm64/v8")
        if len(parts) == 1:
            parts = ["linux", *parts]
        return cls.normal(*parts)

    @classmethod
    def normal(cls, os: str, architecture: str, variant: str | None = None, os_version: str | None = None) -> Platform:
        """Returns the platform with every name in the form that Go uses."""
        known, known_variant = _ARCHITECTURES.get(architecture.lower(), (architecture.lower(), None))
        given = _normal_variant(known, (variant or known_variant or "").lower())
        return cls(_SYSTEMS.get(os.lower(), os.lower()), known, given, os_version)

    @classmethod
    def from_json(cls, value: Any) -> Platform:
        """Reads a descriptor's `platform`; raises GrammarError where os or architecture is no string."""
        fields = value if isinstance(value, dict) else {}
        os, architecture = fields.get("os"), fields.get("architecture")
        if not isinstance(os, str) or not isinstance(architecture, str):
            raise GrammarError("a platform needs the strings 'os' and 'architecture'")
        variant, version = fields.get("variant"), fields.get("os.version")
        return cls.normal(os, architecture, variant if isinstance(variant, str) else None, version or None)

    @classmethod
    def here(cls) -> Platform:
        """The platform this process runs on; images for it are Linux images on macOS, as docker has it."""
        os = "windows" if sys.platform == "win32" else "linux"
        return cls.normal(os, machine() or "amd64")

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)

    def runs(self) -> tuple[Platform, ...]:
        """All platforms whose images run here, best first."""
        own = tuple(Platform(self.os, self.architecture, each) for each in _variants(self.architecture, self.variant))
        if self.architecture != "arm64":
            return own
        return own + tuple(Platform(self.os, "arm", _normal_variant("arm", f"v{n}")) for n in (8, 7, 6, 5))

    def rank(self, image: Platform) -> int | None:
        """How well `image` runs here: 0 is best, None is not at all."""
        if self.os_version and image.os_version and self.os_version != image.os_version:
            return None
        bare = Platform(image.os, image.architecture, image.variant)
        runs = self.runs()
        return runs.index(bare) if bare in runs else None


def best(wanted: Platform, choices: Iterable[tuple[Platform, T]]) -> T | None:
    """Returns the choice that runs best on `wanted`, the earlier of equals; None where none runs."""
    ranked = [(rank, order, each) for order, (platform, each) in enumerate(choices)
              if (rank := wanted.rank(platform)) is not None]  # fmt: skip
    return min(ranked, key=lambda item: item[:2])[2] if ranked else None


def _normal_variant(architecture: str, variant: str) -> str | None:
    if variant.isdecimal():
        variant = f"v{variant}"
    if architecture == "arm64" and variant == "v8.0":
        variant = "v8"
    return None if variant in ("", _DEFAULT_VARIANTS.get(architecture)) else variant


def _variants(architecture: str, variant: str | None) -> Sequence[str | None]:
    full = variant or _DEFAULT_VARIANTS.get(architecture)
    match = re.fullmatch(r"v(\d{1,2})(?:\.(\d{1,2}))?", full or "")
    if not match or architecture not in _DEFAULT_VARIANTS:
        return (variant,)
    major, minor = int(match[1]), int(match[2] or 0)
    if architecture == "arm64":
        versions = [f"v{m}.{n}" for m in range(major, 7, -1) for n in range(minor if m == major else 9, -1, -1)]
        names = [name.removesuffix(".0") for name in versions]
    else:
        lowest = 5 if architecture == "arm" else 1
        names = [f"v{number}" for number in range(major, lowest - 1, -1)]
    return [_normal_variant(architecture, name) for name in names] or (variant,)
