"""YAML with line numbers: a text becomes a tree of `Given`."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import yaml
from yaml.constructor import SafeConstructor

from registry.config.given import Given
from registry.config.values import ConfigError

# A file of a hundred lines has some hundred values; aliases of aliases make thousands of millions.
_MOST_VALUES = 100_000
_DEEPEST = 50
_CONSTRUCTED = frozenset(f"tag:yaml.org,2002:{kind}" for kind in ("bool", "int", "float", "null"))
_MERGE = "tag:yaml.org,2002:merge"


def parse(text: bytes | str, source: Callable[[int], str]) -> Given:
    """Reads one YAML document; `source` names a line, counted from 1.

    Raises:
        ConfigError: it is no YAML, is endless, or gives a key twice; every doubled key is one line of the message.
    """
    reading = _Reading(source)
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        given = Given({}, source(1)) if root is None else reading.given(root)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(f"{source(line)}: no YAML: {_told(error)}") from error
    except yaml.reader.ReaderError as error:
        raise ConfigError(f"{source(1)}: no YAML: {error.reason}") from error
    except RecursionError as error:
        raise ConfigError(f"{source(1)}: nested too deeply") from error
    if reading.mistakes:
        raise ConfigError("\n".join(reading.mistakes))
    return given


class _Reading:
    """Makes `Given` of the nodes of one document."""

    def __init__(self, source: Callable[[int], str]) -> None:
        self._source = source
        self._constructor = SafeConstructor()
        self._open: set[int] = set()
        self._count = 0
        self.mistakes: list[str] = []

    def given(self, node: yaml.Node) -> Given:
        source = self._source(node.start_mark.line + 1)
        self._count += 1
        if id(node) in self._open:
            raise ConfigError(f"{source}: an alias that holds itself")
        if self._count > _MOST_VALUES or len(self._open) > _DEEPEST:
            raise ConfigError(f"{source}: expected at most {_MOST_VALUES} values, nested at most {_DEEPEST} deep")
        self._open.add(id(node))
        try:
            if isinstance(node, yaml.MappingNode):
                return Given(self._mapping(node), source)
            if isinstance(node, yaml.SequenceNode):
                return Given([self.given(each) for each in node.value], source)
            return self._scalar(node, source)
        finally:
            self._open.discard(id(node))

    def _scalar(self, node: yaml.Node, source: str) -> Given:
        resolved = node.value
        if node.tag in _CONSTRUCTED:
            try:
                resolved = self._constructor.construct_object(node)
            except (ValueError, yaml.YAMLError):
                resolved = node.value
        return Given(None if resolved is None else node.value, source, resolved)

    def _mapping(self, node: yaml.MappingNode) -> dict[str, Given]:
        found: dict[str, Given] = {}
        lines: dict[str, int] = {}
        merged: list[Given] = []
        for key, value in node.value:
            line = key.start_mark.line + 1
            if key.tag == _MERGE:
                merged.extend(self._merged(value, line))
            elif not isinstance(key, yaml.ScalarNode):
                self.mistakes.append(f"{self._source(line)}: expected a name before the colon")
            elif key.value in lines:
                told = f"{key.value!r:.80}: given twice, first in line {lines[key.value]}"
                self.mistakes.append(f"{self._source(line)}: {told}")
            else:
                lines[key.value] = line
                below = self.given(value)
                # Where the key stands: a mapping begins a line below it.
                found[key.value] = Given(below.value, self._source(line), below.resolved)
        for each in merged:
            found = {**(each.value if isinstance(each.value, dict) else {}), **found}
        return found

    def _merged(self, value: yaml.Node, line: int) -> Iterator[Given]:
        for node in value.value if isinstance(value, yaml.SequenceNode) else (value,):
            if isinstance(node, yaml.MappingNode):
                yield self.given(node)
            else:
                self.mistakes.append(f"{self._source(line)}: expected an alias of a mapping after <<")


def _told(error: yaml.MarkedYAMLError) -> str:
    return ", ".join(" ".join(part.split()) for part in (error.context, error.problem) if part)
