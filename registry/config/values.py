"""What the keys' values are made of: sections, durations, sizes, secrets, and keys that are known and not served."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, BeforeValidator, ByteSize, Field, PlainSerializer, SecretStr

from ocispec.errors import LayerhouseError

_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|h|m|s)", re.ASCII)
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ns": 1e-9}
_UNIT_EXPECTED = "expected a time with its unit, like 30s or 1h30m"
_LEAST_NANOSECONDS = 1_000_000
_SIZE = re.compile(r"(\d{1,20}(?:\.\d{1,9})?) ?([kmgtp]?i?b|[kmgtp]|)", re.ASCII | re.IGNORECASE)
_POWERS = {letter: power for power, letter in enumerate("kmgtp", 1)}
_MOST_BYTES = 1 << 62


class ConfigError(LayerhouseError):
    """A configuration that cannot be used; each line of the message names a source, a key and what was expected."""

    code, summary = "CONFIG_INVALID", "configuration invalid"


class Section(BaseModel):
    """A mapping of the file. It is frozen, and takes no key that it does not know.

    Attributes:
        refused: Distribution's keys that cannot be used here, and what is said to who gives one.
    """

    refused: ClassVar[Mapping[str, str]] = {}

    model_config = {"extra": "forbid", "frozen": True, "coerce_numbers_to_str": True}


@dataclass(frozen=True, slots=True)
class Unserved:
    """Marks a key of Distribution's that is read and not served: given, it is warned of once.

    Attributes:
        instead: what happens instead, for the warning and `docs/configuration.md`.
        is_harmless: nobody who asks for it gets less than with it, as with a cache: told, but not as a warning.
    """

    instead: str
    is_harmless: bool = False


def _duration(value: Any) -> Any:
    """Reads a duration as Go writes it, like `1h30m`; a number without a unit is nanoseconds there, and so here.

    Who writes `30` without a unit means seconds or minutes and not what Distribution makes of it, which is nothing:
    refused. ISO 8601, like `PT30S`, is how a worker gets it.
    """
    if not isinstance(value, str) or value.startswith("P"):
        return value
    if value.isdecimal() and value.isascii():
        if 0 < int(value[:30]) < _LEAST_NANOSECONDS:
            raise ValueError(f"{_UNIT_EXPECTED}; {value} alone is {value} nanoseconds, as in Distribution")
        value += "ns"
    if not re.fullmatch(rf"(?:{_DURATION.pattern})+", value, re.ASCII):
        raise ValueError(f"{_UNIT_EXPECTED}, got {value!r:.80}")
    try:
        return timedelta(seconds=sum(float(number) * _UNITS[unit] for number, unit in _DURATION.findall(value)))
    except OverflowError:
        raise ValueError(f"expected a time that a calendar can hold, got {value!r:.80}") from None


def go_duration(duration: timedelta) -> str:
    """Writes a duration as `_duration` reads it, like `1h30m`."""
    seconds, parts = duration.total_seconds(), []
    for unit, length in (("h", 3600), ("m", 60)):
        count, seconds = divmod(seconds, length)
        parts += [f"{count:.0f}{unit}"] if count else []
    parts += [f"{seconds:.6f}".rstrip("0").rstrip(".") + "s"] if seconds or not parts else []
    return "".join(parts)


def _size(value: Any) -> Any:
    """Reads a size: `100GB` is a hundred thousand million bytes, `10GiB` ten times 1024³, a number alone is bytes."""
    if not isinstance(value, str):
        return value
    found = _SIZE.fullmatch(value.strip())
    number, unit = found.groups() if found else ("", "ib")
    if unit.lower() == "ib":
        raise ValueError(f"expected a size like 100GB, 10GiB or a number of bytes, got {value!r:.80}")
    base = 1024 if "i" in unit.lower() else 1000
    size = int(Decimal(number) * base ** _POWERS.get(unit[:1].lower(), 0))
    if size > _MOST_BYTES:
        raise ValueError(f"expected a size that a disk can have, got {value!r:.80}")
    if not size:
        raise ValueError(f"expected a size of at least one byte, got {value!r:.80}")
    return size


def written_size(size: int) -> str:
    """Writes a size as `_size` reads it, exactly: `100GB`, `10GiB`, or a number of bytes."""
    for power, letter in sorted(((power, letter) for letter, power in _POWERS.items()), reverse=True):
        capital = letter.upper()
        for base, unit in ((1000, f"{letter if letter == 'k' else capital}B"), (1024, f"{capital}iB")):
            if size and size % base**power == 0:
                return f"{size // base**power}{unit}"
    return str(size)


def lower(value: Any) -> Any:
    """Reads a word in any case."""
    return value.lower() if isinstance(value, str) else value


Duration = Annotated[timedelta, Field(ge=timedelta(0)), BeforeValidator(_duration)]
Interval = Annotated[timedelta, Field(gt=timedelta(0)), BeforeValidator(_duration)]
# In bytes.
Size = Annotated[ByteSize, Field(gt=0), BeforeValidator(_size)]
# It travels to the workers as JSON; nowhere else is it written out.
Secret = Annotated[SecretStr, PlainSerializer(lambda secret: secret.get_secret_value(), when_used="json")]
