"""How a login runs: Basic, and Docker's token flow by GET and by OAuth2 POST.

A login is a generator: it yields a request, receives the answer, and returns what goes into `Authorization`. It does
no I/O of its own, so that each kind of login is a few lines and is tested without a network.

Sources: RFC 7617 (Basic), RFC 6750 (Bearer), Docker's "Token authentication specification" and "OAuth2 token
authentication".
"""

from __future__ import annotations

import base64
import re
from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias
from urllib.parse import urlencode, urlsplit, urlunsplit

from client.access.credential import Credential
from client.access.credentialhelpers import TOKEN_USER
from client.wire.exchange import Answer, Request
from ocispec import strictjson
from ocispec.errors import (
    GrammarError,
    LayerhouseError,
    ResponseInvalid,
    TooManyRequests,
    Unauthorized,
    Unavailable,
)
from ocispec.headers import Challenge, Scope

CLIENT_ID = "pullclient"
# What the specification gives a token that does not say how long it lives, and the least that is believed.
SHORTEST_LIFE = 60.0
LONGEST_LIFE = 10.0**9
# So narrow that no two readers can take it for two hosts.
_REALM = re.compile(
    r"https?://(?:[a-z0-9_-]+(?:\.[a-z0-9_-]+)*\.?|\[[a-f0-9:.]+\])(?::[0-9]{1,5})?(?:[/?][!-\[\]-~]*)?",
    re.ASCII | re.IGNORECASE,
)
_UNAVAILABLE = frozenset({500, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class Token:
    """What a token server gave.

    Attributes:
        text: the token.
        life: for how many seconds it is good.
    """

    text: str = field(repr=False)
    life: float


Login: TypeAlias = Generator[Request, Answer, Token]


@dataclass(frozen=True, slots=True)
class Wish:
    """What a login is for.

    Attributes:
        host: what messages call the registry.
        login: what `pullclient login` calls it.
        scopes: what is asked for, as tokens say it.
        credential: who asks; None for nobody.
        withheld: why there is a credential that must not be sent, in words.
    """

    host: str
    login: str
    scopes: tuple[str, ...] = ()
    credential: Credential | None = None
    withheld: str | None = None

    @property
    def what(self) -> str:
        """The scopes, for messages."""
        return " ".join(self.scopes)[:500]

    def refusal(self, by: str = "") -> Unauthorized:
        """Returns the error that tells why there is no access.

        Args:
            by: who refused the credentials, if not the registry.
        """
        what = f" for {self.what}" if self.what else ""
        if self.credential:
            return Unauthorized(f"{by or self.host} refused the credentials of {self.credential.owner}{what}")
        if self.withheld:
            return Unauthorized(f"{self.host} wants a login{what}, and {self.withheld}")
        return Unauthorized(
            f"{self.host} wants a login{what}, and there are no credentials for it: pullclient login {self.login}"
        )

    def denial(self) -> Unauthorized:
        """Returns the error of a registry that refuses a token it just had made."""
        if not self.credential:
            # Docker Hub gives nobody a token for what does not exist, and then refuses it.
            known = self.refusal().message
            return Unauthorized(f"{known} (or there is no such repository)") if self.what else Unauthorized(known)
        allowed = f"does not allow {self.what or 'anything'} to {self.credential.owner}"
        return Unauthorized(f"{self.host} {allowed}, or there is no such repository")


def choose(headers: Iterable[str], host: str) -> Challenge:
    """Returns the best login that a registry offers and this client knows: Bearer, else Basic.

    Args:
        headers: all its `WWW-Authenticate`.
        host: what messages call it.

    Raises:
        ResponseInvalid: the headers are none, or name no token server.
        Unauthorized: it wants another kind of login.
    """
    offered, broken = _offered(headers)
    known = [each for each in offered if each.scheme == "bearer" and _REALM.fullmatch(realm(each))]
    known += [each for each in offered if each.scheme == "basic"]
    if known:
        return known[0]
    bearer = [each for each in offered if each.scheme == "bearer"]
    if bearer:
        raise ResponseInvalid(f"{host} names no token server: {str(bearer[0])!r:.200}")
    if not offered:
        raise ResponseInvalid(f"{host} wants a login and does not say which: {broken or 'no WWW-Authenticate'}")
    kinds = ", ".join(each.scheme.capitalize() for each in offered)
    raise Unauthorized(f"{host} wants a login by {kinds:.100}; this client knows Bearer and Basic")


def _offered(headers: Iterable[str]) -> tuple[list[Challenge], str]:
    found: list[Challenge] = []
    broken = ""
    for header in headers:
        try:
            found += Challenge.parse_all(header)
        except GrammarError as error:
            broken = error.message
    return found, broken


def realm(challenge: Challenge) -> str:
    """Returns the URL of the token server that a challenge names, without a fragment."""
    return challenge.parameters.get("realm", "").partition("#")[0]


def union(scopes: Iterable[Scope], challenge: Challenge) -> tuple[str, ...]:
    """Returns what a token is asked for: what is needed, and what the registry says is needed."""
    found: dict[tuple[str, str], Scope] = {}
    unknown: list[str] = []
    asked = list(scopes)
    for text in challenge.parameters.get("scope", "").split():
        try:
            asked.append(Scope.parse(text))
        except GrammarError:
            unknown.append(text)
    for each in asked:
        known = found.get((each.type, each.name))
        actions = dict.fromkeys((*(known.actions if known else ()), *each.actions))
        found[each.type, each.name] = Scope(each.type, each.name, tuple(actions))
    return tuple(dict.fromkeys([*map(str, found.values()), *unknown]))


def basic(wish: Wish) -> str:
    """Returns the `Authorization` of a password.

    Raises:
        Unauthorized: there is none.
    """
    credential = wish.credential
    if credential is None:
        raise wish.refusal()
    if credential.password is None:
        kept = f"what is kept in {credential.place or 'its place'} is a token"
        raise Unauthorized(f"{wish.host} wants a password, and {kept}: pullclient login {wish.login}")
    return _basic(credential.username or "", credential.password)


def bearer(challenge: Challenge, wish: Wish) -> Login:
    """Asks the token server that a challenge names.

    An identity token is exchanged by POST; a server that knows no POST is asked by GET.

    Raises:
        Unauthorized: it gives none.
        TooManyRequests, Unavailable: it asks to come back later.
        ResponseInvalid: it does not answer as Docker's token specification says.
    """
    if wish.credential and wish.credential.identity_token:
        answer = yield _exchange(challenge, wish, wish.credential.identity_token)
        if answer.status not in (404, 405):
            return _token(answer, wish, realm(challenge))
    answer = yield _request(challenge, wish)
    return _token(answer, wish, realm(challenge))


def _request(challenge: Challenge, wish: Wish) -> Request:
    asked = [("service", challenge.parameters.get("service", "")), *(("scope", each) for each in wish.scopes)]
    headers = {}
    if known := wish.credential:
        user = known.username or (TOKEN_USER if known.identity_token else "")
        headers["Authorization"] = _basic(user, known.identity_token or known.password or "")
        asked.append(("account", known.username or ""))
    url = urlsplit(realm(challenge))
    query = urlencode([(name, text) for name, text in asked if text])
    whole = url._replace(query="&".join(filter(None, (url.query, query))))
    return Request("GET", urlunsplit(whole), headers)


def _exchange(challenge: Challenge, wish: Wish, identity: str) -> Request:
    form = {
        "grant_type": "refresh_token",
        "service": challenge.parameters.get("service", ""),
        "client_id": CLIENT_ID,
        "scope": " ".join(wish.scopes),
        "refresh_token": identity,
    }
    content = urlencode({name: text for name, text in form.items() if text}).encode()
    return Request("POST", realm(challenge), {"Content-Type": "application/x-www-form-urlencoded"}, content)


def _basic(user: str, password: str) -> str:
    return f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"


def _token(answer: Answer, wish: Wish, server: str) -> Token:
    host = urlsplit(server).netloc
    if answer.status != 200:
        raise _refused(answer, wish, host)
    try:
        members = strictjson.loads(answer.body)
    except strictjson.AmbiguousJSON:
        # The cause would hold what was read.
        raise ResponseInvalid(f"{host} answered a token that is not JSON") from None
    if not isinstance(members, dict):
        members = {}
    text = members.get("token") or members.get("access_token")
    if not isinstance(text, str) or not text.isascii() or not text.isprintable() or " " in text:
        raise ResponseInvalid(f"{host} answered no token")
    return Token(text, _life(members, answer.headers))


def _refused(answer: Answer, wish: Wish, server: str) -> LayerhouseError:
    said = f"{server} gave no token{f' for {wish.what}' if wish.what else ''} (status {answer.status})"
    if answer.status in (401, 403):
        return wish.refusal(server)
    if answer.status == 429:
        return TooManyRequests(said, headers=answer.headers)
    if answer.status in _UNAVAILABLE:
        return Unavailable(said, headers=answer.headers)
    return Unauthorized(said)


def _life(members: Mapping[str, Any], headers: Mapping[str, str]) -> float:
    """Returns for how many seconds a token is good, by the server's own clock alone: ours may be wrong."""
    given = members.get("expires_in")
    whole = given if isinstance(given, int | float) else SHORTEST_LIFE
    return float(max(SHORTEST_LIFE, min(whole, LONGEST_LIFE))) - _age(members.get("issued_at"), headers.get("date", ""))


def _age(issued: Any, date: str) -> float:
    if not isinstance(issued, str) or not date:
        return 0.0
    # Taken here: most tokens do not say when they were made.
    from datetime import UTC, datetime  # noqa: PLC0415 - see above
    from email.utils import parsedate_to_datetime  # noqa: PLC0415 - see above

    try:
        made, now = datetime.fromisoformat(issued), parsedate_to_datetime(date)
    except (ValueError, OverflowError):
        return 0.0
    made, now = (each if each.tzinfo else each.replace(tzinfo=UTC) for each in (made, now))
    return max(0.0, (now - made).total_seconds())
