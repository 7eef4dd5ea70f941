"""The gate as a client meets it: who is asked for credentials, who is told no, and who is told nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from ocispec.headers import Scope
from registry.app import create_app
from registry.auth import composition
from registry.auth.authenticator import Bearer, Credentials, Identity, Kind
from registry.auth.gate import Gate
from registry.auth.identification import Identification
from registry.auth.policy import KnownMayAll, Policy
from storage.engine import Engine
from storage.memory import MemoryEngine
from tests.support.api import Answer, Api, serving
from tests.support.callers import basic, htpasswd, settings
from tests.support.images import sha256

REALM = 'Basic realm="The Shire"'
ALICE, BOB, EVE = basic("alice", "secret"), basic("bob", "other"), basic("eve", "third")
LAYER = b"a layer"
RULES = {
    "groups": {"dev": "user:alice"},
    "rules": [
        {"who": "anyone", "allow": "pull", "repositories": "public/**"},
        {"who": "group:dev", "allow": ["pull", "push", "delete"]},
        {"who": "user:bob", "allow": "pull", "repositories": ["team/**"]},
        {"who": "user:eve", "allow": "push", "repositories": "drop/**"},
    ],
}


@pytest.fixture
def passwords(tmp_path: Path) -> Path:
    return htpasswd(tmp_path / "htpasswd", alice="secret", bob="other", eve="third")


@pytest.fixture
async def filled(engine: Engine) -> Engine:
    """An image in `public/app`, `team/app` and `secret/app`."""
    async with serving(engine) as api:
        for name in ("public/app", "team/app", "secret/app"):
            await api.push_image(name, "1", name.encode(), LAYER)
    return engine


@pytest.fixture
async def ruled(filled: Engine, passwords: Path) -> AsyncIterator[Api]:
    async with serving(filled, settings(passwords, RULES)) as api:
        yield api


@pytest.fixture
async def unruled(filled: Engine, passwords: Path) -> AsyncIterator[Api]:
    async with serving(filled, settings(passwords)) as api:
        yield api


def told(answer: Answer) -> tuple[int, str, str | None]:
    return answer.status, answer.code, answer.headers.get("www-authenticate")


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", "/v2/"),
        ("GET", "/v2/_catalog"),
        ("GET", "/v2/team/app/manifests/1"),
        ("GET", "/v2/nothing/manifests/1"),
        ("POST", "/v2/team/app/blobs/uploads/"),
        ("DELETE", "/v2/team/app/manifests/1"),
        ("GET", "/_layerhouse/v1/repositories"),
    ],
)
async def test_who_gives_no_credentials_is_asked_for_them(unruled: Api, method: str, target: str) -> None:
    assert told(await unruled.ask(method, target)) == (401, "UNAUTHORIZED", REALM)


@pytest.mark.parametrize("credentials", [basic("alice", "wrong"), basic("nobody", "secret"), basic("alice", "")])
async def test_who_gives_wrong_ones_is_asked_again_where_anonymous_could_read_too(
    ruled: Api, credentials: dict[str, str]
) -> None:
    answer = await ruled.ask("GET", "/v2/public/app/manifests/1", headers=credentials)
    assert told(answer) == (401, "UNAUTHORIZED", REALM)
    assert answer.message == "user name or password is wrong"


async def test_what_cannot_be_read_as_credentials_is_asked_for_again(ruled: Api) -> None:
    answer = await ruled.ask("GET", "/v2/", headers={"authorization": "Digest x"})
    assert told(answer) == (401, "UNAUTHORIZED", REALM)
    answer = await ruled.ask("GET", "/v2/", headers={"authorization": "Bearer x"})
    assert told(answer) == (401, "UNAUTHORIZED", REALM)
    assert answer.message == "the token is not valid here, or no longer"
    answer = await ruled.ask("GET", "/v2/", headers={"authorization": [ALICE["authorization"]] * 2})
    assert answer.status == 400


async def test_who_is_known_may_do_everything_without_rules(unruled: Api) -> None:
    assert (await unruled.ask("GET", "/v2/", headers=BOB)).json == {}
    assert (await unruled.ask("GET", "/v2/team/app/manifests/1", headers=BOB)).status == 200
    listed = await unruled.ask("GET", "/v2/_catalog", headers=BOB)
    assert listed.json == {"repositories": ["public/app", "secret/app", "team/app"]}
    begun = await unruled.ask("POST", "/v2/new/blobs/uploads/", headers=BOB)
    pushed = await unruled.ask("PUT", f"{begun.headers['location']}?digest={sha256(LAYER)}", LAYER, BOB)
    assert pushed.status == 201
    assert (await unruled.ask("DELETE", "/v2/team/app/manifests/1", headers=BOB)).status == 202


async def test_anonymous_reads_what_the_rules_let_anyone_read_and_lists_only_that(ruled: Api) -> None:
    nobody = basic("", "")  # what skopeo and podman send without a login
    for headers in ({}, nobody):
        assert (await ruled.ask("GET", "/v2/public/app/manifests/1", headers=headers)).status == 200
        assert (await ruled.ask("GET", "/v2/_catalog", headers=headers)).json == {"repositories": ["public/app"]}
        assert told(await ruled.ask("GET", "/v2/team/app/manifests/1", headers=headers))[0] == 401
        assert told(await ruled.ask("POST", "/v2/public/app/blobs/uploads/", headers=headers))[0] == 401
        # Else docker would never send the password that it has.
        assert told(await ruled.ask("GET", "/v2/", headers=headers))[0] == 401


async def test_who_may_not_read_learns_nothing(ruled: Api) -> None:
    digest = sha256(LAYER)
    targets = [
        ("GET", "manifests/1"),
        ("GET", f"manifests/{digest}"),
        ("GET", "manifests/.none"),
        ("GET", f"blobs/{digest}"),
        ("GET", "blobs/none"),
        ("GET", "tags/list"),
        ("GET", "tags/list?n=-1"),
        ("GET", f"referrers/{digest}"),
        ("GET", "blobs/uploads/00000000-0000-0000-0000-000000000000"),
        ("DELETE", "manifests/1"),
        ("DELETE", f"blobs/{digest}"),
    ]
    for method, target in targets:
        there, missing = [
            await ruled.ask(method, f"/v2/{name}/{target}", headers=BOB) for name in ("secret/app", "sacred/not")
        ]
        assert (there.status, blind(there, "secret/app")) == (missing.status, blind(missing, "sacred/not")), target
        assert there.status != 403
        known = await ruled.ask(method, f"/v2/team/not-1/{target}", headers=ALICE)
        assert (known.status, blind(known, "team/not-1")) == (missing.status, blind(missing, "sacred/not")), target
        assert (await ruled.ask("HEAD", f"/v2/secret/app/{target}", headers=BOB)).status in (200, 400, 404)


def blind(answer: Answer, name: str) -> tuple[Any, bytes]:
    return sorted(answer.fields), answer.body.replace(name.encode(), b"NAME")


@pytest.mark.parametrize("target", ["tags", "", "/"])
async def test_care_of_what_one_may_not_read_learns_nothing_either(ruled: Api, target: str) -> None:
    answers = [
        await ruled.ask("GET", f"/_layerhouse/v1/repositories/{name}/{target}".replace("//", "/"), headers=BOB)
        for name in ("secret/app", "sacred/not")
    ]
    assert [(each.status, each.code) for each in answers] == [(404, "NAME_UNKNOWN")] * 2


async def test_who_may_read_and_not_change_is_told_so(ruled: Api) -> None:
    for method, target in (
        ("POST", "/v2/team/app/blobs/uploads/"),
        ("PUT", "/v2/team/app/manifests/2"),
        ("DELETE", "/v2/team/app/manifests/1"),
        ("DELETE", "/_layerhouse/v1/repositories/team/app"),
        ("POST", "/v2/secret/app/blobs/uploads/"),
        ("POST", "/v2/sacred/not/blobs/uploads/"),
    ):
        assert told(await ruled.ask(method, target, headers=BOB)) == (403, "DENIED", None)


async def test_who_may_push_only_pushes_and_reads_nothing(ruled: Api) -> None:
    begun = await ruled.ask("POST", "/v2/drop/box/blobs/uploads/", headers=EVE)
    assert (await ruled.ask("DELETE", begun.headers["location"], headers=EVE)).status == 204
    begun = await ruled.ask("POST", "/v2/drop/box/blobs/uploads/", headers=EVE)
    put = await ruled.ask("PUT", f"{begun.headers['location']}?digest={sha256(LAYER)}", LAYER, EVE)
    assert put.status == 201
    assert (await ruled.ask("HEAD", f"/v2/drop/box/blobs/{sha256(LAYER)}", headers=EVE)).status == 404


async def test_the_catalogue_pages_through_what_may_be_read(ruled: Api) -> None:
    first = await ruled.ask("GET", "/v2/_catalog?n=1", headers=BOB)
    assert first.json == {"repositories": ["public/app"]}
    following = first.headers["link"].partition(">")[0].lstrip("<")
    second = await ruled.ask("GET", following, headers=BOB)
    assert second.json == {"repositories": ["team/app"]}
    assert "link" not in second.headers
    assert (await ruled.ask("GET", "/v2/_catalog", headers=EVE)).json == {"repositories": ["public/app"]}


@pytest.mark.parametrize("source", ["secret/app", "sacred/not", "team/not-1"])
async def test_nothing_is_mounted_from_where_one_may_not_read(ruled: Api, source: str) -> None:
    target = f"/v2/drop/box/blobs/uploads/?mount={sha256(LAYER)}&from={source}"
    assert (await ruled.ask("POST", target, headers=EVE)).status == 202


async def test_a_mount_without_a_source_looks_only_where_one_may_read(ruled: Api) -> None:
    public, secret = sha256(b"public/app"), sha256(b"secret/app")
    assert (await ruled.ask("POST", f"/v2/drop/box/blobs/uploads/?mount={secret}", headers=EVE)).status == 202
    assert (await ruled.ask("POST", f"/v2/drop/box/blobs/uploads/?mount={public}", headers=EVE)).status == 201
    assert (await ruled.ask("POST", f"/v2/mine/blobs/uploads/?mount={secret}", headers=ALICE)).status == 201


async def test_the_sign_of_life_is_given_to_anybody(ruled: Api) -> None:
    assert (await ruled.ask("GET", "/")).status != 401


async def test_addresses_that_are_none_and_methods_that_are_not_served_are_refused(ruled: Api) -> None:
    for method, target in (("GET", "/v2/unknown"), ("OPTIONS", "/v2/"), ("GET", "/favicon.ico"), ("POST", "/v2/")):
        assert told(await ruled.ask(method, target, headers=ALICE)) == (403, "DENIED", None)
    assert (await ruled.ask("GET", "/v2/UPPER/manifests/1", headers=ALICE)).code == "NAME_INVALID"


async def test_the_guard_of_deletes_stands_behind_the_gate(filled: Engine, passwords: Path) -> None:
    async with serving(filled, settings(passwords, RULES, storage={"delete": {"enabled": False}})) as api:
        assert (await api.ask("DELETE", "/v2/team/app/manifests/1", headers=ALICE)).status == 405


async def test_rules_alone_make_a_registry_that_nobody_has_to_log_in_to(filled: Engine) -> None:
    rules = {"rules": [{"who": "anyone", "allow": "pull", "repositories": "public/**"}]}
    async with serving(filled, settings(access=rules)) as api:
        assert (await api.ask("GET", "/v2/")).status == 200
        assert (await api.ask("GET", "/v2/public/app/manifests/1")).status == 200
        assert told(await api.ask("GET", "/v2/team/app/manifests/1")) == (404, "MANIFEST_UNKNOWN", None)
        assert told(await api.ask("POST", "/v2/public/app/blobs/uploads/")) == (403, "DENIED", None)


async def test_a_certificate_tells_who_asks_where_no_credentials_do(filled: Engine, passwords: Path) -> None:
    rules = {"certificates": True, "rules": [{"who": "certificate:host1", "allow": "pull"}]}
    tls = {"tls": {"certificate": "c", "key": "k", "clientcas": ["ca"]}}
    async with serving(filled, settings(passwords, rules, http=tls)) as api:
        scope = api.scope

        def shown(method: str, target: str, headers: Any) -> dict[str, Any]:
            return {**scope(method, target, headers), "extensions": {"tls": {"client_cert_name": api.subject}}}

        api.scope = shown
        for subject, status in (
            ("CN=host1,O=The Shire", 200),
            ("CN=host2", 404),
            ("O=host1", 401),
            ("CN=host1,CN=host2", 401),
            ("CN=a\\0Ab", 401),
            ("no name", 401),
            (None, 401),
        ):
            api.subject = subject
            assert (await api.ask("GET", "/v2/team/app/manifests/1")).status == status, subject
        api.subject = "CN=host1"
        assert (await api.ask("GET", "/v2/team/app/manifests/1", headers=ALICE)).status == 404


def test_without_authentication_and_rules_there_is_no_gate() -> None:
    async def app(*_: Any) -> None:
        """Never called."""

    assert composition.guarded(app, lambda: app, settings()) is app
    create_app(settings(), MemoryEngine())


class Tokens:
    """Stands for a token server: knows tokens by heart."""

    def __init__(self, **known: Identity) -> None:
        self._known = known

    async def identify(self, credentials: Credentials | None, scope: Any) -> Identity | None:
        return self._known.get(credentials.token) if isinstance(credentials, Bearer) else None

    def challenge(self, wanted: Any, error: str | None, scope: Any) -> str:
        return f'Bearer realm="r",scope="{" ".join(map(str, wanted))}"' + (f',error="{error}"' if error else "")


class Password:
    async def identify(self, credentials: Credentials | None, scope: Any) -> Identity | None:
        return None

    def challenge(self, wanted: Any, error: str | None, scope: Any) -> str:
        return REALM


def grants(*scopes: str) -> tuple[Scope, ...]:
    return tuple(map(Scope.parse, scopes))


@asynccontextmanager
async def with_tokens(engine: Engine, policy: Policy, **known: Identity) -> AsyncIterator[Api]:
    identification = Identification([Password(), Tokens(**known)])
    async with serving(engine) as api:
        outermost = api.app
        outermost._app = Gate(outermost._app, outermost._app, identification, policy)
        yield api


async def test_a_token_does_what_it_covers_and_is_told_what_it_lacks(filled: Engine) -> None:
    known = {
        "pulls": Identity("ci", Kind.ROBOT, grants=grants("repository:team/app:pull", "registry:catalog:*")),
        "nothing": Identity("ci", Kind.ROBOT, grants=()),
        "nobody": Identity(None, Kind.ANONYMOUS, grants=()),
    }
    async with with_tokens(filled, KnownMayAll(), **known) as api:
        pulls, nothing, nobody = ({"authorization": f"Bearer {token}"} for token in known)
        assert (await api.ask("GET", "/v2/team/app/manifests/1", headers=pulls)).status == 200
        # Of all that there is, the token covers one.
        assert (await api.ask("GET", "/v2/_catalog", headers=pulls)).json == {"repositories": ["team/app"]}
        for headers in (pulls, nothing, nobody):
            assert (await api.ask("GET", "/v2/", headers=headers)).status == 200
            answer = await api.ask("POST", "/v2/new/blobs/uploads/?mount=x&from=team/app", headers=headers)
            scope = "repository:new:pull,push repository:team/app:pull"
            expected = f'Bearer realm="r",scope="{scope}",error="insufficient_scope"'
            assert told(answer) == (401, "UNAUTHORIZED", expected)
        assert (await api.ask("GET", "/v2/_catalog", headers=nothing)).status == 401
        wrong = await api.ask("GET", "/v2/team/app/manifests/1", headers={"authorization": "Bearer other"})
        assert 'scope="repository:team/app:pull",error="invalid_token"' in wrong.headers["www-authenticate"]
        plain = await api.ask("GET", "/v2/team/app/manifests/1")
        assert plain.headers["www-authenticate"] == 'Bearer realm="r",scope="repository:team/app:pull"'
        odd = await api.ask("POST", "/v2/new/blobs/uploads/?mount=x&from=%22%0d%0a")
        assert odd.headers["www-authenticate"] == 'Bearer realm="r",scope="repository:new:pull,push"'


async def test_a_token_that_covers_what_the_rules_refuse_is_refused(filled: Engine, passwords: Path) -> None:
    policy = composition.policy(settings(passwords, RULES))
    bob = Identity("bob", Kind.USER, grants=grants("repository:team/app:pull,push", "repository:secret/app:pull"))
    async with with_tokens(filled, policy, bob=bob) as api:
        headers = {"authorization": "Bearer bob"}
        assert (await api.ask("GET", "/v2/team/app/manifests/1", headers=headers)).status == 200
        assert (await api.ask("POST", "/v2/team/app/blobs/uploads/", headers=headers)).status == 403
        assert (await api.ask("GET", "/v2/_catalog", headers=headers)).status == 401
