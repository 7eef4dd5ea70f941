"""Records of pax extended headers (POSIX.1-2001, "pax Extended Header"), which layers and archives have alike."""

from __future__ import annotations

from collections.abc import Iterator

from ocispec.errors import GrammarError


def records(body: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yields keyword and value of each record `length SP keyword=value LF`.

    Raises:
        GrammarError: the body is none of records alone.
    """
    start = 0
    while start < len(body):
        space = body.find(b" ", start, start + 20)
        digits = body[start:space] if space > 0 else b""
        end = start + int(digits) if digits.isdigit() else 0
        keyword, equals, value = body[space + 1 : end - 1].partition(b"=")
        if not (space < end <= len(body) and body[end - 1 : end] == b"\n" and keyword and equals):
            raise GrammarError("an extended header breaks the grammar of pax")
        yield keyword, value
        start = end
