"""The tables of `docs/configuration.md`: every key with its type, its default and what it does."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from datetime import timedelta
from itertools import groupby
from pathlib import Path
from typing import Any

from pydantic import ByteSize
from pydantic_core import PydanticUndefined

from registry.config.schema import Key, keys, literals, shape
from registry.config.settings import Settings
from registry.config.values import Section, go_duration

_TYPES = {
    bool: "`true` or `false`",
    ByteSize: "size",
    int: "number",
    str: "text",
    Path: "path",
    timedelta: "time",
    Section: "section",
}


def tables() -> Iterator[str]:
    """A heading and a table for each section of the file, in the order of the models."""
    for name, group in groupby(keys(Settings), lambda key: key.path.partition(".")[0]):
        yield f"## {name}\n"
        if told := _doc(shape(Settings.model_fields[name].annotation).inner):
            yield f"{told}\n"
        yield "| key | value | default | what it does |\n|---|---|---|---|"
        yield from (f"| `{key.path}` | {_type(key)} | {_default(key)} | {_cell(meaning(key))} |" for key in group)
        yield ""


def meaning(key: Key) -> str:
    """What a key does, and what happens instead where it is not served; empty where nobody has said it."""
    told = key.field.description or _doc(key.shape.inner)
    sentences = [_sentence(told), f"Not served: {key.mark.instead}." if key.mark else ""]
    return " ".join(filter(None, sentences))


def _sentence(text: str) -> str:
    text = " ".join(text.split())
    return f"{text[:1].upper()}{text[1:]}".rstrip(".") + "." if text else ""


def _doc(model: Any) -> str:
    is_ours = isinstance(model, type) and issubclass(model, Section)
    own = vars(model).get("__doc__") if is_ours else None  # not that of `Section`
    return inspect.cleandoc(own or "").partition("\n\n")[0]


def _type(key: Key) -> str:
    found = key.shape
    if found.kind in ("list", "map"):
        inner = shape(found.inner)
        return f"list of {_name(inner.inner)}" if found.kind == "list" or inner.kind == "list" else _name(found.inner)
    return "text, a secret" if found.is_secret else _name(found.inner)


def _name(annotation: Any) -> str:
    words = literals(annotation)
    if words:
        return ", ".join(f"`{word}`" for word in words)
    found = shape(annotation)
    kind = found.inner if isinstance(found.inner, type) else str
    named = (name for known, name in _TYPES.items() if issubclass(kind, known))
    return "anything" if found.kind == "any" else next(named, "text")


def _default(key: Key) -> str:
    value = key.field.get_default()
    if value is PydanticUndefined:
        return "required"
    if value is None or value in ((), {}):
        return ""
    if isinstance(value, bool | timedelta):
        return f"`{go_duration(value) if isinstance(value, timedelta) else str(value).lower()}`"
    return f"`{', '.join(map(str, value)) if isinstance(value, tuple) else value}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
