"""Tables of TOML files that belong to other programs: a key that is not known is left alone, a wrong type is told."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ocispec.errors import ConfigurationError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Table:
    """One table; every method raises ConfigurationError for a value of another type, naming file, key and type.

    Attributes:
        file: where it stands.
        members: by key.
        name: its own key, empty for the file's root.
    """

    file: Path
    members: Mapping[str, Any]
    name: str = ""

    @classmethod
    def read(cls, file: Path) -> Table | None:
        """Reads a file; None where there is none, or where its folder is closed to this user.

        Raises:
            ConfigurationError: it cannot be read, or is no TOML; naming file, line and column.
        """
        import tomllib  # noqa: PLC0415 - most machines have no such file

        if not os.path.exists(file):  # noqa: PTH110 - Path.exists raises where a folder is closed
            return None
        try:
            return cls(file, tomllib.loads(file.read_text("utf-8")))
        except OSError as error:
            raise ConfigurationError(f"{file} cannot be read: {error.strerror}") from error
        except ValueError as error:
            raise ConfigurationError(f"{file} is no TOML: {error}") from error

    def text(self, key: str) -> str:
        """Returns a string; empty where there is none."""
        return self._typed(key, str, "a string", "")

    def flag(self, key: str) -> bool:
        """Returns true or false; false where there is none."""
        return self._typed(key, bool, "true or false", False)

    def texts(self, key: str) -> list[str]:
        """Returns a list of strings, which a single string may stand for."""
        value = self.members.get(key, [])
        if isinstance(value, str):
            return [value]
        if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
            raise self.wrong(key, "a string or a list of strings")
        return value

    def table(self, key: str) -> Table:
        """Returns a table; an empty one where there is none."""
        return Table(self.file, self._typed(key, dict, "a table", {}), self._path(key))

    def tables(self, key: str) -> list[Table]:
        """Returns an array of tables."""
        values = self._typed(key, list, "tables in double brackets", [])
        if not all(isinstance(each, dict) for each in values):
            raise self.wrong(key, "tables in double brackets")
        return [Table(self.file, each, f"{self._path(key)}[{n}]") for n, each in enumerate(values)]

    def where(self, key: str) -> str:
        """How messages call a value."""
        return f"{self.file}: {self._path(key)}"

    def wrong(self, key: str, expected: str) -> ConfigurationError:
        """Returns the error for a value, which is not shown: headers and URLs may hold secrets."""
        return ConfigurationError(f"{self.where(key)}: expected {expected}")

    def _typed(self, key: str, kind: type[T], expected: str, default: T) -> T:
        value = self.members.get(key, default)
        if not isinstance(value, kind):
            raise self.wrong(key, expected)
        return value

    def _path(self, key: str) -> str:
        key = key if key.replace("-", "").isidentifier() else f'"{key}"'
        return f"{self.name}.{key}" if self.name else key
