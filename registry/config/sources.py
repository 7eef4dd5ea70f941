"""Where a configuration comes from: a file, the variables above it, and the command line above both."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from registry.config import mistakes
from registry.config.given import Given
from registry.config.schema import Shape, fields, shape, unserved
from registry.config.settings import Settings
from registry.config.storage import BESIDE_DRIVERS, DRIVERS
from registry.config.values import ConfigError, Section
from registry.config.variables import CHOICES, PATH, Variables, named
from registry.config.yamltext import parse

_log = logging.getLogger("registry")
DEFAULT_ROOT = Path("registry-data")
# The image of this project says here where a file may be mounted; nobody else sets it.
_PATHS = "LAYERHOUSE_CONFIGURATION_PATHS"
DEFAULT = "default"
_ROOT = Shape("section", Settings)


@dataclass(frozen=True, slots=True)
class Remark:
    """Something about a configuration that can be used.

    Attributes:
        text: one line: where it was given, the key, what happens.
        is_harmless: nothing goes on that was not asked for; worth a line all the same.
    """

    text: str
    is_harmless: bool = False


@dataclass(frozen=True, slots=True)
class Configuration:
    """A configuration, with where each of its values came from.

    Attributes:
        file: the file that was read; None where there was none.
        settings: what is in force; None where there are mistakes.
        given: the values that were given, before defaults.
        mistakes: one line each, all of them.
        remarks: what is worth a warning, or a line.
    """

    file: Path | None
    settings: Settings | None
    given: Given
    mistakes: tuple[str, ...]
    remarks: tuple[Remark, ...]

    def in_force(self) -> Settings:
        """The settings.

        Raises:
            ConfigError: all mistakes, one in each line of the message.
        """
        if self.settings is None:
            raise ConfigError("\n".join(self.mistakes))
        return self.settings

    def announce(self) -> None:
        """Tells the log what is worth a line; once, by the process that read the configuration."""
        for remark in self.remarks:
            _log.log(logging.INFO if remark.is_harmless else logging.WARNING, "%s", remark.text)


def load(
    file: Path | None = None, root: Path | None = None, addr: str | None = None, workers: int | None = None
) -> Settings:
    """Reads the configuration; options of the command line stand above variables, and these above the file.

    Without a file, which `REGISTRY_CONFIGURATION_PATH` may name too: loopback only, deletes allowed, data in
    `./registry-data`.

    Raises:
        ConfigError: every mistake in a line of the message: file and line, variable or option, the key and what was
            expected.
    """
    return read(file, root, addr, workers).in_force()


def read(
    file: Path | None = None, root: Path | None = None, addr: str | None = None, workers: int | None = None
) -> Configuration:
    """Reads the configuration as `load` does, and tells where everything came from; mistakes are told, not raised."""
    file = _file(file)
    try:
        given = _embedded() if file is None else _read(file)
    except ConfigError as error:
        return Configuration(file, None, Given({}, str(file)), _printable(error.message.splitlines()), ())
    variables = Variables()
    variables.enter(given, os.environ)
    options = {"storage.filesystem.rootdirectory": root, "http.addr": addr, "layerhouse.workers": workers}
    for path, name in zip(options, ("--root", "--addr", "--workers"), strict=True):
        if options[path] is not None:
            given.enter(path.split("."), Given.text(str(options[path]), name))
    _take_over_loglevel(given)
    found = [*_driver_mistakes(given), *_refused(given), *variables.mistakes]
    try:
        settings: Settings | None = Settings.model_validate(_plain(given, _ROOT))
    except ValidationError as error:
        settings = None
        found += mistakes.lines(error, given)
    return Configuration(file, None if found else settings, given, _printable(found), _remarks(given, variables))


def _file(file: Path | None) -> Path | None:
    """The argument, else what the variable names, else what the image keeps for it; None means the defaults."""
    if file is None and os.environ.get(PATH):
        return Path(os.environ[PATH])
    if file is None:
        paths = os.environ.get(_PATHS, "").split(":")
        return next((Path(each) for each in paths if os.access(each, os.F_OK)), None)
    return file


def _embedded() -> Given:
    given = Given({}, DEFAULT)
    given.enter(["storage", "filesystem", "rootdirectory"], Given.text(str(DEFAULT_ROOT), DEFAULT))
    given.enter(["storage", "delete", "enabled"], Given.text("true", DEFAULT))
    given.enter(["http", "addr"], Given.text("127.0.0.1:5000", DEFAULT))
    given.enter(["validation", "manifests", "urls", "allow"], Given([Given.text(".", DEFAULT)], DEFAULT))
    given.enter(["validation", "manifests", "indexes", "platforms"], Given.text("none", DEFAULT))
    return given


def _read(file: Path) -> Given:
    try:
        given = parse(file.read_bytes(), lambda line: f"{file}:{line}")
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror or error}") from error
    if not isinstance(given.value, dict) or "version" not in given.value:
        raise ConfigError(f"{file}: version: expected keys and values, with version: 0.1")
    for key in CHOICES:
        if key in given.value:
            given.value[key] = named(given.value[key])
    return given


def _take_over_loglevel(given: Given) -> None:
    """`loglevel` of old files counts where `log.level` is not given."""
    old = given.child("loglevel")
    if old is None or old.is_empty:
        return
    new, depth = given.nearest(["log", "level"])
    if depth < 2 or new.is_empty:
        given.enter(["log", "level"], old)


def _driver_mistakes(given: Given) -> Iterator[str]:
    storage = given.child("storage") or Given({}, given.source)
    if not isinstance(storage.value, dict | None):
        return
    drivers = {name: each for name, each in (storage.value or {}).items() if name not in BESIDE_DRIVERS}
    listed = " and ".join(f"{name} ({next(each.sources())})" for name, each in drivers.items())
    if len(drivers) != 1:
        told = f"given are {listed}" if drivers else "none is given"
        yield f"{storage.source}: storage: expected one driver, {' or '.join(sorted(DRIVERS))}; {told}"


def _plain(given: Given, found: Shape | None) -> Any:
    """What the models read: texts as they are written, what is empty left out, YAML's types where any will do."""
    value = given.value
    if found is None or found.kind == "any" or (value is None and found.kind != "section"):
        return given.unwrap()
    if (value is None or isinstance(value, dict)) and found.kind == "section":
        return {key: filled for key, each in (value or {}).items() for filled in _filled(key, each, found)}
    if isinstance(value, dict) and found.kind == "map":
        return {key: _plain(each, shape(found.inner, each)) for key, each in value.items()}
    if isinstance(value, list) and found.kind == "list":
        return [_plain(each, shape(found.inner, each)) for each in value]
    if isinstance(value, str):
        return [value] if found.kind == "list" else value
    return given.unwrap()


