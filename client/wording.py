"""How things are put into words for people."""

from __future__ import annotations

import re

from ocispec.errors import GrammarError

_AGE = re.compile(r"(\d{1,6})([smhdw])", re.ASCII)
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 24 * 3600, "w": 7 * 24 * 3600}


def one_line(text: str) -> str:
    """Returns a text that others wrote as one line that cannot move a terminal's cursor or change its colours."""
    return "".join(each if each.isprintable() else "?" for each in " ".join(text.split()))


def shortened(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"


def counted(number: int, what: str, plural: str | None = None) -> str:
    """Returns "1 layer", "2 layers"."""
    return f"{number} {what if number == 1 else plural or f'{what}s'}"


def listed(names: list[str], limit: int = 3) -> str:
    """Returns names in one line, and how many more there are."""
    rest = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {rest} more" if rest > 0 else "")


def seconds(text: str) -> float:
    """Reads an age like `90s`, `30m`, `12h`, `7d`, `2w`.

    Raises:
        GrammarError: it is none.
    """
    match = _AGE.fullmatch(text)
    if not match:
        raise GrammarError(f"invalid age {text[:40]!r}: expected a number with s, m, h, d or w, like 7d")
    return float(int(match[1]) * _SECONDS[match[2]])
