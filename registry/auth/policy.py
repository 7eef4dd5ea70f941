"""What somebody may do: the access rules in force, asked for each request and for each entry of a list."""

from __future__ import annotations

from functools import partial
from typing import Protocol

from ocispec.reference import RepositoryName
from registry.auth.authenticator import Identity, Kind
from registry.auth.caller import Action
from registry.auth.rules import CompiledRules, from_file, inline_places
from registry.auth.wanted import ADMINISTRATION, CATALOG, Wanted
from registry.auth.watched import Watched
from registry.config.access import Access


class Policy(Protocol):
    """What the access rules say. A token's grants narrow it further, and are not looked at here."""

    def is_current(self) -> bool:
        """Whether the rules have not changed since the last `refresh`: asked before each request, and quick."""

    async def refresh(self) -> None:
        """Takes over rules that have changed."""

    def allows(self, identity: Identity, action: Action, repository: RepositoryName | None) -> bool:
        """Quick, without I/O. No repository stands for what concerns all: the catalogue, the administration."""


class KnownMayAll:
    """Authentication without rules, as with Distribution: whoever is known may do everything, nobody else anything."""

    def is_current(self) -> bool:
        return True

    async def refresh(self) -> None:
        """Nothing changes."""

    def allows(self, identity: Identity, action: Action, repository: RepositoryName | None) -> bool:  # noqa: ARG002 - as the protocol has it
        # An anonymous token is granted something by the token server, who knows what nobody may do.
        return identity.kind is not Kind.ANONYMOUS or identity.grants is not None


class ByRules:
    """The rules of the configuration, or of a file that is read again when it changes.

    Raises:
        ConfigError: the file cannot be read or used.
    """

    def __init__(self, given: Access) -> None:
        self._file = None if given.file is None else Watched(given.file, partial(from_file, path=given.file))
        self._rules = CompiledRules(given, inline_places(given))

    @property
    def rules(self) -> CompiledRules:
        """Those in force."""
        return self._rules if self._file is None else self._file.value

    def is_current(self) -> bool:
        return self._file is None or self._file.is_current()

    async def refresh(self) -> None:
        if self._file is not None:
            await self._file.refresh()

    def allows(self, identity: Identity, action: Action, repository: RepositoryName | None) -> bool:
        if repository is None and action is Action.PULL:
            return identity.kind is not Kind.ANONYMOUS or self.rules.lets_read(identity)
        return self.rules.decide(identity, action, repository).is_allowed


class Somebody:
    """A caller of whom it is known who it is, anonymous too.

    Attributes:
        identity: who.
    """

    __slots__ = ("_policy", "identity")

    def __init__(self, identity: Identity, policy: Policy) -> None:
        self.identity = identity
        self._policy = policy

    @property
    def name(self) -> str | None:
        return self.identity.name

    @property
    def kind(self) -> str:
        return self.identity.kind.value

    def may(self, action: Action, repository: RepositoryName) -> bool:
        return self._allows(action, repository) and self.identity.granted("repository", repository, action)

    def _allows(self, action: Action, repository: RepositoryName | None) -> bool:
        limits = self.identity.limits
        is_covered = limits is None or limits.cover(action, repository)
        return is_covered and self._policy.allows(self.identity, action, repository)

    def is_allowed(self, wanted: Wanted) -> bool:
        """Whether the rules allow it; a token may still not cover it."""
        if wanted.action is None:
            return self.identity.kind is not Kind.ANONYMOUS or self.identity.grants is not None
        return self._allows(wanted.action, wanted.repository)

    def is_granted(self, wanted: Wanted) -> bool:
        """Whether its token covers it."""
        if wanted.action is None:
            return True
        if wanted.repository is not None:
            return self.identity.granted("repository", wanted.repository, wanted.action)
        scope = CATALOG if wanted.action is Action.PULL else ADMINISTRATION
        return self.identity.granted(scope.type, scope.name, "*")
