"""JSON that means one thing only (CVE-2021-41190; RFC 8259 leaves doubled names undefined)."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any

_SURROGATE = re.compile(rb"\\u[dD]")


class AmbiguousJSON(ValueError):
    """The text is no JSON, or two readers could read it differently."""


def loads(raw: bytes) -> Any:
    """Decodes UTF-8 JSON.

    Raises:
        AmbiguousJSON: not UTF-8, no JSON, a doubled name in an object, half a surrogate pair, nested too deeply,
            or a number that JSON does not have.
    """
    try:
        value = json.loads(raw.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_refuse)
        if _SURROGATE.search(raw):
            json.dumps(value, ensure_ascii=False).encode()
    except AmbiguousJSON:
        raise
    except RecursionError as error:
        raise AmbiguousJSON("not valid JSON: nested too deeply") from error
    except ValueError as error:
        raise AmbiguousJSON(f"not valid JSON: {error}") from error
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        doubled = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise AmbiguousJSON(f"the name {doubled[:80]!r} stands twice in one object")
    return members


def _refuse(constant: str) -> None:
    raise AmbiguousJSON(f"{constant} is not a JSON number")
