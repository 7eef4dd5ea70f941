"""What a registry does behind its answers: the paths its engine is asked for, and the faults in its log."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from storage.engine import Engine

# Written out once more, and not out of the code that is held to it.
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_HEX = r"(?:sha256/[0-9a-f]{64}|sha512/[0-9a-f]{128})"
_ALGORITHM = r"(?:sha256|sha512)"
_LINK = rf"{_HEX}(?:/link)?|{_ALGORITHM}"
_UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_TAG = r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}"
_BLOB = r"sha256/([0-9a-f]{2})/\1[0-9a-f]{62}|sha512/([0-9a-f]{2})/\2[0-9a-f]{126}"
_ROOM = "|".join(
    (
        rf"_layers(?:/(?:{_LINK}))?",
        rf"_manifests(?:/revisions(?:/(?:{_LINK}))?)?",
        rf"_manifests/tags(?:/{_TAG}(?:/current(?:/link)?|/index(?:/(?:{_LINK}))?)?)?",
        rf"_uploads(?:/{_UUID}(?:/data|/startedat)?)?",
        rf"_referrers(?:/(?:{_HEX}|{_ALGORITHM})(?:/{_ALGORITHM}|/{_HEX}(?:/descriptor)?)?)?",
    )
)
PLACE = re.compile(
    rf"docker/registry/v2/(?:blobs/(?:{_BLOB})(?:/data)?|repositories(?:/{_PART})*(?:/(?:{_ROOM}))?)"
    r"|\.layerhouse/probe",
    re.ASCII,
)


class RecordingEngine:
    """Implements `storage.engine.Engine` by handing everything on to another engine, and notes what it is asked for.

    Attributes:
        calls: method and path of all that was asked for so far.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.calls: list[tuple[str, str]] = []

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._engine, name)
        return found if name in ("start", "suspect") else self._noting(name, found)

    def _noting(self, name: str, method: Any) -> Any:
        def noted(*args: Any, **named: Any) -> Any:
            paths = args[:2] if name == "move" else args[0] if name == "discard" else args[:1]
            self.calls.extend((name, path) for path in paths)
            return method(*args, **named)

        return noted

    def strays(self) -> list[tuple[str, str]]:
        """What was asked for and lies nowhere in the tree."""
        return [(name, path) for name, path in self.calls if not is_place(path)]

    @contextmanager
    def during(self) -> Iterator[Sequence[tuple[str, str]]]:
        """Gives what is asked for within, and that alone."""
        before, self.calls = self.calls, []
        try:
            yield self.calls
        finally:
            self.calls = before


def is_place(path: str) -> bool:
    """Whether something of the registry may lie at a path, or be a folder there."""
    return PLACE.fullmatch(path) is not None


@contextmanager
def faults() -> Iterator[list[str]]:
    """What is logged within that an operator would have to look into."""
    found: list[str] = []
    handler = logging.Handler(logging.ERROR)
    handler.emit = lambda record: found.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger().addHandler(handler)
    try:
        yield found
    finally:
        logging.getLogger().removeHandler(handler)
