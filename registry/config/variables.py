"""`REGISTRY_A_B_C` stands above `a.b.c` of the file, by Distribution's rules (its `configuration/parser.go`)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from registry.config.given import Given, joined
from registry.config.schema import Shape, fields
from registry.config.settings import Settings
from registry.config.values import ConfigError
from registry.config.yamltext import parse

PREFIX = "REGISTRY_"
PATH = "REGISTRY_CONFIGURATION_PATH"
# Words of other programs: podman's, skopeo's and our own client's credentials; what Kubernetes tells every container
# beside a service that is called "registry".
_OF_OTHERS = re.compile(rf"{PATH}|REGISTRY_AUTH_FILE|REGISTRY_SERVICE_(HOST|PORT\w*)|REGISTRY_PORT(_\d+_\w+)?")
# Distribution's variables bear the names that its source has for the fields, and in these they are not the file's.
_NAMES = {
    "notifications": {"EVENTCONFIG": "events"},
    "health": {"FILECHECKERS": "file", "HTTPCHECKERS": "http", "TCPCHECKERS": "tcp"},
}
# Below these an unknown word is a driver, or a kind of authentication, that we do not have: never only a warning.
CHOICES = ("storage", "auth")
_ANY = Shape("any")


@dataclass(slots=True)
class Variables:
    """Enters variables into what the file gave.

    Attributes:
        unknown: names of variables that are no setting.
        emptied: (variable, key, where the value was given) of variables without a value that took one away.
        mistakes: one line each.
    """

    unknown: list[str] = field(default_factory=list)
    emptied: list[tuple[str, str, str]] = field(default_factory=list)
    mistakes: list[str] = field(default_factory=list)

    def enter(self, root: Given, environment: Mapping[str, str]) -> None:
        """Overrides `root` in place; a section before what lies below it, an index before the next one."""
        names = [name for name in environment if name.startswith(PREFIX) and not _OF_OTHERS.fullmatch(name)]
        for name in sorted(names, key=_order):
            try:
                self._one(root, name, environment[name])
            except ConfigError as error:
                self.mistakes.extend(error.message.splitlines())

    def _one(self, root: Given, name: str, text: str) -> None:
        here: Given | None = root
        path, shapes = list[str | int](), [Shape("section", Settings)]
        for word in name.removeprefix(PREFIX).split("_"):
            step = self._step(here, shapes[-1], path, word)
            if step is None:
                self.unknown.append(name)
                return
            _require_index(here, step[0], joined(path), name)
            here = here.child(step[0]) if here else None
            path.append(step[0])
            shapes.append(step[1])
        opened = root
        for key, shape in zip(path[:-1], shapes[1:], strict=False):
            opened = _opened(opened, key, shape, name)
        self._set(opened, path, name, _value(text, name, shapes[-1]))

    def _step(
        self, here: Given | None, found: Shape, path: list[str | int], word: str
    ) -> tuple[str | int, Shape] | None:
        """The key that a word of a variable means at this place, and what may stand there."""
        key: str | int | None = None
        if found.kind == "section":
            key = _NAMES.get(joined(path), {}).get(word) or next(
                (key for key in fields(found.inner) if key.upper() == word), None
            )
            if key is None and joined(path) in CHOICES and word:
                return word.lower(), _ANY
        elif found.kind == "list":
            key = int(word) if re.fullmatch(r"\d{1,6}", word, re.ASCII) else None
        elif found.kind in ("map", "any") and word:
            present = here.value if here and isinstance(here.value, dict) else {}
            key = next((key for key in present if key.upper() == word.upper()), word.lower())
        below = found.below(key) if key is not None else None
        return (key, below) if key is not None and below is not None else None

    def _set(self, here: Given, path: list[str | int], name: str, given: Given) -> None:
        key = path[-1]
        if given.is_empty:
            before = here.child(key)
            if before is not None and not before.is_empty:
                self.emptied.append((name, joined(path), next(before.sources())))
            given = Given(None, name)
        given = named(given) if joined(path) in CHOICES else given
        if isinstance(here.value, list) and isinstance(key, int):
            here.value[key : key + 1] = [given]
        elif isinstance(here.value, dict):
            here.value[str(key)] = given


def named(given: Given) -> Given:
    """`storage: inmemory` and `auth: none` are short for a section without keys."""
    if isinstance(given.value, str) and given.value:
        return Given({given.value: Given({}, given.source)}, given.source)
    return given


def _order(name: str) -> list[tuple[int, int, str]]:
    """Words in their order, numbers in theirs: `…_2_…` before `…_10_…`."""
    return [(0, int(word), "") if word.isdecimal() else (1, 0, word) for word in name.split("_")]


def _require_index(here: Given | None, key: str | int, path: str, name: str) -> None:
    """A list grows by one entry at a time, as in Distribution."""
    there = len(here.value) if here and isinstance(here.value, list) else 0
    if isinstance(key, int) and key > there:
        raise ConfigError(f"{name}: {path}: has {there} entries, expected an index from 0 to {there}, got {key}")


def _opened(here: Given, key: str | int, found: Shape, name: str) -> Given:
    """What lies below a key, made where it is not there, or is nothing that has keys."""
    below = here.child(key)
    is_list = found.kind == "list"
    if below is None or not isinstance(below.value, list if is_list else dict):
        below = Given([] if is_list else {}, name)
        if isinstance(here.value, list) and isinstance(key, int):
            here.value[key : key + 1] = [below]
        elif isinstance(here.value, dict):
            here.value[str(key)] = below
    return below


def _value(text: str, name: str, found: Shape) -> Given:
    """A value is YAML; what is none, or is a mapping where one text is wanted, is taken as it stands."""
    try:
        given = parse(text, lambda _line: name) if text.strip() else Given(None, name)
    except ConfigError:
        if found.kind != "value":
            raise
        return Given.text(text, name)
    is_text = found.kind != "value" or given.value is None or isinstance(given.value, str)
    return given if is_text else Given.text(text, name)
