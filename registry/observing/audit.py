"""The audit log: who did what, in JSON, a line each (`docs/audit.md`).

A line is written before the answer to a push, a mount or a delete is sent, and before a refusal is. What clients send
stands in it escaped and cut to length; passwords, tokens and queries are never looked at.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from ocispec.errors import Denied, LayerhouseError, RegistryError, TooManyRequests, Unauthorized, Unsupported
from registry import context
from registry.auth.caller import ANYONE, Caller
from registry.auth.wanted import Wanted, wanted
from registry.config import ConfigError
from registry.config.audit import STDERR, Recorded
from registry.config.audit import Audit as Given
from registry.context import Scope
from registry.events import Event
from registry.observing.auditfile import AuditFile
from registry.observing.logs import Clock
from registry.serving.limits import network
from storage.threads import finish

Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

SAME_LOGIN_SECONDS = 600.0
TOKENS = ("lh_", "lhr_", "eyJ")
"""How tokens begin, ours and JSON Web Tokens. Some type them in place of a name: of such a name, nothing is shown."""
_MOST_NAME = 100
_MOST_AGENT = 200
_MOST_SCOPES = 20
_REMEMBERED = 4096
_READ = frozenset({"GET", "HEAD", "OPTIONS"})
_log = logging.getLogger("registry")


class Audit:
    """Writes the lines that are wanted. A file that cannot be written is told, with the line, and stops nobody.

    Implements `registry.events.Listener`.

    Args:
        given: the configuration, which names a file.
        clock: tells the time in seconds, for what is written once in a while only.
    """

    def __init__(self, given: Given, clock: Callable[[], float] = time.monotonic) -> None:
        self._name = str(given.file)
        self._file = AuditFile(None if given.file == STDERR else Path(self._name), _gap)
        self._actions = frozenset(given.actions)
        self._clock, self._times = clock, Clock()
        self._seen: dict[tuple[str | None, ...], float] = {}

    def open(self) -> None:
        """Opens the file, which blocks.

        Raises:
            ConfigError: it cannot be written.
        """
        try:
            self._file.open()
        except OSError as error:
            raise ConfigError(f"layerhouse.audit.file: {self._name}: {error.strerror or error}") from error

    async def happened(self, event: Event) -> None:
        target = event.target
        fields = {
            "name": event.actor,
            "kind": event.kind,
            "repository": target.repository,
            "digest": target.digest and str(target.digest),
            "tag": target.tag,
            "from": target.source,
            "address": event.address,
            "request": event.request_id,
            "useragent": event.useragent,
        }
        await self.add(event.what.value, "done", fields, event.time)

    async def add(self, action: Recorded, outcome: str, fields: Mapping[str, Any], at: float | None = None) -> None:
        """Writes a line, if the action is one that is wanted; it is written also where the call is cancelled.

        Args:
            action: what was done.
            outcome: `done`, `failed` or `refused`.
            fields: in their order; those that are None or empty are left out.
            at: when, in seconds since the epoch; None for now.
        """
        if action in self._actions:
            await finish(self._write, self._line(action, outcome, fields, at))

    def add_now(self, action: Recorded, outcome: str, fields: Mapping[str, Any]) -> None:
        """The same, for a command: blocks, and raises ConfigError where the line cannot be written."""
        if action in self._actions:
            try:
                self._file.add(self._line(action, outcome, fields, None))
            except OSError as error:
                told = f"{self._name}: done, but the audit log cannot be written: {error.strerror or error}"
                raise ConfigError(told) from error

    def is_new(self, *what: str | None) -> bool:
        """Whether this did not happen within the last ten minutes."""
        now = self._clock()
        before = self._seen.get(what)
        if before is not None and now - before < SAME_LOGIN_SECONDS:
            return False
        self._seen.pop(what, None)
        self._seen[what] = now
        if len(self._seen) > _REMEMBERED:
            del self._seen[next(iter(self._seen))]
        return True

    def _line(self, action: str, outcome: str, fields: Mapping[str, Any], at: float | None) -> bytes:
        said = {name: _cut(name, value) for name, value in fields.items() if value}
        return _rendered(self._times.render(time.time() if at is None else at), action, outcome, said)

    def _write(self, line: bytes) -> None:
        try:
            self._file.add(line)
        except OSError as error:
            told = line.decode("ascii").rstrip()
            _log.error("the audit log %s cannot be written: %s; lost: %s", self._name, error.strerror or error, told)


class AuditedRequests:
    """Writes of the requests that pass who logged in, who failed to, what was refused, and what tokens were issued.

    Plain ASGI, and there only where there is an audit log.
    """

    def __init__(self, app: App, audit: Audit) -> None:
        self._app = app
        self._audit = audit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            await self._app(scope, receive, send)
        except RegistryError as error:
            await self._enter(scope, error)
            raise
        await self._enter(scope, context.error(scope))

    async def _enter(self, scope: Scope, error: LayerhouseError | None) -> None:
        caller = context.caller(scope)
        if caller.name is not None:
            await self._enter_login(scope, caller.name, caller.kind)
        scopes = context.issued(scope)
        if scopes is not None:
            shown = [str(each)[:400] for each in scopes[:_MOST_SCOPES]]
            await self._audit.add("token", "done", _asked(scope) | {"scopes": shown})
        elif isinstance(error, Unauthorized | TooManyRequests) and not _is_known(scope, caller):
            await self._enter_failure(scope, error)
        elif isinstance(error, Denied | Unauthorized | Unsupported) or context.is_hidden(scope):
            await self._enter_refusal(scope, error)

    async def _enter_login(self, scope: Scope, name: str, kind: str) -> None:
        if self._audit.is_new("login", kind, name, network(context.host(scope))):
            await self._audit.add("login", "done", _asked(scope))

    async def _enter_failure(self, scope: Scope, error: RegistryError) -> None:
        """A login that failed, or was not looked at; who brings no credentials is asked for them, which is no news."""
        name, is_blocked = context.tried(scope), isinstance(error, TooManyRequests)
        if name is None and (is_blocked or not context.header(scope, b"authorization")):
            return
        if (name is None or is_blocked) and not self._audit.is_new(error.code, name, network(context.host(scope))):
            return
        shown = "***" if name is not None and name.startswith(TOKENS) else name
        told = _asked(scope) | {"name": shown, "kind": None, "code": error.code}
        await self._audit.add("login", "refused" if is_blocked else "failed", told)

    async def _enter_refusal(self, scope: Scope, error: LayerhouseError | None) -> None:
        needs = _wanted(scope)
        if needs is None or (isinstance(error, Unsupported) and scope["method"] in _READ):
            return  # an address that there is not
        code = "HIDDEN" if error is None or context.is_hidden(scope) else error.code
        more = {"code": code, "wanted": needs.action, "repository": needs.repository}
        await self._audit.add("refused", "refused", _asked(scope) | more)


def hiding(app: App) -> App:
    """Returns what answers those who may not know: it says so to the audit log."""

    async def hidden(scope: Scope, receive: Receive, send: Send) -> None:
        context.set_hidden(scope)
        await app(scope, receive, send)

    return hidden


def check(given: Given) -> None:
    """Raises ConfigError where there is to be an audit log, and it cannot be written; blocks."""
    if given.file is not None:
        Audit(given).open()


def _asked(scope: Scope) -> dict[str, Any]:
    """Who asks, and from where."""
    caller = context.caller(scope)
    return {
        "name": caller.name,
        "kind": caller.kind,
        "address": context.address(scope),
        "request": context.request_id(scope),
        "useragent": context.header(scope, b"user-agent"),
    }


def _is_known(scope: Scope, caller: Caller) -> bool:
    """Whether credentials told who asks, and be it that he is anonymous: an anonymous token's login did not fail."""
    return caller.name is not None or (caller is not ANYONE and bool(context.header(scope, b"authorization")))


def _wanted(scope: Scope) -> Wanted | None:
    try:
        return wanted(scope["method"], scope["path"])
    except RegistryError:
        return None


def _rendered(at: str, action: str, outcome: str, fields: Mapping[str, Any]) -> bytes:
    """Returns a line. It is ASCII, all else is escaped: neither a line nor a terminal's command can be smuggled in."""
    told = {"time": at, "action": action, "outcome": outcome, **fields}
    return json.dumps(told, separators=(",", ":")).encode("ascii") + b"\n"


def _gap(lost: int) -> bytes:
    return _rendered(Clock().render(time.time()), "audit", "failed", {"lost": lost})


def _cut(name: str, value: Any) -> Any:
    most = {"name": _MOST_NAME, "useragent": _MOST_AGENT}.get(name)
    return value[:most] if most is not None and isinstance(value, str) else value
