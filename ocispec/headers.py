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

_NUMBER = r"([0-9]{1,19})"
_RANGE = re.compile(rf"bytes={_NUMBER}?-{_NUMBER}?", re.ASCII | re.IGNORECASE)
_CONTENT_RANGE = re.compile(rf"bytes (?:{_NUMBER}-{_NUMBER}/(?:{_NUMBER}|\*)|\*/{_NUMBER})", re.ASCII | re.IGNORECASE)
_CHUNK_RANGE = re.compile(rf"(?:bytes[= ])?{_NUMBER}-{_NUMBER}", re.ASCII | re.IGNORECASE)
_SPACE = " \t"
_OWS = r"[ \t]*"
_WORD = r"([!#$%&'*+.^_`|~0-9A-Za-z-]+)"
_TEXT = r"[^\"\\\x00-\x08\n-\x1f\x7f]*"
_QUOTED = rf'"({_TEXT}(?:\\[^\x00-\x08\n-\x1f\x7f]{_TEXT})*)"'
_ASSIGNED = rf"{_OWS}={_OWS}(?:{_QUOTED}|{_WORD})"
_SCHEME = re.compile(rf"{_WORD}(?: +|\Z)")
_TOKEN68 = rf"[A-Za-z0-9._~+/-]+=*{_OWS}(?:,|\Z)"
_NEXT_CHALLENGE = re.compile(rf"[ \t,]*{_WORD}(?:{_OWS}(?:,|\Z)| +(?:{_TOKEN68})?)")
_PARAMETER = re.compile(rf"{_OWS}{_WORD}{_ASSIGNED}{_OWS}(?:,|\Z)")
_LINK = re.compile(r"<([^<>\x00-\x1f\x7f]*)>")
_LINK_PARAMETER = re.compile(rf"{_OWS};{_OWS}{_WORD}(?:{_ASSIGNED})?")
_LINK_END = re.compile(rf"{_OWS}(?:,[ \t,]*|\Z)")
_SCOPE = re.compile(r"([a-z0-9]+(?:\([a-z0-9]+\))?):([!-~]+):((?:[a-z*]+(?:,[a-z*]+)*)?)")


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
        match = _RANGE.fullmatch(text.strip(_SPACE))
        if not match or match[1] is None is match[2]:
            raise GrammarError(f"invalid Range {text[:120]!r}: expected bytes=first-last")
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
        match = _CONTENT_RANGE.fullmatch(text.strip(_SPACE))
        if not match:
            raise GrammarError(f"invalid Content-Range {text[:120]!r}: expected bytes first-last/size")
        first, last, size = (int(part) if part else None for part in (match[1], match[2], match[3] or match[4]))
        if first is not None and last is not None and (last < first or (size is not None and last >= size)):
            raise GrammarError(f"invalid Content-Range {text[:120]!r}: the offsets contradict each other")
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
        match = _CHUNK_RANGE.fullmatch(text.strip(_SPACE))
        if not match or int(match[2]) < int(match[1]):
            raise GrammarError(f"invalid Content-Range {text[:120]!r}: expected first-last, both inclusive")
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
        links, position, text = [], 0, text.strip(" \t,")
        while position < len(text):
            match = _LINK.match(text, position)
            parameters, position = _parameters(_LINK_PARAMETER, text, match.end()) if match else ({}, position)
            end = _LINK_END.match(text, position)
            if not match or not end:
                raise GrammarError(f'invalid Link {text[:200]!r}: expected <url>; rel="next"')
            links.append(cls(match[1], parameters))
            position = end.end()
        return tuple(links)

    def __str__(self) -> str:
        return f"<{self.target}>" + "".join(f"; {name}={_quote(text)}" for name, text in self.parameters.items())


def next_link(header: str) -> str | None:
    """Returns the target of the first link whose `rel` has `next`; raises GrammarError."""
    links = (link for link in Link.parse(header) if "next" in link.parameters.get("rel", "").lower().split())
    return next((link.target for link in links), None)


@dataclass(frozen=True, slots=True)
class Challenge:
    """One challenge of a `WWW-Authenticate` header: scheme in lower case, parameters by lower-case name."""

    scheme: str
    parameters: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> Challenge:
        """Raises GrammarError: no scheme followed by parameters."""
        text = text.strip(_SPACE)
        match = _SCHEME.match(text)
        parameters, end = _parameters(_PARAMETER, text, match.end()) if match else ({}, 0)
        if not match or end < len(text):
            raise GrammarError(f'invalid WWW-Authenticate {text[:200]!r}: expected Bearer realm="…",service="…"')
        return cls(match[1].lower(), parameters)

    @classmethod
    def parse_all(cls, text: str) -> tuple[Challenge, ...]:
        """Reads all challenges of a header; what Negotiate and its like say without a name is left out.

        Raises:
            GrammarError: no scheme followed by parameters, then a comma and the next.
        """
        found, position, text = [], 0, text.strip(" \t,")
        while position < len(text):
            match = _NEXT_CHALLENGE.match(text, position)
            if not match:
                raise GrammarError(f'invalid WWW-Authenticate {text[:200]!r}: expected Bearer realm="…",service="…"')
            parameters, position = _parameters(_PARAMETER, text, match.end())
            found.append(cls(match[1].lower(), parameters))
        return tuple(found)

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
            raise GrammarError(f"invalid scope {text[:200]!r}: expected type:name:action,action")
        return cls(match[1], match[2], tuple(match[3].split(",")) if match[3] else ())

    def __str__(self) -> str:
        return f"{self.type}:{self.name}:{','.join(self.actions)}"


def _parameters(pattern: re.Pattern[str], text: str, position: int) -> tuple[dict[str, str], int]:
    found: dict[str, str] = {}
    while match := pattern.match(text, position):
        # Of a doubled parameter the first counts (RFC 8288, section 3.3).
        found.setdefault(match[1].lower(), _unquote(match[2]) if match[2] is not None else match[3] or "")
        position = match.end()
    return found, position


def _unquote(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text)


def _quote(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
