"""What the sources give: a tree of keys in which every value knows where it came from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(slots=True)
class Given:
    """One value, and where it was given.

    Attributes:
        value: mapping, list, or the text of a scalar as it is written; None where the scalar is null.
        source: `config.yml:12`, the name of a variable, an option of the command line, or `default`.
        resolved: what YAML makes of a scalar: number, boolean, text or None.
    """

    value: dict[str, Given] | list[Given] | str | None
    source: str
    resolved: Any = None

    @classmethod
    def text(cls, text: str, source: str) -> Given:
        """A scalar that is text, whatever it looks like."""
        return cls(text, source, text)

    @property
    def is_empty(self) -> bool:
        """Null, or a text without a character: in Distribution both leave a key at its default."""
        return self.value is None or self.value == ""

    def child(self, key: str | int) -> Given | None:
        """What lies below a key or an index."""
        if isinstance(self.value, dict):
            return self.value.get(str(key))
        if isinstance(self.value, list) and isinstance(key, int) and key < len(self.value):
            return self.value[key]
        return None

    def nearest(self, keys: Sequence[str | int]) -> tuple[Given, int]:
        """What lies deepest along `keys`, and how many of them led there."""
        found, depth = self, 0
        for key in keys:
            below = found.child(key)
            if below is None:
                break
            found, depth = below, depth + 1
        return found, depth

    def enter(self, keys: Sequence[str], given: Given) -> None:
        """Puts a value below `keys`, making the mappings that are not there."""
        here = self
        for key in keys[:-1]:
            here = here.section(key, given.source)
        if isinstance(here.value, dict):
            here.value[keys[-1]] = given

    def section(self, key: str, source: str) -> Given:
        """The mapping below `key`; a new one where something else, or nothing, is."""
        if not isinstance(self.value, dict):
            self.value = {}
        below = self.value.get(key)
        if below is None or not isinstance(below.value, dict):
            below = self.value[key] = Given({}, below.source if below else source)
        return below

    def sources(self) -> Iterator[str]:
        """Where its scalars, or it itself where it has none, were given."""
        below = self.value.values() if isinstance(self.value, dict) else self.value
        if isinstance(below, str) or not below:
            yield self.source
            return
        for each in below:
            yield from each.sources()

    def unwrap(self) -> Any:
        """The tree without its sources, as YAML reads it."""
        if isinstance(self.value, dict):
            return {key: each.unwrap() for key, each in self.value.items()}
        if isinstance(self.value, list):
            return [each.unwrap() for each in self.value]
        return self.resolved


def joined(path: Sequence[str | int]) -> str:
    """A path as it is written: `notifications.endpoints[0].url`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")
