"""What happened to a repository, told once to whoever listens: notifications, the audit log."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol
from uuid import uuid4

from ocispec.digest import Digest
from ocispec.reference import RepositoryName, Tag
from registry import context
from storage.repository import StoredManifest


class What(StrEnum):
    """Distribution's words for what happens (`action` of its events)."""

    PULL = "pull"
    PUSH = "push"
    MOUNT = "mount"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class Target:
    """What it happened to: a blob, a manifest, a tag (with no digest), or a whole repository (with neither).

    Attributes:
        manifest: for a manifest that was pulled or pushed.
        size: of a blob, in bytes, where it is known.
        source: where a blob was mounted from.
    """

    repository: RepositoryName
    digest: Digest | None = None
    tag: Tag | None = None
    manifest: StoredManifest | None = None
    size: int | None = None
    source: RepositoryName | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened, and the request that did it.

    Attributes:
        time: seconds since the epoch.
        actor: the caller's name; None for anonymous.
        address: `host:port` of the client.
        host: the name by which it was asked (`Host`).
        kind: what the caller's name is of (`Caller`).
        base: the registry's address as the client reaches it, to which `/v2/…` is added.
    """

    what: What
    target: Target
    actor: str | None
    address: str
    host: str
    method: str
    useragent: str
    request_id: str
    time: float = field(default_factory=time.time)
    id: str = field(default_factory=lambda: str(uuid4()))
    base: str = ""
    kind: str = "anonymous"


class Listener(Protocol):
    async def happened(self, event: Event) -> None:
        """Takes an event: a pull's once its answer is sent, any other before; logs what goes wrong, raises nothing."""


class Events:
    """Where handlers say what happened.

    Args:
        listeners: whom they tell.
        address: gives the address of a path as the client of a request reaches it.
    """

    def __init__(
        self, *listeners: Listener, address: Callable[[context.Scope, str], str] = lambda _scope, path: path
    ) -> None:
        self._listeners = listeners
        self._address = address

    @property
    def wanted(self) -> bool:
        """Whether anybody listens: a pull asks first, since most registries tell nobody."""
        return bool(self._listeners)

    async def tell(self, what: What, scope: context.Scope, target: Target) -> None:
        """Tells all listeners, in their order."""
        if not self._listeners:
            return
        caller = context.caller(scope)
        event = Event(
            what,
            target,
            caller.name,
            context.address(scope),
            context.header(scope, b"host"),
            scope["method"],
            context.header(scope, b"user-agent"),
            context.request_id(scope),
            base=self._address(scope, ""),
            kind=caller.kind,
        )
        for listener in self._listeners:
            await listener.happened(event)
