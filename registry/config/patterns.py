r"""Regular expressions of the configuration, in the syntax of Go's (RE2).

Python's own engine goes back and tries again: a URL made for it would keep `([^/]+\.)*`, which stands in an example of
Distribution's, busy for years. pydantic's goes over the text once, whatever the expression, and knows no look-around
and no back-references, as RE2. Its syntax differs from RE2's in few places (there is no `\Q…\E`; a `{`, or a `[` in
brackets, that means itself is written with a backslash), and what it does not read is an error at the start.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from pydantic import AfterValidator
from pydantic_core import SchemaError, SchemaValidator, core_schema


def matcher(pattern: str) -> Callable[[str], bool]:
    """Returns what tells whether a text holds a match, wherever in it; in time that grows as the text does.

    Raises:
        ValueError: no regular expression.
    """
    try:
        validator = SchemaValidator(core_schema.str_schema(pattern=pattern, regex_engine="rust-regex"))
    except SchemaError as error:
        cause = str(error).strip().rpartition("error: ")[2].splitlines()[0]
        raise ValueError(f"no regular expression: {cause}") from error
    return validator.isinstance_python


def _checked(pattern: str) -> str:
    matcher(pattern)
    return pattern


Pattern = Annotated[str, AfterValidator(_checked)]
