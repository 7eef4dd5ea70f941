"""From what the models refuse to lines for people: where it was given, the key, what was expected."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from registry.config.given import Given, joined
from registry.config.schema import at, fields, keys
from registry.config.settings import Settings

_LINE = re.compile(r".*?:(\d+): ")
_EXPECTED = {
    "bool": "true or false",
    "dict": "keys and values",
    "int": "a whole number",
    "float": "a number",
    "list": "a list",
    "model": "keys and values",
    "path": "a path",
    "set": "a list",
    "string": "text",
    "time": "a time with its unit, like 30s or 1h30m",
    "tuple": "a list",
}
_COMPARED = {
    "greater_than": "more than {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "less than {lt}",
    "less_than_equal": "at most {le}",
}


def lines(error: ValidationError, root: Given) -> list[str]:
    """Every mistake as `SOURCE: KEY: what was expected`, in the order of the file's lines, each once."""
    found = dict.fromkeys(_line(each, root) for each in error.errors(include_url=False))
    return sorted(found, key=lambda line: int(match[1]) if (match := _LINE.match(line)) else 0)


def _line(error: ErrorDetails, root: Given) -> str:
    given, depth = root.nearest(error["loc"])
    path = [*error["loc"][:depth], *(error["loc"][-1:] if error["type"] == "missing" else ())]
    key = joined(path)
    told = f"{next(given.sources()) if depth else given.source}: {key}" if key else given.source
    if error["type"] == "extra_forbidden":
        return f"{given.source}: {key}: unknown key{_meant(path)}"
    return f"{told}: {_expected(error)}{_shown(error, given, path)}"


def _expected(error: ErrorDetails) -> str:
    kind, context = error["type"], error.get("ctx", {})
    if kind == "value_error":
        return error["msg"].removeprefix("Value error, ")
    if kind == "missing":
        return "is missing"
    if kind == "literal_error":
        return f"expected {context['expected']}"
    if kind in _COMPARED:
        return f"expected {_COMPARED[kind].format(**context)}"
    expected = _EXPECTED.get(kind.partition("_")[0])
    return f"expected {expected}" if expected else error["msg"][:1].lower() + error["msg"][1:]


def _shown(error: ErrorDetails, given: Given, path: Sequence[str | int]) -> str:
    """The value, where it is one that may be seen: no secret, no section, nothing that a rule of ours refused."""
    found = at(Settings, path)
    if error["type"] in ("value_error", "missing") or not isinstance(given.value, str):
        return ""
    if found is None or found.kind != "value" or found.is_secret:
        return ""
    return f", got {without_password(given.value)!r:.120}"


def without_password(text: str) -> str:
    """A URL without the password in it."""
    return re.sub(r"(://[^/@:\s]*:)[^@\s]*@", r"\1<hidden>@", text)


def _meant(path: Sequence[str | int]) -> str:
    """What a misspelt key may have meant: a neighbour, or a key of that name elsewhere."""
    from difflib import get_close_matches  # noqa: PLC0415 - only who makes a mistake waits for it

    *above, last = path
    here, name = at(Settings, above), str(last)
    known = list(fields(here.inner)) if here and here.kind == "section" else []
    near = get_close_matches(name.lower(), known, n=1)
    elsewhere = [each for each in _paths() if each.rpartition(".")[2] == name] if not near else []
    if near or len(elsewhere) == 1:
        return f", did you mean {(near or elsewhere)[0]}?"
    return f", expected {_listed(known)}" if 0 < len(known) <= 8 else ""


def _listed(known: Sequence[str]) -> str:
    return " or ".join(filter(None, [", ".join(known[:-1]), known[-1]]))


def _paths() -> Iterator[str]:
    """Every key and every section, each once."""
    found: dict[str, None] = {}
    for key in keys(Settings):
        words = key.path.split(".")
        found.update(dict.fromkeys(".".join(words[:end]) for end in range(1, len(words) + 1)))
    yield from found
