"""Logins step by step, without a network: a generator yields requests and is given answers."""

from __future__ import annotations

import asyncio
import json

import pytest

from client.auth import Access, Login, login
from client.exchange import Answer, Request
from ocispec.errors import ResponseInvalid, Unauthorized
from ocispec.headers import Challenge, Scope

SCOPE = Scope("repository", "library/node", ("pull",))
HUB = 'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/node:pull"'


def finished(steps: Login, answer: Answer) -> str:
    with pytest.raises(StopIteration) as end:
        steps.send(answer)
    return str(end.value.value)


def token(members: object, status: int = 200) -> Answer:
    return Answer(status, {}, json.dumps(members).encode())


def test_a_token_is_asked_for_as_the_challenge_says():
    request = next(login(Challenge.parse(HUB), SCOPE))
    assert request == Request(
        "GET", "https://auth.docker.io/token?service=registry.docker.io&scope=repository%3Alibrary%2Fnode%3Apull"
    )


def test_a_challenge_without_scope_is_asked_for_what_is_needed_and_keeps_its_query():
    request = next(login(Challenge.parse('Bearer realm="https://a/t?x=1"'), SCOPE))
    assert request.url == "https://a/t?x=1&scope=repository%3Alibrary%2Fnode%3Apull"


@pytest.mark.parametrize("name", ["token", "access_token"])
def test_the_token_becomes_the_authorization(name: str):
    steps = login(Challenge.parse(HUB), SCOPE)
    next(steps)
    assert finished(steps, token({name: "t0k"})) == "Bearer t0k"


@pytest.mark.parametrize(
    "answer", [token({}), token([]), token({"token": 1}), token({"token": "a\r\nX: y"}), Answer(200, {}, b"{")]
)
def test_an_answer_without_a_token_names_the_token_server(answer: Answer):
    steps = login(Challenge.parse(HUB), SCOPE)
    next(steps)
    with pytest.raises(ResponseInvalid, match=r"^auth\.docker\.io answered"):
        steps.send(answer)


def test_a_token_server_that_refuses_is_named():
    steps = login(Challenge.parse(HUB), SCOPE)
    next(steps)
    with pytest.raises(Unauthorized, match=r"auth\.docker\.io gave no token for repository:library/node:pull"):
        steps.send(token({}, 403))


def test_a_registry_that_wants_a_password_is_told_apart():
    with pytest.raises(Unauthorized, match="wants a Basic login, and there are no credentials"):
        login(Challenge.parse('Basic realm="x"'), SCOPE)


@pytest.mark.parametrize("realm", ["", "ftp://x/y", "/relative"])
def test_a_challenge_that_names_no_token_server_is_refused(realm: str):
    with pytest.raises(ResponseInvalid, match="names no token server"):
        next(login(Challenge("bearer", {"realm": realm}), SCOPE))


async def test_of_many_refused_requests_one_logs_in():
    access, asked = Access(), []

    async def exchange(request: Request) -> Answer:
        asked.append(request.url)
        await asyncio.sleep(0)
        return token({"token": str(len(asked))})

    renewed = [access.renew("host", SCOPE, None, HUB, exchange) for _ in range(5)]
    assert await asyncio.gather(*renewed) == ["Bearer 1"] * 5
    assert access.granted("host", SCOPE) == "Bearer 1"
    assert await access.renew("host", SCOPE, "Bearer 1", HUB, exchange) == "Bearer 2"
    assert access.granted("other", SCOPE) is None


async def test_a_challenge_that_is_none_is_the_registrys_fault():
    async def exchange(_: Request) -> Answer:
        raise NotImplementedError

    with pytest.raises(ResponseInvalid, match="invalid WWW-Authenticate"):
        await Access().renew("host", SCOPE, None, "Bearer realm", exchange)
