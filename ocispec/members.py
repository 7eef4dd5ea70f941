"""Readers of decoded JSON members: each checks the type and names the place in its message, like `layers[2].size`.

All raise GrammarError.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ocispec.errors import GrammarError

_KINDS = {dict: "an object", list: "a list", type(None): "nothing"}


def folded(*names: str) -> dict[str, str]:
    """Returns the names by their form without case, for `as_object`."""
    return {name.casefold(): name for name in names}


def as_object(value: Any, where: str, known: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Returns an object; refuses one that has a `known` name in another case.

    Go's decoder takes `Layers` for `layers`, others do not: two readers would see two contents (CVE-2021-41190).
    """
    if not isinstance(value, dict):
        raise GrammarError(f"{where}: expected an object, got {shown(value)}")
    for name in value if known else ():
        if known and known.get(name.casefold(), name) != name:
            raise GrammarError(f"{where}: the name {shown(name)} differs from a known one in case alone")
    return value


def optional_object(value: Any, where: str) -> dict[str, Any]:
    """Returns an object, an empty one where it is absent."""
    return {} if value is None else as_object(value, where)


def as_list(value: Any, where: str) -> list[Any]:
    """Returns a list; null is an empty one, as Go writes it."""
    if value is not None and not isinstance(value, list):
        raise GrammarError(f"{where}: expected a list, got {shown(value)}")
    return value or []


def as_string(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise GrammarError(f"{where}: expected a string, got {shown(value)}")
    return value


def optional_string(value: Any, where: str) -> str | None:
    """Returns a string, None where it is absent or empty."""
    return None if value is None else as_string(value, where) or None


def string_map(value: Any, where: str) -> dict[str, str]:
    """Returns an optional object whose values are strings (image-spec, annotations.md)."""
    return {name: as_string(text, f"{where}[{shown(name)}]") for name, text in optional_object(value, where).items()}


def shown(value: Any) -> str:
    """Returns how a message calls a value: short and printable, however long or deep the value is."""
    return _KINDS.get(type(value)) or json.dumps(value)[:80]
