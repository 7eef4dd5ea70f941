"""Logins at registries and token servers on real sockets: who is sent what, and who is not."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from types import SimpleNamespace

import pytest

from client.access import auth
from client.access.auth import Access
from client.access.credential import Credential
from client.access.credentials import Given
from client.hosts.endpoint import Endpoint
from client.registries.api import Api
from ocispec.errors import CredentialsError, LayerhouseError, ResponseInvalid, TooManyRequests, Unauthorized
from ocispec.headers import Scope
from ocispec.reference import RepositoryName
from tests.client.guarded import ALICE, PULL, SENT, Site, opened
from tests.client.scripted import Reply, scripted


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with opened() as found:
        yield found


async def status(api: Api, path: str = "a/b") -> int:
    async with api.send("GET", path) as response:
        return response.status


async def test_a_token_is_got_once_and_sent_with_every_request(site: Site):
    api = site.api(ALICE)
    assert [await status(api) for _ in range(3)] == [200, 200, 200]
    assert [each.headers.get("authorization") for each in site.registry.seen] == [None, *["Bearer t1"] * 3]
    assert [(each.headers.get("authorization"), each.query) for each in site.tokens.seen] == [
        (SENT["alice"], {"service": "s", "scope": "repository:a/b:pull", "account": "alice"})
    ]


async def test_without_credentials_a_token_is_asked_for_anonymously(site: Site):
    assert await status(site.api()) == 200
    assert [each.headers.get("authorization") for each in site.tokens.seen] == [None]


async def test_several_scopes_are_asked_for_with_what_the_registry_names(site: Site):
    site.bearer(f"http://{site.tokens.host}/token", ',scope="repository:a/b:push"')
    api = site.api(ALICE, PULL, Scope("repository", "c", ("pull",)))
    assert await status(api) == 200
    assert "scope=repository%3Aa%2Fb%3Apull%2Cpush&scope=repository%3Ac%3Apull" in site.tokens.seen[0].target


async def test_an_identity_token_is_exchanged(site: Site):
    assert await status(site.api(Credential(identity_token="1d"))) == 200
    (asked,) = site.tokens.seen
    assert (asked.method, asked.headers.get("authorization"), asked.target) == ("POST", None, "/token")
    assert b"grant_type=refresh_token" in asked.body
    assert b"refresh_token=1d" in asked.body


async def test_a_token_server_without_post_is_asked_by_get(site: Site):
    sent = f"Basic {base64.b64encode(b'<token>:1d').decode()}"
    site.users = {sent}
    give = site.tokens.behaviours["/token"]
    site.tokens.behaviours["/token"] = lambda seen: Reply(404) if seen.method == "POST" else give(seen)
    assert await status(site.api(Credential(identity_token="1d"))) == 200
    assert [(each.method, each.headers.get("authorization")) for each in site.tokens.seen] == [
        ("POST", None),
        ("GET", sent),
    ]


async def test_a_password_is_sent_to_a_registry_that_wants_it_for_every_scope(site: Site):
    site.challenge, site.taken = 'Basic realm="x"', {SENT["alice"]}
    access = Access(Given(ALICE))
    for scopes in ((PULL,), (), (Scope("registry", "catalog", ("*",)),)):
        assert await status(Api(site.endpoint, site.transport.send, access, *scopes)) == 200
    assert [each.headers.get("authorization") for each in site.registry.seen] == [None, *[SENT["alice"]] * 3]


async def test_a_token_for_the_registry_is_sent_as_it_is(site: Site):
    site.taken = {"Bearer r3g"}
    assert await status(site.api(Credential(registry_token="r3g"))) == 200
    assert site.tokens.seen == []


@pytest.mark.parametrize("between", [", ", "\r\nWWW-Authenticate: "])
async def test_of_several_challenges_the_best_is_taken(site: Site, between: str):
    site.challenge = f'Negotiate{between}Basic realm="x, y"{between}{site.challenge}'
    assert await status(site.api(ALICE)) == 200
    assert SENT["alice"] not in [each.headers.get("authorization") for each in site.registry.seen]


async def test_of_twenty_refused_at_once_in_the_middle_of_a_pull_one_logs_in(site: Site):
    api = site.api(ALICE)
    assert await status(api) == 200
    site.taken = set()
    assert await asyncio.gather(*(status(api) for _ in range(20))) == [200] * 20
    assert site.given == 2
    assert "Bearer t1" not in site.taken


async def test_of_twenty_that_cannot_log_in_one_tries(site: Site):
    site.users, access = set(), Access(Given(ALICE))
    failed = await asyncio.gather(*(site.renewed(access) for _ in range(20)), return_exceptions=True)
    assert {str(each) for each in failed} == {
        f"{site.tokens.host} refused the credentials of alice from FILE for repository:a/b:pull"
    }
    assert len({id(each) for each in failed}) == 20
    assert len(site.tokens.seen) == 1


async def test_a_cancelled_login_is_taken_over_by_the_next(site: Site):
    began, never = asyncio.Event(), asyncio.Event()

    async def hang() -> None:
        began.set()
        await never.wait()

    give = site.tokens.behaviours["/token"]
    site.tokens.behaviours["/token"] = lambda _: Reply(200, b"{}", wait=hang)
    access = Access(Given(ALICE))
    first = asyncio.create_task(site.renewed(access))
    await began.wait()
    second = asyncio.create_task(site.renewed(access))
    await asyncio.sleep(0)
    site.tokens.behaviours["/token"] = give
    first.cancel()
    assert await second == "Bearer t1"
    assert first.cancelled()


async def test_a_token_about_to_end_is_renewed_before_it_is_sent(site: Site, monkeypatch: pytest.MonkeyPatch):
    clock = [1000.0]
    monkeypatch.setattr(auth, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    site.members = {"expires_in": 300}
    access = Access(Given(ALICE))
    assert await site.renewed(access) == "Bearer t1"
    clock[0] += 289
    assert access.granted(site.endpoint, (PULL,)) == "Bearer t1"
    clock[0] += 2
    assert access.granted(site.endpoint, (PULL,)) is None
    assert await site.renewed(access) == "Bearer t2"


async def test_a_token_that_another_task_renewed_meanwhile_is_used(site: Site):
    access = Access(Given(ALICE))
    assert await site.renewed(access) == "Bearer t1"
    assert await site.renewed(access, "Bearer t1") == "Bearer t2"
    assert await site.renewed(access, "Bearer t1") == "Bearer t2"
    assert site.given == 2


async def test_a_token_server_that_is_busy_is_waited_for(site: Site):
    site.tokens.behaviours["/token"] = Reply(429, headers={"Retry-After": "7"})
    with pytest.raises(TooManyRequests) as failed:
        await site.renewed(Access())
    assert failed.value.headers["retry-after"] == "7"


async def test_wrong_passwords_are_told_with_their_owner(site: Site):
    site.users = {None}
    with pytest.raises(Unauthorized, match=r"refused the credentials of alice from FILE for repository:a/b:pull$"):
        await status(site.api(ALICE))
    site.challenge = 'Basic realm="x"'
    access = Access(Given(ALICE))
    refused = await site.renewed(access)
    told = f"{site.registry.host} refused the credentials of alice from FILE"
    assert access.refusal(site.endpoint, (PULL,)).message == told
    with pytest.raises(Unauthorized, match=f"^{told}$"):
        await site.renewed(access, refused)


async def test_a_refused_registry_token_is_final(site: Site):
    access = Access(Given(Credential("alice", registry_token="r3g", place="FILE")))
    refused = await site.renewed(access)
    with pytest.raises(Unauthorized, match=f"^{site.registry.host} refused the credentials of alice from FILE$"):
        await site.renewed(access, refused)


async def test_who_is_nobody_is_told_to_log_in(site: Site):
    site.users = set()
    host = site.registry.host
    with pytest.raises(Unauthorized) as failed:
        await status(site.api())
    assert failed.value.message == (
        f"{host} wants a login for repository:a/b:pull, and there are no credentials for it: pullclient login {host}"
    )
    site.challenge = "Basic realm=x"
    with pytest.raises(Unauthorized, match=f"^{host} wants a login, and there are no credentials for it: pullclient"):
        await status(site.api())


async def test_a_fresh_token_that_is_refused_says_what_was_asked(site: Site):
    for known, text in ((None, r"pullclient login .* \(or there is no such repository\)"), (ALICE, "does not allow")):
        access = Access(Given(known) if known else None)
        await site.renewed(access)
        with pytest.raises(Unauthorized, match=f"repository:a/b:pull.*{text}|{text} repository:a/b:pull to alice"):
            raise access.refusal(site.endpoint, (PULL,))
    assert Access().refusal(site.endpoint, (PULL,)).message == f"{site.registry.host} wants a login"


async def test_a_token_server_on_another_site_gets_no_credentials(site: Site):
    port = site.tokens.host.rpartition(":")[2]
    site.bearer(f"http://localhost:{port}/token")
    for credential in (ALICE, Credential(identity_token="1d")):
        site.tokens.seen.clear()
        assert await status(site.api(credential)) == 200
        (asked,) = site.tokens.seen
        assert (asked.method, asked.headers.get("authorization"), asked.body) == ("GET", None, b"")
        assert "account" not in asked.query
    site.users = set()
    with pytest.raises(Unauthorized) as failed:
        await status(site.api(ALICE))
    assert failed.value.message == (
        f"{site.registry.host} wants a login for repository:a/b:pull, and the credentials for it were not sent to "
        f"localhost:{port}: it is on another site than 127.0.0.1"
    )


async def test_nothing_is_sent_unencrypted_for_a_registry_that_speaks_https():
    async with opened(tls=True) as site:
        port = site.tokens.host.rpartition(":")[2]
        site.bearer(f"http://localhost:{port}/token")
        assert await status(site.api(ALICE)) == 200
        assert [each.headers.get("authorization") for each in site.tokens.seen] == [None]
        site.users = set()
        with pytest.raises(Unauthorized, match=rf"not sent to localhost:{port}: they would go there unencrypted$"):
            await status(site.api(ALICE))


async def test_a_redirect_of_the_token_server_takes_no_credentials_along(site: Site):
    async with scripted() as other:
        other.behaviours["/token"] = Reply(200, b'{"token": "t"}')
        moved = Reply(307, headers={"Location": f"http://{other.host}/token"})
        site.tokens.behaviours["/token"], site.taken = moved, {"Bearer t"}
        assert await status(site.api(ALICE)) == 200
        assert "authorization" not in other.seen[0].headers
        with pytest.raises(Unauthorized, match=r"gave no token for repository:a/b:pull \(status 307\)$"):
            await status(site.api(Credential(identity_token="1d")))
        assert len(other.seen) == 1


async def test_parts_of_a_registry_may_have_credentials_of_their_own(site: Site):
    class ByName:
        async def find(self, host: str, repository: str) -> Credential:
            return Credential(repository, host)

    site.challenge = "Basic realm=x"
    access = Access(ByName())
    for name in ("a/b", "c"):
        endpoint = Endpoint(site.endpoint.api, "h", RepositoryName(name), "h")
        given = await access.renew(endpoint, (), None, [site.challenge], site.exchange)
        assert given == f"Basic {base64.b64encode(f'{name}:h'.encode()).decode()}"


async def test_a_registry_that_turns_from_passwords_to_tokens_is_followed(site: Site):
    access = Access(Given(ALICE))
    bearer = site.challenge
    password = await site.renewed(access, None, "Basic realm=x")
    assert await site.renewed(access, password, bearer) == "Bearer t1"
    assert access.granted(site.endpoint, (PULL,)) == "Bearer t1"


async def test_broken_credentials_and_challenges_are_told(site: Site):
    class Broken:
        async def find(self, host: str, repository: str) -> Credential:
            raise CredentialsError(f"no {host} {repository}")

    with pytest.raises(CredentialsError, match=f"^no {site.registry.host} a/b$"):
        await status(site.api(Broken()))
    site.challenge = "Bearer realm"
    with pytest.raises(ResponseInvalid, match="names no token server"):
        await status(site.api())


async def test_what_is_remembered_is_bounded(site: Site, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(auth, "REMEMBERED", 4)
    access = Access(Given(ALICE))
    scopes = [Scope("repository", f"r{n}", ("pull",)) for n in range(9)]
    for scope in scopes:
        await access.renew(site.endpoint, (scope,), None, [site.challenge], site.exchange)
    assert len(access._held) == 4
    assert access.granted(site.endpoint, (scopes[-1],)) == "Bearer t9"
    assert access.granted(site.endpoint, (scopes[0],)) is None


async def test_no_secret_shows_in_what_is_held_or_raised(site: Site):
    access = Access(Given(ALICE))
    await site.renewed(access)
    shown = repr(access._held)
    site.users = set()
    with pytest.raises(LayerhouseError) as failed:
        await site.renewed(access, "Bearer t1")
    shown += repr(failed.value)
    assert "alice" in shown
    assert not [each for each in ("t1'", "Bearer", "pw", SENT["alice"]) if each in shown]
