"""Configuration: Distribution's `config.yml`, its `REGISTRY_*` variables, and defaults that need neither."""

from __future__ import annotations

import os
import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, Field, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from ocispec.errors import LayerhouseError

DEFAULT_ROOT = Path("registry-data")
_HANDED_ON = "LAYERHOUSE_SETTINGS"
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|h|m|s)", re.ASCII)
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


class ConfigError(LayerhouseError):
    """A configuration that cannot be used; the message names the key and what was expected."""

    code, summary = "CONFIG_INVALID", "configuration invalid"


def _duration(value: Any) -> Any:
    """Reads a duration as Go writes it, like `1h30m`; a bare number is seconds."""
    if not isinstance(value, str) or not re.fullmatch(rf"(?:{_DURATION.pattern})+", value, re.ASCII):
        return value
    return timedelta(seconds=sum(float(number) * _UNITS[unit] for number, unit in _DURATION.findall(value)))


Duration = Annotated[timedelta, BeforeValidator(_duration)]


class _Section(BaseModel):
    model_config = {"extra": "ignore", "frozen": True}


class Filesystem(_Section):
    rootdirectory: Path = Path("/var/lib/registry")


class Delete(_Section):
    enabled: bool = False


class UploadPurging(_Section):
    enabled: bool = True
    age: Duration = timedelta(hours=168)
    interval: Duration = timedelta(hours=24)


class Maintenance(_Section):
    uploadpurging: UploadPurging = UploadPurging()


class Storage(_Section):
    filesystem: Filesystem = Filesystem()
    delete: Delete = Delete()
    maintenance: Maintenance = Maintenance()


class Http(_Section):
    addr: str = ":5000"
    draintimeout: Duration = timedelta(seconds=30)

    @property
    def host(self) -> str:
        """All interfaces where Go's `:5000` names none."""
        return self._split()[0]

    @property
    def port(self) -> int:
        return self._split()[1]

    def _split(self) -> tuple[str, int]:
        host, _, port = self.addr.rpartition(":")
        if not port.isdecimal() or int(port) > 65535:
            raise ConfigError(f"http.addr {self.addr!r}: expected HOST:PORT, like 127.0.0.1:5000")
        return host.strip("[]") or "0.0.0.0", int(port)  # noqa: S104 - what Distribution does with :5000


class Log(_Section):
    level: Literal["error", "warn", "info", "debug"] = "info"


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
    http: Http = Http()
    log: Log = Log()
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


class _Sources(Settings, BaseSettings):
    """A file's values, and above them the variables: `REGISTRY_A_B` is `a.b`."""

    model_config = SettingsConfigDict(env_prefix="REGISTRY_", env_nested_delimiter="_", extra="ignore")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - the library's signature
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - as above
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - as above
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return env_settings, init_settings


def load(
    file: Path | None = None, root: Path | None = None, addr: str | None = None, workers: int | None = None
) -> Settings:
    """Reads the configuration; options of the command line stand above everything else.

    Without a file: loopback only, deletes allowed, data in `./registry-data`.

    Raises:
        ConfigError: naming file, key and what was expected.
    """
    values = _embedded() if file is None else _read(file)
    try:
        found = _Sources(**values).model_dump()
        for section, given in _options(root, addr, workers).items():
            found[section] = {**found[section], **given}
        settings = Settings.model_validate(found)
    except (ValidationError, SettingsError) as error:
        raise ConfigError(f"{file or 'environment'}: {_first(error)}") from error
    _ = settings.http.port
    return settings


def _options(root: Path | None, addr: str | None, workers: int | None) -> dict[str, dict[str, Any]]:
    given: dict[str, dict[str, Any]] = {}
    if root is not None:
        given["storage"] = {"filesystem": {"rootdirectory": root}}
    if addr is not None:
        given["http"] = {"addr": addr}
    if workers is not None:
        given["layerhouse"] = {"workers": workers}
    return given


def _first(error: ValidationError | SettingsError) -> str:
    if isinstance(error, SettingsError):
        return str(error)
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}, got {first['input']!r:.120}"


def _embedded() -> dict[str, Any]:
    return {
        "storage": {"filesystem": {"rootdirectory": DEFAULT_ROOT}, "delete": {"enabled": True}},
        "http": {"addr": "127.0.0.1:5000"},
    }


def _read(file: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(file.read_bytes())
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"{file}: {error}") from error
    if not isinstance(values, dict) or str(values.get("version")) != "0.1":
        raise ConfigError(f"{file}: expected a mapping with version: 0.1")
    return {str(key): value for key, value in values.items()}
