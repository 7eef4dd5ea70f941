"""Logins step by step, without a network: a generator yields requests and is given answers."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.access.credential import Credential
from client.access.tokens import LONGEST_LIFE, Login, Token, Wish, basic, bearer, choose, union
from client.wire.exchange import Answer, Request
from ocispec.errors import ResponseInvalid, TooManyRequests, Unauthorized, Unavailable
from ocispec.headers import Challenge, Scope

PULL = Scope("repository", "library/node", ("pull",))
REALM = "https://auth.docker.io/token"
HUB = f'Bearer realm="{REALM}",service="registry.docker.io",scope="repository:library/node:pull"'
ALICE = Credential("alice", "pässword", place="/home/alice/.docker/config.json")
IDENTITY = Credential(identity_token="1d")


def wish(credential: Credential | None = None, *scopes: str, withheld: str | None = None) -> Wish:
    return Wish("docker.io", "docker.io", scopes or (str(PULL),), credential, withheld)


def started(credential: Credential | None = None, header: str = HUB) -> tuple[Login, Request]:
    steps = bearer(Challenge.parse(header), wish(credential))
    return steps, next(steps)


def finished(steps: Login, answer: Answer) -> Token:
    with pytest.raises(StopIteration) as end:
        steps.send(answer)
    return end.value.value


def token(members: object, status: int = 200, **headers: str) -> Answer:
    return Answer(status, headers, json.dumps(members).encode())


def decoded(request: Request) -> str:
    return base64.b64decode(request.headers["Authorization"].removeprefix("Basic ")).decode()


def test_a_token_is_asked_for_as_the_challenge_says():
    _, request = started()
    assert request == Request("GET", f"{REALM}?service=registry.docker.io&scope=repository%3Alibrary%2Fnode%3Apull")


def test_a_realm_keeps_its_query_and_every_scope_is_asked_for_by_itself():
    challenge = Challenge.parse('Bearer realm="https://a/t?x=1#y"')
    request = next(bearer(challenge, wish(None, "repository:a:pull", "repository:b:pull")))
    assert request.url == "https://a/t?x=1&scope=repository%3Aa%3Apull&scope=repository%3Ab%3Apull"


def test_a_password_goes_to_the_token_server():
    _, request = started(ALICE)
    assert decoded(request) == "alice:pässword"
    assert request.url.endswith("&account=alice")


def test_an_identity_token_is_exchanged_by_post():
    _, request = started(IDENTITY)
    assert request == Request(
        "POST",
        REALM,
        {"Content-Type": "application/x-www-form-urlencoded"},
        b"grant_type=refresh_token&service=registry.docker.io&client_id=pullclient"
        b"&scope=repository%3Alibrary%2Fnode%3Apull&refresh_token=1d",
    )


@pytest.mark.parametrize("status", [404, 405])
@pytest.mark.parametrize(("user", "sent"), [(None, "<token>:1d"), ("00000000-0000", "00000000-0000:1d")])
def test_a_server_that_knows_no_post_is_asked_by_get(status: int, user: str | None, sent: str):
    steps, _ = started(Credential(user, identity_token="1d"))
    request = steps.send(token({}, status))
    assert (request.method, decoded(request)) == ("GET", sent)
    assert finished(steps, token({"token": "t0k"})).text == "t0k"


@pytest.mark.parametrize("credential", [None, ALICE, IDENTITY])
@pytest.mark.parametrize("name", ["token", "access_token"])
def test_a_token_may_have_either_name(name: str, credential: Credential | None):
    steps, _ = started(credential)
    assert finished(steps, token({name: "t0k", "refresh_token": "x"})).text == "t0k"


@pytest.mark.parametrize("body", [{}, [], None, {"token": 1}, {"token": "a\r\nX: y"}, {"token": "a b"}, {"token": "é"}])
def test_an_answer_without_a_token_names_the_token_server(body: object):
    steps, _ = started()
    with pytest.raises(ResponseInvalid, match=r"^auth\.docker\.io answered no token$"):
        steps.send(token(body))


def test_what_is_not_json_is_not_shown():
    steps, _ = started()
    with pytest.raises(ResponseInvalid, match=r"^auth\.docker\.io answered a token that is not JSON$") as failed:
        steps.send(Answer(200, {}, b'{"token":"s3cret"'))
    assert failed.value.__cause__ is None
    assert failed.value.__suppress_context__


@pytest.mark.parametrize(
    ("status", "credential", "error", "text"),
    [
        (
            401,
            ALICE,
            Unauthorized,
            r"^auth\.docker\.io refused the credentials of alice from /home/alice/\.docker/conf",
        ),
        (
            403,
            IDENTITY,
            Unauthorized,
            r"^auth\.docker\.io refused the credentials of a token for repository:library/no",
        ),
        (401, None, Unauthorized, r"there are no credentials for it: pullclient login docker\.io$"),
        (307, None, Unauthorized, r"^auth\.docker\.io gave no token for repository:library/node:pull \(status 307\)$"),
        (503, None, Unavailable, r"\(status 503\)$"),
        (429, ALICE, TooManyRequests, r"\(status 429\)$"),
    ],
)
def test_a_token_server_that_refuses_is_told_apart(
    status: int, credential: Credential | None, error: type[Exception], text: str
):
    steps, _ = started(credential)
    with pytest.raises(error, match=text) as failed:
        steps.send(token({}, status, **{"retry-after": "7"}))
    assert failed.value.headers == ({"retry-after": "7"} if status in (429, 503) else {})


@pytest.mark.parametrize(
    ("members", "date", "life"),
    [
        ({}, "", 60),
        ({"expires_in": 300}, "", 300),
        ({"expires_in": 5}, "", 60),
        ({"expires_in": -1}, "", 60),
        ({"expires_in": "300"}, "", 60),
        ({"expires_in": 10**400}, "", 10**9),
        ({"expires_in": True}, "", 60),
        ({"expires_in": 300, "issued_at": "2026-11-24T10:00:00.123456789Z"}, "Tue, 24 Nov 2026 10:01:00 GMT", 240),
        ({"expires_in": 300, "issued_at": "2026-11-24T10:00:00"}, "Tue, 24 Nov 2026 10:01:00 -0000", 240),
        ({"expires_in": 300, "issued_at": "2026-11-24T10:00:00Z"}, "", 300),
        ({"expires_in": 300, "issued_at": "2026-11-24T11:00:00Z"}, "Tue, 24 Nov 2026 10:00:00 GMT", 300),
        ({"expires_in": 300, "issued_at": "yesterday"}, "Tue, 24 Nov 2026 10:00:00 GMT", 300),
        ({"expires_in": 300, "issued_at": "2026-11-24T11:00:00Z"}, "now", 300),
        ({"expires_in": 300, "issued_at": 7}, "Tue, 24 Nov 2026 10:00:00 GMT", 300),
    ],
)
def test_how_long_a_token_is_good_comes_from_the_servers_clock(members: dict[str, object], date: str, life: int):
    steps, _ = started()
    assert round(finished(steps, token({"token": "t", **members}, date=date)).life) == life


@given(
    st.dictionaries(
        st.sampled_from(["expires_in", "issued_at"]),
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    ),
    st.text(),
)
def test_no_answer_gives_a_token_an_endless_life(members: dict[str, object], date: str):
    steps, _ = started()
    raw = json.dumps({"token": "t", **members}).replace("-Infinity", "1").replace("Infinity", "1").replace("NaN", "1")
    assert finished(steps, Answer(200, {"date": date}, raw.encode())).life <= LONGEST_LIFE


def test_the_password_is_sent_to_a_registry_that_wants_it():
    assert base64.b64decode(basic(wish(ALICE)).removeprefix("Basic ")).decode() == "alice:pässword"


def test_a_password_that_is_not_there_is_asked_for():
    with pytest.raises(Unauthorized, match=r"no credentials for it: pullclient login docker\.io"):
        basic(wish())
    with pytest.raises(Unauthorized, match=r"docker\.io wants a password, and what is kept in FILE is a token"):
        basic(wish(Credential(identity_token="x", place="FILE")))


BEARER, BASIC = 'Bearer realm="https://a/t"', 'Basic realm="x y"'


@pytest.mark.parametrize(
    ("headers", "scheme"),
    [
        ([BEARER], "bearer"),
        ([BASIC], "basic"),
        ([f"{BASIC}, {BEARER}"], "bearer"),
        ([f"Negotiate, {BASIC}"], "basic"),
        ([f"Negotiate abc==, {BASIC}, {BEARER},service=x"], "bearer"),
        ([BASIC, BEARER], "bearer"),
        (["Negotiate", BASIC], "basic"),
        (["=broken", BEARER], "bearer"),
        (['Bearer realm="ftp://a/t"', BASIC], "basic"),
    ],
)
def test_the_best_login_on_offer_is_chosen(headers: list[str], scheme: str):
    assert choose(headers, "a").scheme == scheme


@pytest.mark.parametrize(
    ("headers", "error", "text"),
    [
        ([], ResponseInvalid, "^h wants a login and does not say which: no WWW-Authenticate"),
        (["Bearer realm"], ResponseInvalid, "^h names no token server"),
        (["=x"], ResponseInvalid, "^h wants a login and does not say which: invalid WWW-Authenticate"),
        (["Negotiate, Digest realm=x"], Unauthorized, "^h wants a login by Negotiate, Digest; this client knows"),
    ],
)
def test_a_registry_that_offers_no_login_is_named(headers: list[str], error: type[Exception], text: str):
    with pytest.raises(error, match=text):
        choose(headers, "h")


@pytest.mark.parametrize(
    "realm",
    ["", "ftp://x/y", "/relative", "https://", "https:///x", "https://a@b/", "https://a\\@b/", "https://a/\\b", "https://é/",
     "https://a b/", "https://a:999999/", "https://a/\u0000", "https://.a/", "https://a..b/", "//a/b", "https://a/x y"],
)  # fmt: skip
def test_a_realm_that_two_readers_could_take_for_two_hosts_is_none(realm: str):
    with pytest.raises(ResponseInvalid, match=r"^h names no token server|^h wants a login and does not"):
        choose([str(Challenge("bearer", {"realm": realm}))], "h")


@pytest.mark.parametrize(
    "realm", ["https://a.b./", "HTTPS://A/t", "http://[::1]:5000/t?x=y", "https://a", "http://a_b:1/"]
)
def test_other_realms_are_taken(realm: str):
    assert choose([str(Challenge("bearer", {"realm": realm}))], "h").parameters["realm"] == realm


@pytest.mark.parametrize(
    ("ours", "theirs", "asked"),
    [
        ([PULL], "", ["repository:library/node:pull"]),
        ([PULL], "repository:library/node:pull", ["repository:library/node:pull"]),
        ([PULL], "repository:library/node:pull,push", ["repository:library/node:pull,push"]),
        ([PULL], "repository:library/node:push", ["repository:library/node:pull,push"]),
        ([PULL], "registry:catalog:* aws", ["repository:library/node:pull", "registry:catalog:*", "aws"]),
        ([], "repository:a:pull repository:a:pull", ["repository:a:pull"]),
        (
            [PULL, Scope("repository", "b", ("pull",))],
            "repository:b:pull,push",
            ["repository:library/node:pull", "repository:b:pull,push"],
        ),
    ],
)
def test_what_is_asked_for_is_what_we_need_and_what_the_registry_says(ours: list[Scope], theirs: str, asked: list[str]):
    assert list(union(ours, Challenge("bearer", {"scope": theirs}))) == asked


def test_each_refusal_says_whose_credentials_and_for_what():
    sent = "the credentials for it were not sent to evil.example: it is on another site than docker.io"
    what = "repository:library/node:pull"
    told = {
        wish().denial(): f"docker.io wants a login for {what}, and there are no credentials for it: "
        "pullclient login docker.io (or there is no such repository)",
        wish(
            withheld=sent
        ).denial(): f"docker.io wants a login for {what}, and {sent} (or there is no such repository)",
        wish(ALICE).denial(): f"docker.io does not allow {what} to alice from /home/alice/.docker/config.json, "
        "or there is no such repository",
        Wish("h", "h").denial(): "h wants a login, and there are no credentials for it: pullclient login h",
        Wish("h", "h", (), ALICE).refusal(): "h refused the credentials of alice from /home/alice/.docker/config.json",
    }
    assert {error.message for error in told} == set(told.values())


def test_no_secret_shows():
    text = repr([ALICE, IDENTITY, Token("t0k", 1), wish(ALICE), Credential(registry_token="r3g")])
    assert not [secret for secret in ("pässword", "1d", "t0k", "r3g") if secret in text]
