"""Access to a registry: what answers a 401 (distribution-spec; Docker's token specification; RFC 6750).

A login is a generator: it yields a request, receives the answer, and returns what goes into `Authorization`. It does
no I/O of its own, so that each kind of login is a few lines and is tested without a network.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Generator
from typing import TypeAlias
from urllib.parse import urlencode, urlsplit, urlunsplit

from client.exchange import Answer, Request
from ocispec import strictjson
from ocispec.errors import GrammarError, ResponseInvalid, Unauthorized
from ocispec.headers import Challenge, Scope

Login: TypeAlias = Generator[Request, Answer, str]
Exchange: TypeAlias = Callable[[Request], Awaitable[Answer]]


def login(challenge: Challenge, scope: Scope) -> Login:
    """Starts the login that a registry asks for.

    Raises:
        Unauthorized: it wants what this client does not have.
    """
    if challenge.scheme == "bearer":
        return anonymous_token(challenge, scope)
    raise Unauthorized(f"the registry wants a {challenge.scheme.capitalize()} login, and there are no credentials")


def anonymous_token(challenge: Challenge, scope: Scope) -> Login:
    """Asks the token server that the challenge names, without credentials.

    Raises:
        Unauthorized: it gives none.
        ResponseInvalid: it, or the challenge, is not as Docker's token specification says.
    """
    wanted = challenge.parameters.get("scope") or str(scope)
    request = Request("GET", _token_url(challenge, wanted))
    answer = yield request
    host = urlsplit(request.url).netloc
    if answer.status != 200:
        raise Unauthorized(f"{host} gave no token for {wanted} (status {answer.status})")
    return f"Bearer {_token(answer, host)}"


class Access:
    """What registries granted so far, by host and scope. Of several requests refused at once, one logs in."""

    def __init__(self) -> None:
        self._granted: dict[tuple[str, str], str] = {}
        self._busy: defaultdict[tuple[str, str], asyncio.Lock] = defaultdict(asyncio.Lock)

    def granted(self, host: str, scope: Scope) -> str | None:
        """Returns the value of `Authorization`, if there is one."""
        return self._granted.get((host, str(scope)))

    async def renew(self, host: str, scope: Scope, refused: str | None, header: str, exchange: Exchange) -> str:
        """Logs in, unless another task has done so since `refused` was sent.

        Args:
            host: the registry.
            scope: what is to be allowed.
            refused: the `Authorization` that the registry answered with 401.
            header: the `WWW-Authenticate` it answered.
            exchange: sends a request and reads the answer.

        Raises:
            Unauthorized: access is not granted.
            ResponseInvalid: the challenge or the token server's answer does not follow its specification.
        """
        key = (host, str(scope))
        async with self._busy[key]:
            granted = self._granted.get(key)
            if granted is None or granted == refused:
                granted = self._granted[key] = await _run(login(_challenge(header), scope), exchange)
            return granted


async def _run(steps: Login, exchange: Exchange) -> str:
    request = next(steps)
    while True:
        answer = await exchange(request)
        try:
            request = steps.send(answer)
        except StopIteration as end:
            return str(end.value)


def _challenge(header: str) -> Challenge:
    try:
        return Challenge.parse(header)
    except GrammarError as error:
        raise ResponseInvalid(error.message) from error


def _token_url(challenge: Challenge, scope: str) -> str:
    realm = urlsplit(challenge.parameters.get("realm", ""))
    if realm.scheme not in ("http", "https") or not realm.netloc:
        raise ResponseInvalid(f"the registry names no token server: {str(challenge)!r:.200}")
    asked = {"service": challenge.parameters.get("service"), "scope": scope}
    query = urlencode({name: value for name, value in asked.items() if value})
    return urlunsplit(realm._replace(query="&".join(filter(None, (realm.query, query))), fragment=""))


def _token(answer: Answer, host: str) -> str:
    try:
        members = strictjson.loads(answer.body)
    except strictjson.AmbiguousJSON as error:
        raise ResponseInvalid(f"{host} answered a token that cannot be read: {error}") from error
    token = (members.get("token") or members.get("access_token")) if isinstance(members, dict) else None
    if not isinstance(token, str) or not token.isascii() or not token.isprintable():
        raise ResponseInvalid(f"{host} answered no token")
    return token
