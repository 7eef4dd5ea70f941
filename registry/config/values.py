"""What the keys' values are made of: sections, durations, secrets, and keys that are known and not served."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, Field, PlainSerializer, SecretStr

from ocispec.errors import LayerhouseError

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|h|m|s)", re.ASCII)
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


class ConfigError(LayerhouseError):
    """A configuration that cannot be used; the message names its source, the key and what was expected."""

    code, summary = "CONFIG_INVALID", "configuration invalid"


class Section(BaseModel):
    """A mapping of the file. It is frozen, and takes no key that it does not know."""

    model_config = {"extra": "forbid", "frozen": True, "coerce_numbers_to_str": True}


@dataclass(frozen=True, slots=True)
class Unserved:
    """Marks a key of Distribution's that is read and not served: given, it is warned of once.

    Attributes:
        instead: what happens instead, for the warning and `docs/configuration.md`.
    """

    instead: str


def _duration(value: Any) -> Any:
    """Reads a duration as Go writes it, like `1h30m`; a bare number is seconds."""
    text = f"{value}s" if isinstance(value, str) and value.isdecimal() else value
    if not isinstance(text, str) or not re.fullmatch(rf"(?:{_DURATION.pattern})+", text, re.ASCII):
        return value
    try:
        return timedelta(seconds=sum(float(number) * _UNITS[unit] for number, unit in _DURATION.findall(text)))
    except OverflowError:
        return value


def lower(value: Any) -> Any:
    """Reads a word in any case."""
    return value.lower() if isinstance(value, str) else value


Duration = Annotated[timedelta, Field(ge=timedelta(0)), BeforeValidator(_duration)]
Interval = Annotated[timedelta, Field(gt=timedelta(0)), BeforeValidator(_duration)]
# It travels to the workers as JSON; nowhere else is it written out.
Secret = Annotated[SecretStr, PlainSerializer(lambda secret: secret.get_secret_value(), when_used="json")]
