"""Why somebody may, or may not, do something: what `registry access check` says."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ocispec.reference import RepositoryName
from registry.auth.authenticator import ANONYMOUS, Identity, Kind
from registry.auth.caller import Action
from registry.auth.passwords import Passwords
from registry.auth.rules import CompiledRules, from_file
from registry.auth.watched import read_small
from registry.config import ConfigError, Settings
from registry.config.sources import read


@dataclass(frozen=True, slots=True)
class Answer:
    """Whether, the reason, and what is worth knowing beside it; each one line."""

    is_allowed: bool
    reason: str
    notes: tuple[str, ...] = ()


def explain(file: Path | None, who: str, repository: str, action: Action) -> Answer:
    """Says what the configuration makes of a request.

    Args:
        file: the configuration; None for the one that `registry serve` would take.
        who: a user's name, `KIND:NAME`, or `anonymous`.
        repository: its name.
        action: what is to be done.

    Raises:
        ConfigError: the configuration, or a file that it names, cannot be used.
        NameInvalid: the repository's name is none.
    """
    configuration = read(file)
    settings, name = configuration.in_force(), RepositoryName.parse(repository)
    identity = _identity(who)
    access = settings.layerhouse.access
    if not access.is_given:
        return _without_rules(settings, identity)
    if access.file is not None:
        rules = from_file(read_small(access.file), access.file)
    else:
        given = configuration.given.nearest(["layerhouse", "access", "rules"])[0].value
        rules = CompiledRules(access, [each.source for each in given] if isinstance(given, list) else [])
    decision = rules.decide(identity, action, name)
    asked = f"{_shown(identity, rules)}, {name} and {action}"
    reason = (
        f"the rule at {decision.place} is the first that fits {asked}" if decision.place else f"no rule fits {asked}"
    )
    return Answer(decision.is_allowed, reason, tuple(_notes(settings, identity)))


def _without_rules(settings: Settings, identity: Identity) -> Answer:
    if settings.auth.htpasswd is None and settings.auth.token is None:
        return Answer(
            is_allowed=True, reason="neither auth nor access rules are configured, so anyone may do everything"
        )
    is_known = identity.kind is not Kind.ANONYMOUS
    told = "whoever is authenticated may do everything" if is_known else "whoever is not may do nothing"
    return Answer(is_known, f"there are no access rules, and without them {told}", tuple(_notes(settings, identity)))


def _identity(who: str) -> Identity:
    if who == Kind.ANONYMOUS:
        return ANONYMOUS
    kind, colon, name = who.partition(":")
    if not colon:
        return Identity(who, Kind.USER)
    if not name or kind not in (Kind.USER, Kind.ROBOT, Kind.CERTIFICATE):
        raise ConfigError(f"{who!r:.80}: expected a user's name, robot:NAME, certificate:NAME or anonymous")
    return Identity(name, Kind(kind))


def _shown(identity: Identity, rules: CompiledRules) -> str:
    if identity.kind is Kind.ANONYMOUS:
        return "anonymous"
    groups = ", ".join(sorted(rules.groups_of(identity)))
    return f"{identity.kind}:{identity.name} (of {groups})" if groups else f"{identity.kind}:{identity.name}"


def _notes(settings: Settings, identity: Identity) -> Iterator[str]:
    htpasswd = settings.auth.htpasswd
    if htpasswd is None or settings.auth.token is not None or identity.kind is not Kind.USER:
        return
    if identity.name not in Passwords.parse(read_small(htpasswd.path), htpasswd.path).hashes:
        yield f"note: {identity.name} cannot log in: {htpasswd.path} has no usable password of that name"
