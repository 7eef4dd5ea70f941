"""`layerhouse.access`: who may do what."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from registry.config.values import Section

EVERYTHING = "**"
GROUP = "group:"
WORDS = ("anyone", "anonymous", "authenticated")
_KINDS = ("user:", "robot:", "certificate:")
_PART = re.compile(r"\*\*|[a-z0-9._*-]+")
_NAMES = "user:NAME, robot:NAME or certificate:NAME"


def listed(value: Any) -> Any:
    """A single value stands for a list of one."""
    return value if isinstance(value, list | tuple) else [value]


def _is_named(text: str, kinds: tuple[str, ...], expected: str) -> str:
    kind, colon, name = text.partition(":")
    if kind + colon not in kinds or not name or not name.isprintable() or name != name.strip():
        raise ValueError(f"expected {expected}, got {text!r:.80}")
    return text


def _is_subject(text: str) -> str:
    return text if text in WORDS else _is_named(text, (*_KINDS, GROUP), f"{', '.join(WORDS)}, group:NAME, {_NAMES}")


def _is_member(text: str) -> str:
    return _is_named(text, _KINDS, _NAMES)


def _is_pattern(text: str) -> str:
    parts = text.split("/")
    if not all(_PART.fullmatch(part) and ("**" not in part or part == "**") for part in parts):
        expected = "a repository's name, in which * stands for a part of it without / and ** for parts with it"
        raise ValueError(f"expected {expected}, got {text!r:.80}")
    return text


Subject = Annotated[str, AfterValidator(_is_subject)]
Member = Annotated[str, AfterValidator(_is_member)]
Pattern = Annotated[str, AfterValidator(_is_pattern)]
Actions = Annotated[tuple[Literal["pull", "push", "delete", "admin"], ...], BeforeValidator(listed)]


class Rule(Section):
    """What some may, or may not, do with some repositories."""

    who: Annotated[tuple[Subject, ...], BeforeValidator(listed)] = Field(
        min_length=1,
        description="Whom the rule is about, one or a list: `anyone`, `anonymous` (who gives no credentials), "
        "`authenticated` (who does), `user:NAME`, `group:NAME`, `robot:NAME`, `certificate:NAME`.",
    )
    repositories: Annotated[tuple[Pattern, ...], BeforeValidator(listed)] = Field(
        default=(EVERYTHING,),
        min_length=1,
        description="Which repositories, one or a list: a name, or a pattern in which `*` stands for anything without "
        "`/` and `**` for any number of parts: `team-a/**` is all below `team-a`, not `team-a` itself.",
    )
    allow: Actions = Field(default=(), description="What they may do: `pull`, `push`, `delete`, `admin`.")
    deny: Actions = Field(default=(), description="What they may not do. A rule has either `allow` or `deny`.")

    @model_validator(mode="after")
    def _says_one_thing(self) -> Rule:
        if bool(self.allow) == bool(self.deny):
            raise ValueError("expected either allow or deny, with at least one of pull, push, delete, admin")
        return self


class Rules(Section):
    """Rules of access, read from the top: the first that fits decides, and what none fits is denied."""

    groups: dict[str, Annotated[tuple[Member, ...], BeforeValidator(listed)]] = Field(
        default={},
        description="Members of each group that a rule names: `user:NAME`, `robot:NAME`, `certificate:NAME`. "
        "A group whose members a token server tells is declared with none: `[]`.",
    )
    rules: tuple[Rule, ...] = Field(
        default=(),
        description="Who may do what, read from the top: the first rule that fits who asks, the repository and the "
        "action decides; what none fits is denied. Without any rule, whoever is authenticated may do everything.",
    )

    @model_validator(mode="after")
    def _declares_its_groups(self) -> Rules:
        for number, rule in enumerate(self.rules, 1):
            for subject in rule.who:
                if subject.startswith(GROUP) and subject.removeprefix(GROUP) not in self.groups:
                    raise ValueError(f"rule {number}: {subject!r:.80} is not declared under groups")
        return self


class Access(Rules):
    """Who may do what."""

    file: Path | None = Field(
        default=None,
        description="A file that holds `groups` and `rules` in place of those here. It is read again when it changes, "
        "without a restart; while it cannot be used, the rules before stay in force.",
    )
    certificates: bool = Field(
        default=False,
        description="Whether the common name of a client's certificate tells who asks, where no credentials come. "
        "Needs `http.tls.clientcas`.",
    )

    @model_validator(mode="after")
    def _has_rules_in_one_place(self) -> Access:
        if self.file is not None and (self.rules or self.groups):
            raise ValueError("expected rules and groups either here or in the file, not in both")
        return self

    @property
    def is_given(self) -> bool:
        """Whether there are rules at all; a file without any denies everything."""
        return self.file is not None or bool(self.rules)
