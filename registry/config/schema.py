"""The shape of the configuration, read off the models: which keys there are, and what may stand below each."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from registry.config.given import Given
from registry.config.values import Section, Unserved


@dataclass(frozen=True, slots=True)
class Shape:
    """What may stand at a place of the configuration.

    Attributes:
        kind: `section` (keys of a model), `map` (keys of any name), `list`, `any` (what YAML makes of it), `value`.
        inner: the model of a section, the type of each value of a map or list; the type itself of a value.
        is_secret: whether the value is never shown.
    """

    kind: str
    inner: Any = None
    is_secret: bool = False

    def field(self, key: str) -> FieldInfo | None:
        """The field of a section that has this key."""
        return fields(self.inner).get(key) if self.kind == "section" else None

    def below(self, key: str | int, given: Given | None = None) -> Shape | None:
        """The shape below a key or an index; None where there can be none."""
        if self.kind == "section":
            found = self.field(str(key))
            return None if found is None else shape(found.annotation, given)
        if self.kind == "map" or (self.kind == "list" and isinstance(key, int)):
            return shape(self.inner, given)
        return self if self.kind == "any" else None


def shape(annotation: Any, given: Given | None = None) -> Shape:
    """The shape of a type; where there is a choice, the one that fits what is given."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return shape(arguments[0], given)
    if origin in (Union, types.UnionType):
        return _chosen([shape(each, given) for each in arguments if each is not type(None)], given)
    if origin in (tuple, list, frozenset, set):
        return Shape("list", arguments[0])
    if origin is dict:
        return Shape("map", arguments[1])
    is_section = isinstance(annotation, type) and issubclass(annotation, Section)
    kind = "any" if annotation is Any else "section" if is_section else "value"
    return Shape(kind, annotation, annotation is SecretStr)


def at(root: type[Section], keys: Sequence[str | int], given: Given | None = None) -> Shape | None:
    """The shape at a path; None where the path leads out of what is known."""
    found: Shape | None = Shape("section", root)
    for key in keys:
        given = given.child(key) if given else None
        found = found.below(key, given) if found else None
    return found


def fields(model: type[Section]) -> dict[str, FieldInfo]:
    """The fields of a section by the keys that the file has for them."""
    return {field.alias or name: field for name, field in model.model_fields.items()}


def unserved(field: FieldInfo) -> Unserved | None:
    """What happens instead, where a key is known and not served."""
    return next((each for each in field.metadata if isinstance(each, Unserved)), None)


@dataclass(frozen=True, slots=True)
class Key:
    """A key of the reference: its path (`endpoints[].name`, `headers.NAME`), its field, and what happens instead."""

    path: str
    field: FieldInfo
    shape: Shape
    mark: Unserved | None


def keys(model: type[Section], above: str = "", mark: Unserved | None = None) -> Iterator[Key]:
    """Every key that holds a value, in the order of the models; what is not served below one is not served either."""
    for name, field in fields(model).items():
        path, found, instead = f"{above}{name}", shape(field.annotation), unserved(field) or mark
        inner = shape(found.inner) if found.kind in ("list", "map") else found
        if inner.kind == "section" and fields(inner.inner):
            yield from keys(inner.inner, path + {"list": "[].", "map": ".NAME."}.get(found.kind, "."), instead)
        else:
            yield Key(f"{path}.NAME" if found.kind == "map" else path, field, found, instead)


def _chosen(shapes: list[Shape], given: Given | None) -> Shape:
    value = given.value if given else None
    wanted: tuple[str, ...] = ("value",)
    if isinstance(value, dict | list):
        wanted = ("section", "map", "any") if isinstance(value, dict) else ("list", "any")
    return next((each for each in shapes if each.kind in wanted), shapes[0])


def literals(annotation: Any) -> tuple[str, ...]:
    """The words that a type takes, where it takes only some."""
    if get_origin(annotation) is typing.Literal:
        return tuple(map(str, get_args(annotation)))
    return next((found for each in get_args(annotation) if (found := literals(each))), ())
