"""Configuration: Distribution's `config.yml`, its `REGISTRY_*` variables, and defaults that need neither."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from ocispec.errors import LayerhouseError

DEFAULT_ROOT = Path("registry-data")
_HANDED_ON = "LAYERHOUSE_SETTINGS"
_PREFIX = "REGISTRY_"
_FILE = "REGISTRY_CONFIGURATION_PATH"
_ADDRESS = re.compile(r"(\[[^\[\]]+\]|[^:\[\]]*):(\d{1,5})", re.ASCII)
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|h|m|s)", re.ASCII)
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_STORAGE = frozenset({"filesystem", "delete", "redirect", "cache", "tag", "maintenance"})


class ConfigError(LayerhouseError):
    """A configuration that cannot be used; the message names its source, the key and what was expected."""

    code, summary = "CONFIG_INVALID", "configuration invalid"


def _duration(value: Any) -> Any:
    """Reads a duration as Go writes it, like `1h30m`; a bare number is seconds."""
    text = f"{value}s" if isinstance(value, str) and value.isdecimal() else value
    if not isinstance(text, str) or not re.fullmatch(rf"(?:{_DURATION.pattern})+", text, re.ASCII):
        return value
    try:
        return timedelta(seconds=sum(float(number) * _UNITS[unit] for number, unit in _DURATION.findall(text)))
    except OverflowError:
        return value


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


def _not_yet(value: Any) -> Any:
    """Refuses what changes who may do what: whoever asks for it must not be served as if he had not."""
    if value:
        raise ValueError("not supported yet")
    return value


Duration = Annotated[timedelta, Field(ge=timedelta(0)), BeforeValidator(_duration)]
NotYet = Annotated[Any, AfterValidator(_not_yet)]


class _Section(BaseModel):
    model_config = {"extra": "ignore", "frozen": True}


class Filesystem(_Section):
    rootdirectory: Path = Path("/var/lib/registry")


class Delete(_Section):
    enabled: bool = False


class UploadPurging(_Section):
    enabled: bool = True
    age: Duration = timedelta(hours=168)
    interval: Annotated[Duration, Field(gt=timedelta(0))] = timedelta(hours=24)
    dryrun: bool = False


class ReadOnly(_Section):
    enabled: Annotated[bool, AfterValidator(_not_yet)] = False


class Maintenance(_Section):
    uploadpurging: UploadPurging = UploadPurging()
    readonly: ReadOnly = ReadOnly()


class Storage(_Section):
    filesystem: Filesystem = Filesystem()
    delete: Delete = Delete()
    maintenance: Maintenance = Maintenance()

    @model_validator(mode="before")
    @classmethod
    def _has_a_driver_we_have(cls, values: Any) -> Any:
        for name in values if isinstance(values, dict) else ():
            if name not in _STORAGE:
                raise ValueError(f"the driver {name!r:.40} is not supported yet, expected filesystem")
        return values


class Http(_Section):
    addr: str = ":5000"
    draintimeout: Duration = timedelta(seconds=30)
    tls: NotYet = None

    @field_validator("addr")
    @classmethod
    def _is_an_address(cls, addr: str) -> str:
        match = _ADDRESS.fullmatch(addr)
        if not match or int(match[2]) > 65535:
            raise ValueError(f"expected HOST:PORT, like 127.0.0.1:5000, got {addr!r:.120}")
        return addr

    @property
    def host(self) -> str:
        """All interfaces where Go's `:5000` names none."""
        return self.addr.rpartition(":")[0].strip("[]") or "0.0.0.0"  # noqa: S104 - what Distribution does with :5000

    @property
    def port(self) -> int:
        return int(self.addr.rpartition(":")[2])


class Log(_Section):
    level: Annotated[Literal["error", "warn", "info", "debug"], BeforeValidator(_lower)] = "info"


class Proxy(_Section):
    remoteurl: NotYet = None


class Catalog(_Section):
    maxentries: Annotated[int, Field(gt=0)] = 1000


class TagList(_Section):
    maxtags: Annotated[int, Field(gt=0)] = 1000


class Layerhouse(_Section):
    """What Distribution does not know.

    Attributes:
        workers: how many processes serve.
        sparseimages: whether an image is accepted before, or without, its blobs.
    """

    sparseimages: bool = False
    workers: Annotated[int, Field(gt=0, le=64)] = 1


class Settings(_Section):
    """The configuration in force."""

    storage: Storage = Storage()
    auth: NotYet = None
    http: Http = Http()
    log: Log = Log()
    proxy: Proxy = Proxy()
    catalog: Catalog = Catalog()
    tags: TagList = TagList()
    layerhouse: Layerhouse = Layerhouse()

    def to_environment(self) -> None:
        """Leaves the configuration to the worker processes that this one starts."""
        os.environ[_HANDED_ON] = self.model_dump_json()

    @classmethod
    def from_environment(cls) -> Settings:
        """Takes over what `to_environment` left; defaults where there is nothing."""
        return cls.model_validate_json(os.environ.get(_HANDED_ON, "{}"))


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