def _filled(key: str, given: Given, above: Shape) -> Iterator[Any]:
    """The value of a section's key, where there is one to be read."""
    found = above.below(key, given)
    is_section = found is not None and found.kind == "section" and given.value is None
    if key not in above.inner.refused and (not given.is_empty or found is None or is_section):
        yield _plain(given, found)


def _printable(lines: Iterable[str]) -> tuple[str, ...]:
    """Whatever a key is made of, it does not write lines of its own."""
    return tuple(line if line.isprintable() else line.encode("unicode_escape").decode() for line in lines)


def _remarks(given: Given, variables: Variables) -> tuple[Remark, ...]:
    unknown = [f"{name}: no setting of this name, it is ignored" for name in variables.unknown]
    emptied = [f"{name}: is empty, so {key} of {source} does not count" for name, key, source in variables.emptied]
    return (*map(Remark, _printable([*unknown, *emptied])), *_unserved(given))


def _sections(given: Given, here: Shape, above: str = "") -> Iterator[tuple[str, str, Given, type[Section]]]:
    """Every key that was given in a section: its path, its name, the value, and the section."""
    for key, each in given.value.items() if isinstance(given.value, dict) else ():
        yield f"{above}{key}", key, each, here.inner
        found = here.below(key, each)
        if found is not None and found.kind == "section":
            yield from _sections(each, found, f"{above}{key}.")


def _refused(given: Given) -> Iterator[str]:
    for path, key, each, section in _sections(given, _ROOT):
        if key in section.refused:
            yield f"{next(each.sources())}: {path}: {section.refused[key]}"


def _unserved(given: Given) -> Iterator[Remark]:
    """Keys that are known and not served, where something else than the default was asked for."""
    for path, key, each, section in _sections(given, _ROOT):
        field = fields(section).get(key)
        mark = unserved(field) if field else None
        if field and mark and not each.is_empty and each.unwrap() != field.get_default():
            yield Remark(f"{next(each.sources())}: {path}: is not served: {mark.instead}", mark.is_harmless)
