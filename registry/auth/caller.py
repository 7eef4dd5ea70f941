"""Who asks, and what they may do: what the rest of the registry knows of authentication."""

from __future__ import annotations

from enum import StrEnum
from typing import Protocol

from ocispec.reference import RepositoryName


class Action(StrEnum):
    """What may be done with a repository, in the words of Docker's token specification; `admin` is ours."""

    PULL = "pull"
    PUSH = "push"
    DELETE = "delete"
    ADMIN = "admin"

    # Decisions are remembered by it, and an enum's own hash is a call of Python's.
    __hash__ = str.__hash__


class Caller(Protocol):
    """Somebody who asks.

    Attributes:
        name: for logs, events and people; None for anonymous.
        kind: what the name is of: `user`, `robot`, `certificate` or `anonymous`.
    """

    @property
    def name(self) -> str | None: ...

    @property
    def kind(self) -> str: ...

    def may(self, action: Action, repository: RepositoryName) -> bool:
        """Whether the rules allow it. Quick, and without I/O: it is asked for every entry of a list."""


class Anyone:
    """Everybody, where no authentication is configured."""

    name = None
    kind = "anonymous"

    def may(self, action: Action, repository: RepositoryName) -> bool:  # noqa: ARG002 - as the protocol has it
        return True


ANYONE = Anyone()
