"""Access rules, compiled: the first that fits who asks, the repository and the action decides; none means denied."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from ocispec.reference import RepositoryName
from registry.auth.authenticator import Identity, Kind
from registry.auth.caller import Action
from registry.config import ConfigError, access
from registry.config.given import Given, joined
from registry.config.yamltext import parse

_DECISIONS = 16_384
_Matches = Callable[[str], object]


@dataclass(frozen=True, slots=True)
class Decision:
    """What the rules say, and why.

    Attributes:
        place: of the rule that decided, like `access.yml:7`; None where none fitted.
    """

    is_allowed: bool
    place: str | None = None


@dataclass(frozen=True, slots=True)
class _Rule:
    subjects: frozenset[str]
    names: frozenset[str]
    matches: _Matches
    is_about_all: bool
    actions: frozenset[str]
    decision: Decision

    def fits(self, identity: Identity, groups: frozenset[str], action: Action, repository: str | None) -> bool:
        if action not in self.actions or not self.is_about(identity, groups):
            return False
        if repository is None:
            return self.is_about_all
        return self.is_about_all or repository in self.names or bool(self.matches(repository))

    def is_about(self, identity: Identity, groups: frozenset[str]) -> bool:
        known = "anonymous" if identity.kind is Kind.ANONYMOUS else "authenticated"
        if "anyone" in self.subjects or known in self.subjects:
            return True
        return f"{identity.kind}:{identity.name}" in self.subjects or not self.subjects.isdisjoint(groups)


class CompiledRules:
    """Rules that do not change.

    Args:
        given: the rules.
        places: where each stands, for explanations.
    """

    def __init__(self, given: access.Rules, places: Sequence[str]) -> None:
        self._rules = [_compile(rule, place) for rule, place in zip(given.rules, places, strict=True)]
        self._groups = _groups(given.groups)
        # It goes with the rules that filled it.
        self._decided = lru_cache(_DECISIONS)(self._decide)

    def decide(self, identity: Identity, action: Action, repository: RepositoryName | None) -> Decision:
        """Says what the rules say of a repository; of none: of what only those may who may with every one."""
        return self._decided(identity.kind, identity.name, identity.groups, action, repository)

    def _decide(
        self, kind: Kind, name: str | None, groups: frozenset[str], action: Action, repository: RepositoryName | None
    ) -> Decision:
        identity = Identity(name, kind, groups)
        all_groups = self.groups_of(identity)
        fitting = (rule.decision for rule in self._rules if rule.fits(identity, all_groups, action, repository))
        return next(fitting, Decision(is_allowed=False))

    def groups_of(self, identity: Identity) -> frozenset[str]:
        """The groups that somebody is in, as the rules write them (`group:NAME`)."""
        own = self._groups.get(f"{identity.kind}:{identity.name}", frozenset())
        return own | {f"{access.GROUP}{name}" for name in identity.groups}

    def lets_read(self, identity: Identity) -> bool:
        """Whether any rule lets somebody read any repository."""
        groups = self.groups_of(identity)
        pulls = (rule for rule in self._rules if rule.decision.is_allowed and Action.PULL in rule.actions)
        return any(rule.is_about(identity, groups) for rule in pulls)


def inline_places(given: access.Rules) -> list[str]:
    """Where rules of the configuration itself stand."""
    return [f"layerhouse.access.rules, rule {number}" for number in range(1, len(given.rules) + 1)]


def from_file(data: bytes, path: Path) -> CompiledRules:
    """Reads `groups` and `rules` of a file.

    Raises:
        ConfigError: each line of the message names the line of the file, the key and what was expected.
    """
    given = parse(data, lambda line: f"{path}:{line}")
    try:
        found = access.Rules.model_validate(given.unwrap())
    except ValidationError as error:
        raise ConfigError("\n".join(_mistake(each, given) for each in error.errors())) from error
    rules = given.child("rules")
    listed = rules.value if rules and isinstance(rules.value, list) else []
    return CompiledRules(found, [each.source for each in listed])


def _mistake(error: ErrorDetails, given: Given) -> str:
    key, place = joined(error["loc"]), given.nearest(error["loc"])[0].source
    is_unknown = error["type"] == "extra_forbidden"
    told = "unknown key" if is_unknown else error["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    return f"{place}: {key}: {told}" if key else f"{place}: {told}"


def _compile(rule: access.Rule, place: str) -> _Rule:
    names = frozenset(each for each in rule.repositories if "*" not in each)
    patterns = [each for each in rule.repositories if "*" in each]
    return _Rule(
        frozenset(rule.who),
        names,
        matching(patterns) if patterns else _nothing,
        access.EVERYTHING in patterns,
        frozenset(rule.allow or rule.deny),
        Decision(bool(rule.allow), place),
    )


def matching(patterns: Iterable[str]) -> Callable[[str], object]:
    """Returns what tells whether any of these names and patterns fits a repository."""
    return re.compile("|".join(map(_pattern, patterns))).fullmatch


def _nothing(_name: str) -> None:
    """What rules without patterns match."""


def _pattern(text: str) -> str:
    """`**/` is any number of parts, `/**` at the end at least one, `*` anything without a slash."""
    *parts, last = text.split("/")
    above = ("(?:[^/]+/)*" if part == "**" else f"{_part(part)}/" for part in parts)
    return "".join(above) + (".+" if last == "**" else _part(last))


def _part(text: str) -> str:
    return re.escape(text).replace(r"\*", "[^/]*")


def _groups(given: Mapping[str, Iterable[str]]) -> dict[str, frozenset[str]]:
    found: dict[str, set[str]] = {}
    for name, members in given.items():
        for member in members:
            found.setdefault(member, set()).add(f"{access.GROUP}{name}")
    return {member: frozenset(groups) for member, groups in found.items()}
