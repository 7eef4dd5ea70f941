"""Header grammars, parsed and rendered: what `str()` gives parses to the same value.

RFC 9110 section 14 (Range, Content-Range), section 11.6.1 (WWW-Authenticate), RFC 8288 (Link),
distribution-spec "Pushing a blob in chunks" (its own Content-Range and Range without a unit),
Docker's token specification (scope).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from ocispec.errors import GrammarError

_RANGE = re.compile(r"bytes=(\d{1,19})?-(\d{1,19})?", re.ASCII | re.IGNORECASE)
_CONTENT_RANGE = re.compile(r"bytes (?:(\d{1,19})-(\d{1,19})|\*)/(\d{1,19}|\*)", re.ASCII | re.IGNORECASE)
_CHUNK_RANGE = re.compile(r"(?:bytes[= ])?(\d{1,19})-(\d{1,19})", re.ASCII)
_TCHAR = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_QUOTED = r'"((?:[^"\\]|\\.)*)"'
_PARAMETER = re.compile(rf"\s*({_TCHAR})\s*=\s*(?:{_QUOTED}|({_TCHAR}))\s*(?:,|$)", re.ASCII)
_LINK = re.compile(rf"\s*<([^>]*)>((?:\s*;\s*{_TCHAR}\s*=\s*(?:{_QUOTED}|{_TCHAR}))*)\s*(?:,|$)", re.ASCII)
_LINK_PARAMETER = re.compile(rf";\s*({_TCHAR})\s*=\s*(?:{_QUOTED}|({_TCHAR}))", re.ASCII)
_SCOPE = re.compile(r"([a-z0-9]+(?:\([a-z0-9]+\))?):(.+):([a-z,*]*)", re.ASCII)


@dataclass(frozen=True, slots=True)
class ByteRange:
    """A `Range` of one part: `first-last`, `first-`, or the last `-suffix` bytes.

    Attributes:
        first: offset of the first byte; None for a suffix.
        last: offset of the last byte, inclusive; the length for a suffix; None up to the end.
    """

    first: int | None
    last: int | None

    @classmethod
    def parse(cls, text: str) -> ByteRange:
        """Raises GrammarError: another unit, several parts, or no range at all; a server may ignore such a header."""
        match = _RANGE.fullmatch(text.strip())
        if not match or match[1] is None is match[2]:
            raise GrammarError(f"invalid Range {text!r:.120}: expected bytes=first-last")
        return cls(*(int(part) if part is not None else None for part in match.groups()))

    def within(self, size: int) -> tuple[int, int] | None:
        """Returns offset and length of what `size` bytes can give, None where nothing (416)."""
        if self.first is None:
            length = min(self.last or 0, size)
            return (size - length, length) if length else None
        last = min(size - 1, self.last if self.last is not None else size - 1)
        return (self.first, last - self.first + 1) if self.first <= last else None

    def __str__(self) -> str:
        return f"bytes={'' if self.first is None else self.first}-{'' if self.last is None else self.last}"


@dataclass(frozen=True, slots=True)
class ContentRange:
    """The `Content-Range` of an answer.

    Attributes:
        first, last: offsets of the first and last byte, inclusive; None where unsatisfied (`bytes */size`).
        size: length of the whole, None where unknown.
    """

    first: int | None
    last: int | None
    size: int | None

    @classmethod
    def parse(cls, text: str) -> ContentRange:
        """Raises GrammarError: not the grammar, or offsets that no content can have."""
        match = _CONTENT_RANGE.fullmatch(text.strip())
        if not match:
            raise GrammarError(f"invalid Content-Range {text!r:.120}: expected bytes first-last/size")
        first, last, size = (int(part) if part and part != "*" else None for part in match.groups())
        if first is not None and last is not None and (last < first or (size is not None and last >= size)):
            raise GrammarError(f"invalid Content-Range {text!r:.120}: the offsets contradict each other")
        return cls(first, last, size)

    def __str__(self) -> str:
        span = "*" if self.first is None else f"{self.first}-{self.last}"
        return f"bytes {span}/{'*' if self.size is None else self.size}"


@dataclass(frozen=True, slots=True)
class ChunkRange:
    """The specification's `Content-Range` of a chunk and `Range` of an upload: `first-last`, inclusive, no unit."""

    first: int
    last: int

    @classmethod
    def parse(cls, text: str) -> ChunkRange:
        """Raises GrammarError: not the grammar, or the last offset below the first."""
        match = _CHUNK_RANGE.fullmatch(text.strip())
        if not match or int(match[2]) < int(match[1]):
            raise GrammarError(f"invalid Content-Range {text!r:.120}: expected first-last, both inclusive")
        return cls(int(match[1]), int(match[2]))

    @classmethod
    def of_size(cls, size: int) -> ChunkRange:
        """What an upload of `size` bytes answers; the grammar has no empty range, so none shows as `0-0`."""
        return cls(0, max(0, size - 1))

    @property
    def length(self) -> int:
        return self.last - self.first + 1

    def __str__(self) -> str:
        return f"{self.first}-{self.last}"


