"""Where a configuration comes from: a file, the variables above it, and the command line above both."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from registry.config.settings import Settings
from registry.config.values import ConfigError

DEFAULT_ROOT = Path("registry-data")
_PREFIX = "REGISTRY_"
_FILE = "REGISTRY_CONFIGURATION_PATH"


class _Variables(EnvSettingsSource):
    """`REGISTRY_A_B` is `a.b`; a value may be a mapping in YAML; `REGISTRY_STORAGE=filesystem` names the driver."""

    def __call__(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        given = {name: text for name, text in self.env_vars.items() if text and name.startswith(_PREFIX.lower())}
        # In this order `REGISTRY_STORAGE` comes before what lies below it.
        for name in sorted(given):
            keys = name.split("_")[1:]
            _enter(found, keys, _value(given[name] or "", names_driver=keys in (["storage"], ["auth"])))
        return found


class _Sources(Settings, BaseSettings):
    """A file's values, and above them the variables."""

    model_config = SettingsConfigDict(extra="ignore")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the library's signature
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - as above
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - as above
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return _Variables(settings_cls), init_settings


def load(
    file: Path | None = None, root: Path | None = None, addr: str | None = None, workers: int | None = None
) -> Settings:
    """Reads the configuration; options of the command line stand above variables, and these above the file.

    Without a file, which `REGISTRY_CONFIGURATION_PATH` may name too: loopback only, deletes allowed, data in
    `./registry-data`.

    Raises:
        ConfigError: naming file, variable or option, the key and what was expected.
    """
    if file is None and os.environ.get(_FILE):
        file = Path(os.environ[_FILE])
    values = _embedded() if file is None else _read(file)
    given = {
        ("storage", "filesystem", "rootdirectory"): root,
        ("http", "addr"): addr,
        ("layerhouse", "workers"): workers,
    }
    options = {keys: value for keys, value in given.items() if value is not None}
    try:
        found = _Sources(**values).model_dump()
        for keys, value in options.items():
            _enter(found, keys, value)
        return Settings.model_validate(found)
    except ValidationError as error:
        raise ConfigError(_explained(error, file, options)) from error


def _enter(values: dict[str, Any], keys: Sequence[str], value: Any) -> None:
    *above, last = keys
    for key in above:
        if not isinstance(values.get(key), dict):
            values[key] = {}
        values = values[key]
    values[last] = value


def _value(text: str, *, names_driver: bool) -> Any:
    try:
        value = _without_nulls(yaml.safe_load(text))
    except yaml.YAMLError:
        value = None
    if isinstance(value, dict):
        return value
    return {text: {}} if names_driver else text


def _without_nulls(value: Any) -> Any:
    """A key without a value is as good as none: `filesystem:` alone names the driver."""
    if not isinstance(value, dict):
        return value
    return {str(key): _without_nulls(inner) for key, inner in value.items() if inner is not None}


def _explained(error: ValidationError, file: Path | None, options: Mapping[tuple[str, ...], Any]) -> str:
    first = error.errors()[0]
    keys = tuple(map(str, first["loc"]))
    variable = _PREFIX + "_".join(keys).upper()
    source = "command line" if keys in options else variable if variable in os.environ else file or "defaults"
    # What is refused by us, and whole sections, may hold secrets.
    is_shown = first["type"] != "value_error" and isinstance(first["input"], str | int | float)
    shown = f", got {first['input']!r:.120}" if is_shown else ""
    return f"{source}: {'.'.join(keys)}: {first['msg'].removeprefix('Value error, ')}{shown}"


def _embedded() -> dict[str, Any]:
    return {
        "storage": {"filesystem": {"rootdirectory": DEFAULT_ROOT}, "delete": {"enabled": True}},
        "http": {"addr": "127.0.0.1:5000"},
        "validation": {"manifests": {"urls": {"allow": ["."]}, "indexes": {"platforms": "none"}}},
    }


def _read(file: Path) -> dict[str, Any]:
    try:
        values = _without_nulls(yaml.safe_load(file.read_bytes()))
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror or error}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{file}: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict) or str(values.get("version")) != "0.1":
        raise ConfigError(f"{file}: version: expected a mapping with version: 0.1")
    return {key: values[key] for key in Settings.model_fields if key in values}
