"""JSON that means one thing only (CVE-2021-41190; RFC 8259 leaves doubled names undefined)."""

from __future__ import annotations

import json
from typing import Any


class AmbiguousJSON(ValueError):
    """The text is no JSON, or two readers could read it differently."""


def loads(raw: bytes) -> Any:
    """Decodes UTF-8 JSON.

    Raises:
        AmbiguousJSON: not UTF-8, no JSON, a doubled name in an object, or a number that JSON does not have.
    """
    try:
        return json.loads(raw.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_refuse)
    except AmbiguousJSON:
        raise
    except (ValueError, RecursionError) as error:
        raise AmbiguousJSON(f"not valid JSON: {error or 'nested too deeply'}") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        doubled = next(name for name, _ in pairs if sum(name == other for other, _ in pairs) > 1)
        raise AmbiguousJSON(f"the name {doubled[:80]!r} stands twice in one object")
    return members


def _refuse(constant: str) -> None:
    raise AmbiguousJSON(f"{constant} is not a JSON number")