@dataclass(frozen=True, slots=True)
class Link:
    """One link of a `Link` header: target and parameters (`rel` among them)."""

    target: str
    parameters: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> tuple[Link, ...]:
        """Reads all links of a header; raises GrammarError."""
        links, position = [], 0
        while position < len(text):
            match = _LINK.match(text, position)
            if not match:
                raise GrammarError(f'invalid Link {text!r:.200}: expected <url>; rel="next"')
            links.append(cls(match[1], _parameters(_LINK_PARAMETER, match[2])))
            position = match.end()
        return tuple(links)

    def __str__(self) -> str:
        return f"<{self.target}>" + "".join(f"; {name}={_quote(text)}" for name, text in self.parameters.items())


def next_link(header: str) -> str | None:
    """Returns the target of the link with `rel="next"`; raises GrammarError."""
    return next((link.target for link in Link.parse(header) if link.parameters.get("rel") == "next"), None)


@dataclass(frozen=True, slots=True)
class Challenge:
    """One challenge of a `WWW-Authenticate` header: scheme in lower case, parameters by lower-case name."""

    scheme: str
    parameters: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> Challenge:
        """Raises GrammarError: no scheme followed by parameters."""
        scheme, _, rest = text.strip().partition(" ")
        parameters, position = {}, 0
        while position < len(rest):
            match = _PARAMETER.match(rest, position)
            if not match:
                raise GrammarError(f'invalid WWW-Authenticate {text!r:.200}: expected Bearer realm="…",service="…"')
            parameters[match[1].lower()] = _unquote(match[2], match[3])
            position = match.end()
        if not re.fullmatch(_TCHAR, scheme):
            raise GrammarError(f"invalid WWW-Authenticate {text!r:.200}: no scheme")
        return cls(scheme.lower(), parameters)

    def __str__(self) -> str:
        parameters = ",".join(f"{name}={_quote(text)}" for name, text in self.parameters.items())
        return f"{self.scheme.capitalize()} {parameters}".rstrip()


@dataclass(frozen=True, slots=True)
class Scope:
    """What a token is asked for: `repository:library/node:pull,push`."""

    type: str
    name: str
    actions: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> Scope:
        """Raises GrammarError."""
        match = _SCOPE.fullmatch(text)
        if not match:
            raise GrammarError(f"invalid scope {text!r:.200}: expected type:name:action,action")
        return cls(match[1], match[2], tuple(each for each in match[3].split(",") if each))

    def __str__(self) -> str:
        return f"{self.type}:{self.name}:{','.join(self.actions)}"


def _parameters(pattern: re.Pattern[str], text: str) -> dict[str, str]:
    return {match[1].lower(): _unquote(match[2], match[3]) for match in pattern.finditer(text)}


def _unquote(quoted: str | None, token: str | None) -> str:
    return re.sub(r"\\(.)", r"\1", quoted, flags=re.DOTALL) if quoted is not None else token or ""


def _quote(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
