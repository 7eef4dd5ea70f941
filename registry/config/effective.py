"""The configuration in force as a file that can be loaded again, with where each value came from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import yaml
from pydantic import ByteSize, SecretStr

from registry.config.given import Given, joined
from registry.config.mistakes import without_password
from registry.config.schema import fields, unserved
from registry.config.sources import DEFAULT, Configuration
from registry.config.storage import Storage
from registry.config.values import Section, go_duration, written_size

HIDDEN = "<hidden>"


@dataclass(frozen=True, slots=True)
class Setting:
    """A value in force.

    Attributes:
        value: text, number, boolean, list or mapping, with secrets hidden.
        source: `config.yml:12`, a variable, an option of the command line, or `default`; several, where several gave.
    """

    value: Any
    source: str


Node = dict[str, Any] | list[Any] | Setting  # a mapping of nodes, a list of nodes, or a value


def effective(configuration: Configuration, *, defaults: bool = True) -> dict[str, Node]:
    """Everything in force, in the order of the models; without `defaults` only what was given.

    Raises:
        ConfigError: the configuration has mistakes.
    """
    return _section(configuration.in_force(), configuration.given, defaults=defaults)


def to_yaml(found: Mapping[str, Node]) -> Iterator[str]:
    """The lines of a file, each value with its source in a comment."""
    lines = list(_lines(found))
    width = min(56, max((len(text) for text, source in lines if source), default=0))
    for text, source in lines:
        yield f"{text:<{width}}  # {source}" if source else text


def to_json(found: Mapping[str, Node]) -> dict[str, Any]:
    """The same for programs: `settings` as the file has them, `sources` by path (`notifications.endpoints[0].url`)."""
    return {"settings": _values(dict(found)), "sources": dict(_sources(dict(found), ()))}


def _section(section: Section, given: Given | None, *, defaults: bool) -> dict[str, Node]:
    found: dict[str, Node] = {}
    for key, (name, field) in zip(fields(type(section)), type(section).model_fields.items(), strict=True):
        value, below = getattr(section, name), given.child(key) if given else None
        is_beside = isinstance(section, Storage) and section.inmemory is not None and key == "filesystem"
        is_given = below is not None and set(below.sources()) != {DEFAULT}
        if value is not None and not is_beside and (defaults or is_given):
            # What is not served is not needed to see what is, and may hold keys to somewhere else.
            is_hidden = unserved(field) is not None and isinstance(value, dict | tuple)
            found[key] = _node(value, below, defaults=defaults, is_hidden=is_hidden)
    return found


def _node(value: Any, given: Given | None, *, defaults: bool, is_hidden: bool = False) -> Node:
    source = DEFAULT if given is None or given.is_empty else ", ".join(dict.fromkeys(given.sources()))

    def below(each: Any, key: str | int) -> Node:
        return _node(each, given.child(key) if given else None, defaults=defaults, is_hidden=is_hidden)

    if isinstance(value, Section):
        return _section(value, given, defaults=defaults) or Setting({}, source)
    if isinstance(value, dict) and value:
        return {key: below(each, key) for key, each in value.items()}
    if isinstance(value, tuple | list) and any(isinstance(each, Section | dict | tuple | list) for each in value):
        return [below(each, at) for at, each in enumerate(value)]
    if isinstance(value, tuple | list):
        return Setting([_shown(each, is_hidden=is_hidden) for each in value], source)
    return Setting(_shown(value, is_hidden=is_hidden), source)


def _shown(value: Any, *, is_hidden: bool) -> Any:
    if isinstance(value, SecretStr) or (is_hidden and not isinstance(value, dict)):
        return HIDDEN
    if isinstance(value, timedelta):
        return go_duration(value)
    if isinstance(value, ByteSize):
        return written_size(value)
    return value if isinstance(value, bool | int | float | dict | None) else without_password(str(value))


def _lines(node: Mapping[str, Node], indent: str = "") -> Iterator[tuple[str, str]]:
    for key, below in node.items():
        head = f"{indent}{_flow(key)}:"
        if isinstance(below, Setting):
            yield f"{head} {_flow(below.value)}", below.source
            continue
        yield head, ""
        if isinstance(below, dict):
            yield from _lines(below, f"{indent}  ")
        else:
            for each in below:
                yield from _entry(each, f"{indent}  ")


def _entry(node: Node, indent: str) -> Iterator[tuple[str, str]]:
    if isinstance(node, Setting):
        yield f"{indent}- {_flow(node.value)}", node.source
    elif isinstance(node, list):
        yield f"{indent}- {_flow(_values(node))}", ", ".join(dict.fromkeys(dict(_sources(node, ())).values()))
    else:
        for at, (text, source) in enumerate(_lines(node, f"{indent}  ")):
            yield text if at else f"{indent}- {text.lstrip()}", source


def _flow(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=float("inf"), sort_keys=False)
    return text.removesuffix("\n").removesuffix("\n...")


def _values(node: Node) -> Any:
    if isinstance(node, Setting):
        return node.value
    return (
        [_values(each) for each in node]
        if isinstance(node, list)
        else {key: _values(each) for key, each in node.items()}
    )


def _sources(node: Node, path: tuple[str | int, ...]) -> Iterator[tuple[str, str]]:
    if isinstance(node, Setting):
        yield joined(path), node.source
        return
    for key, each in enumerate(node) if isinstance(node, list) else node.items():
        yield from _sources(each, (*path, key))
