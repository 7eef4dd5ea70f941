"""The gate: nothing of the registry is reached past it, where any authentication or access rule is configured."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any
from urllib.parse import parse_qs

from ocispec.errors import Denied, NameInvalid, Unauthorized
from ocispec.headers import Scope as TokenScope
from ocispec.reference import RepositoryName
from registry import context
from registry.auth.authenticator import Identity, Kind
from registry.auth.caller import Action
from registry.auth.identification import Identification
from registry.auth.policy import Policy, Somebody
from registry.auth.wanted import Wanted, wanted
from registry.context import Scope

Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class Gate:
    """Finds out who asks and whether he may; plain ASGI, because every request pays for it.

    - Who is unknown and may not, is asked for credentials: 401 UNAUTHORIZED with a challenge, as is a token that
      covers too little (RFC 6750 has 403 for that; clients of registries get themselves another token on 401), whatever
      the rules say.
    - Who is known and may not read, is answered as if there were nothing, to DELETE too: by the same handlers, over an
      empty store.
    - Who is known and may not change, is told so: 403 DENIED, whether the repository exists or not.

    Args:
        app: what lies behind.
        absent: the same application over a store in which nothing is.
    """

    def __init__(self, app: App, absent: App, identification: Identification, policy: Policy) -> None:
        self._app = app
        self._absent = absent
        self._identification = identification
        self._policy = policy

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Answers a request, or says that it may not be answered.

        Of most requests all is remembered that has to be known: those go on without a step of the event loop's.
        """
        if scope["type"] != "http":
            return self._app(scope, receive, send)
        needs = wanted(scope["method"], scope["path"])
        if needs is None:
            return self._app(scope, receive, send)
        identity = self._identification.known(scope) if self._policy.is_current() else None
        if identity is None:
            return self._found_out(needs, scope, receive, send)
        return self._admit(identity, needs, scope)(scope, receive, send)

    async def _found_out(self, needs: Wanted, scope: Scope, receive: Receive, send: Send) -> None:
        await self._policy.refresh()
        identity = await self._identification.of(scope, partial(_scopes, needs, scope))
        await self._admit(identity, needs, scope)(scope, receive, send)

    def _admit(self, identity: Identity, needs: Wanted, scope: Scope) -> App:
        """Returns what answers the request."""
        caller = Somebody(identity, self._policy)
        context.set_caller(scope, caller)
        is_granted = caller.is_granted(needs)
        if is_granted and caller.is_allowed(needs):
            return self._app
        if not is_granted or caller.identity.kind is Kind.ANONYMOUS:
            self._ask(caller, scope, _scopes(needs, scope))
        if needs.action is None:
            # Nobody can say who he is: whoever asks whether there is a registry gets his answer, as docker wants it.
            return self._app
        hides = needs.action in (Action.PULL, Action.DELETE) and needs.repository is not None
        if hides and not caller.is_allowed(Wanted(Action.PULL, needs.repository)):
            return self._absent
        # docker repeats a push that is refused in the words of Distribution without a detail, for 50 seconds.
        raise Denied(f"you may not {needs.action} {needs.repository or 'here'}")

    def _ask(self, caller: Somebody, scope: Scope, scopes: Sequence[TokenScope]) -> None:
        """Raises Unauthorized, unless there is nothing that could be asked for."""
        has_token = caller.identity.grants is not None
        headers = self._identification.challenge(scope, scopes, "insufficient_scope" if has_token else None)
        if headers:
            raise Unauthorized("the token does not cover this" if has_token else None, headers=headers)


def _scopes(needs: Wanted, scope: Scope) -> Sequence[TokenScope]:
    """What a token would have to cover, the repository that a blob is mounted from too."""
    query = parse_qs(scope["query_string"].decode("latin-1")) if scope["method"] == "POST" else {}
    try:
        return needs.scopes(RepositoryName.parse(query["from"][-1]) if "mount" in query and "from" in query else None)
    except NameInvalid:
        return needs.scopes()
