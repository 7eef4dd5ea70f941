"""The built-in token server: who gets which token, what is done with it, and when it ends."""

from __future__ import annotations

import json
import re
import threading
import time
from base64 import urlsafe_b64decode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import jwt
import pytest
from hypothesis import given
from hypothesis import settings as patient
from hypothesis import strategies as st
from typer.testing import CliRunner

from registry.auth import tokens_signing
from registry.auth.tokens_accounts import Accounts
from registry.auth.tokens_database import TokenDatabase
from registry.auth.tokens_file import Wish, create, revoke
from registry.auth.tokens_signing import SigningKeys, make, rotate
from registry.cli import app
from registry.config import ConfigError, Settings, load
from storage.memory import MemoryEngine
from tests.support.api import Answer, Api, serving
from tests.support.callers import basic, htpasswd
from tests.support.processes import REPOSITORY_ROOT
from tests.support.tokens import bearer, key, segment, signed

HOST = {"host": "registry.example.com:5000"}
REALM = 'Bearer realm="http://registry.example.com:5000/auth/token",service="layerhouse"'
RULES = [
    {"who": "anyone", "allow": "pull", "repositories": "public/**"},
    {"who": "user:alice", "allow": ["pull", "push", "delete", "admin"]},
    {"who": "robot:ci", "allow": ["pull", "push"], "repositories": "team/**"},
    {"who": "user:bob", "allow": "pull", "repositories": "team/**"},
]
ALICE, BOB = basic("alice", "secret"), basic("bob", "other")


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def users(tmp_path: Path) -> Path:
    return htpasswd(tmp_path / "htpasswd", alice="secret", bob="other")


def settings(state: Path, users: Path | None, rules: Any = RULES, **tokens: Any) -> Settings:
    auth = {"htpasswd": {"realm": "The Shire", "path": str(users)}} if users else {}
    own = {"enabled": True, **tokens}
    layerhouse = {"statedirectory": str(state), "tokens": own, "access": {"rules": rules} if rules else {}}
    return Settings.model_validate({"storage": {"delete": {"enabled": True}}, "auth": auth, "layerhouse": layerhouse})


@asynccontextmanager
async def registry(state: Path, users: Path | None, rules: Any = RULES, **tokens: Any) -> AsyncIterator[Api]:
    async with serving(MemoryEngine(), settings(state, users, rules, **tokens)) as api:
        yield api


@pytest.fixture
async def api(state: Path, users: Path) -> AsyncIterator[Api]:
    async with registry(state, users) as found:
        yield found


async def asked(api: Api, headers: dict[str, str], *scopes: str, **query: str) -> Answer:
    text = urlencode([("service", "layerhouse"), *(("scope", each) for each in scopes), *query.items()])
    return await api.ask("GET", f"/auth/token?{text}", headers=headers)


async def token(api: Api, headers: dict[str, str], *scopes: str, **query: str) -> str:
    answer = await asked(api, headers, *scopes, **query)
    assert answer.status == 200, answer
    return str(answer.json["token"])


async def posted(api: Api, headers: dict[str, str] | None = None, **fields: str) -> Answer:
    return await api.ask("POST", "/auth/token", urlencode(fields).encode(), headers or {})


def access(text: str) -> dict[str, list[str]]:
    told = json.loads(urlsafe_b64decode(text.split(".")[1] + "=="))
    return {f"{each['type']}:{each['name']}": each["actions"] for each in told["access"]}


async def test_clients_are_sent_to_the_token_server(api: Api) -> None:
    plain = await api.ask("GET", "/v2/team/app/manifests/1", headers=HOST)
    assert plain.headers["www-authenticate"] == f'{REALM},scope="repository:team/app:pull"'
    wrong = await api.ask("GET", "/v2/", headers={**HOST, **bearer(signed())})
    assert wrong.headers["www-authenticate"] == f'{REALM},error="invalid_token"'
    https = await api.ask("GET", "/v2/", headers={**HOST, "x-forwarded-proto": "https"})
    assert https.headers["www-authenticate"].startswith('Bearer realm="https://registry.example.com:5000/auth/token"')
    assert (await api.ask("GET", "/v2/", headers=ALICE)).status == 200


async def test_the_realm_is_what_the_configuration_says(state: Path, users: Path) -> None:
    realm = "https://auth.example.com/token"
    async with registry(state, users, realm=realm, service="mine", issuer="me") as api:
        answer = await api.ask("GET", "/v2/", headers=HOST)
        assert answer.headers["www-authenticate"] == f'Bearer realm="{realm}",service="mine"'
        told = jwt.decode(await token(api, ALICE), options={"verify_signature": False})
        assert (told["iss"], told["aud"], told["sub"]) == ("me", "mine", "alice")


async def test_the_answer_is_the_specifications(api: Api) -> None:
    answer = await asked(api, ALICE, "repository:team/app:pull,push", account="alice", client_id="docker")
    told = answer.json
    assert set(told) == {"token", "access_token", "expires_in", "issued_at"}
    assert told["token"] == told["access_token"]
    assert told["expires_in"] == 300
    assert abs(time.mktime(time.strptime(told["issued_at"], "%Y-%m-%dT%H:%M:%SZ")) - time.mktime(time.gmtime())) < 60
    assert answer.headers["cache-control"] == "no-store"
    head = await api.ask("HEAD", "/auth/token", headers=ALICE)
    assert head.status == 200


async def test_a_token_covers_what_was_asked_for_and_is_allowed(api: Api) -> None:
    scopes = [
        "repository:team/app:pull,push repository:public/a:*",
        "repository:team/app:delete",
        "repository:other/app:pull",
        "registry:catalog:*",
        "registry:admin:*",
        "registry:unknown:*",
        "repository(plugin):team/app:pull",
        "repository:Team/App:pull",
        "repository:team/app:fly",
    ]
    assert access(await token(api, ALICE, *scopes)) == {
        "repository:team/app": ["pull", "push", "delete"],
        "repository:public/a": ["pull", "push", "delete"],
        "repository:other/app": ["pull"],
        "registry:catalog": ["*"],
        "registry:admin": ["*"],
    }
    assert access(await token(api, BOB, *scopes)) == {
        "repository:team/app": ["pull"],
        "repository:public/a": ["pull"],
        "registry:catalog": ["*"],
    }
    assert access(await token(api, {}, *scopes)) == {"repository:public/a": ["pull"], "registry:catalog": ["*"]}
    assert access(await token(api, BOB, "repository:other/app:pull")) == {}


async def test_what_cannot_be_asked_is_told(api: Api) -> None:
    for query, told in (
        ("scope=team/app", "invalid scope"),
        ("scope=" + quote(" ".join(f"repository:a{number}:pull" for number in range(101))), "101 scopes"),
        ("&".join("a=1" for _ in range(300)), "at most 256 fields"),
        ("scope=%ff", "expected at most"),
    ):
        answer = await api.ask("GET", f"/auth/token?{query}", headers=ALICE)
        assert (answer.status, told in answer.message) == (400, True), answer
    for method in ("PUT", "DELETE", "OPTIONS"):
        answer = await api.ask(method, "/auth/token", headers=ALICE)
        assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD, POST")


WRONG = [
    basic("alice", "wrong"),
    basic("eve", "secret"),
    bearer("lh_none"),
    bearer("a.b.c"),
    {"authorization": "Digest x"},
]


@pytest.mark.parametrize("headers", WRONG)
async def test_wrong_credentials_are_refused(api: Api, headers: dict[str, str]) -> None:
    answer = await asked(api, headers)
    assert (answer.status, answer.code) == (401, "UNAUTHORIZED")
    assert answer.headers["www-authenticate"] == 'Basic realm="The Shire"'


async def test_where_nobody_may_do_anything_without_a_login_nobody_gets_a_token(state: Path, users: Path) -> None:
    for rules in (None, [{"who": "authenticated", "allow": "pull"}]):
        async with registry(state, users, rules) as api:
            assert (await asked(api, {}, "repository:public/a:pull")).status == 401
            assert (await asked(api, ALICE)).status == 200


async def test_nobody_prolongs_a_token_with_itself(api: Api) -> None:
    assert (await asked(api, bearer(await token(api, ALICE)))).status == 401
    assert (await asked(api, basic("alice", await token(api, ALICE)))).status == 401


async def test_credentials_in_an_address_are_none(api: Api) -> None:
    answer = await asked(api, {}, "repository:team/app:pull", username="alice", password="secret", account="alice")
    assert access(answer.json["token"]) == {}


async def test_a_token_is_let_in_for_what_it_covers(api: Api) -> None:
    text = await token(api, ALICE, "repository:team/app:pull,push")
    pushes = {**HOST, **bearer(text)}
    assert (await api.ask("GET", "/v2/", headers=pushes)).status == 200
    assert (await api.ask("POST", "/v2/team/app/blobs/uploads/", headers=pushes)).status == 202
    other = await api.ask("POST", "/v2/team/other/blobs/uploads/", headers=pushes)
    challenge = f'{REALM},scope="repository:team/other:pull,push",error="insufficient_scope"'
    assert (other.status, other.headers["www-authenticate"]) == (401, challenge)
    assert (await api.ask("DELETE", "/v2/team/app/manifests/1", headers=pushes)).status == 401
    nobody = {**HOST, **bearer(await token(api, {}, "repository:public/a:pull"))}
    assert (await api.ask("GET", "/v2/public/a/tags/list", headers=nobody)).code == "NAME_UNKNOWN"
    assert (await api.ask("GET", "/v2/", headers=nobody)).status == 200
    assert (await api.ask("GET", "/v2/team/app/tags/list", headers=nobody)).status == 401


async def test_a_token_of_another_kind_or_key_is_no_token(api: Api, state: Path) -> None:
    await token(api, ALICE)
    own = SigningKeys(state / "token-keys.pem")
    now = int(time.time())
    usual = {"iss": "layerhouse", "aud": "layerhouse", "sub": "alice", "exp": now + 300, "access": []}
    for claims in (
        {},
        {"layerhouse": []},
        {"layerhouse": {"kind": "user"}},
        {"layerhouse": {"kind": "anonymous"}},
        {"layerhouse": {"kind": "user", "account": "user:other"}},
        {"layerhouse": {"kind": "robot", "account": "token:0000000000000000"}},
        {"layerhouse": {"kind": "robot", "account": ["token"]}},
        {"sub": "", "layerhouse": {"kind": "certificate"}},
    ):
        answer = await api.ask("GET", "/v2/", headers=bearer(own.sign({**usual, **claims})))
        assert answer.status == 401, claims
    good = own.sign({**usual, "layerhouse": {"kind": "certificate", "account": None}})
    assert (await api.ask("GET", "/v2/", headers=bearer(good))).status == 200
    forged = jwt.encode({**usual, "layerhouse": {"kind": "certificate"}}, key(), "ES256", headers={"kid": "x"})
    assert (await api.ask("GET", "/v2/", headers=bearer(forged))).status == 401


@pytest.fixture(scope="module")
def anybodys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("server")


@patient(max_examples=60)
@given(where=st.floats(0, 1, exclude_max=True), byte=st.integers(1, 255))
async def test_no_bit_of_a_token_may_be_another(anybodys: Path, where: float, byte: int) -> None:
    rules = [{"who": "anyone", "allow": "pull"}]
    async with registry(anybodys, None, rules) as api:
        parts = (await token(api, {}, "repository:a:pull")).split(".")
        data = [bytearray(urlsafe_b64decode(each + "==")) for each in parts]
        at = int(where * sum(map(len, data)))
        for each in data:
            if at < len(each):
                each[at] ^= byte
                break
            at -= len(each)
        changed = ".".join(segment(bytes(each)) for each in data)
        assert (await api.ask("GET", "/v2/", headers=bearer(changed))).status == 401


async def test_what_was_got_by_a_password_ends_with_it(api: Api, users: Path) -> None:
    text = await token(api, BOB, "repository:team/app:pull")
    ask = "/v2/team/app/tags/list"
    assert (await api.ask("GET", ask, headers=bearer(text))).code == "NAME_UNKNOWN"
    htpasswd(users, alice="secret", bob="changed")
    assert (await api.ask("GET", ask, headers=bearer(text))).status == 401
    again = await token(api, basic("bob", "changed"), "repository:team/app:pull")
    htpasswd(users, alice="secret")
    assert (await api.ask("GET", ask, headers=bearer(again))).status == 401


async def test_what_a_robot_got_is_limited_and_ends_with_it(api: Api, state: Path) -> None:
    secret = create(state / "tokens.json", Wish("ci", None, ("team/app", "other"), ("pull", "push")))
    scopes = ["repository:team/app:pull,push,delete", "repository:team/b:pull", "repository:other:pull"]
    for headers in (basic("ci", secret), basic("token", secret), bearer(secret)):
        text = await token(api, headers, *scopes)
        # Its own limits, and the rules' for robot:ci.
        assert access(text) == {"repository:team/app": ["pull", "push"]}
    pushes = bearer(text)
    assert (await api.ask("POST", "/v2/team/app/blobs/uploads/", headers=pushes)).status == 202
    assert (await api.ask("POST", "/v2/team/b/blobs/uploads/", headers=pushes)).status == 401
    revoke(state / "tokens.json", "ci")
    assert (await api.ask("POST", "/v2/team/app/blobs/uploads/", headers=pushes)).status == 401
    assert (await asked(api, basic("ci", secret))).status == 401


async def test_another_robot_of_the_same_name_is_another(api: Api, state: Path) -> None:
    secret = create(state / "tokens.json", Wish("ci", None, ("**",), ("pull",)))
    text = await token(api, basic("ci", secret))
    revoke(state / "tokens.json", "ci")
    create(state / "tokens.json", Wish("ci", None, ("**",), ("pull", "push")))
    assert (await api.ask("GET", "/v2/", headers=bearer(text))).status == 401


async def test_a_login_is_kept_where_the_client_wants_that(api: Api, state: Path) -> None:
    first = (await asked(api, ALICE, offline_token="true", client_id="docker\x1b[2J")).json
    refresh = first["refresh_token"]
    assert refresh.startswith("lhr_")
    (kept,) = TokenDatabase(state / "tokens.sqlite").logins(0)
    assert (kept.kind, kept.name, kept.client) == ("user", "alice", "docker[2J")
    assert refresh.encode() not in (state / "tokens.sqlite").read_bytes()
    fields = {"grant_type": "refresh_token", "service": "layerhouse", "client_id": "docker", "refresh_token": refresh}
    answer = await posted(api, scope="repository:team/app:pull,push repository:x:fly", **fields)
    assert set(answer.json) == {"token", "access_token", "expires_in", "issued_at", "scope"}
    assert answer.json["scope"] == "repository:team/app:pull,push"
    assert access(answer.json["access_token"]) == {"repository:team/app": ["pull", "push"]}
    wrong = await posted(api, **{**fields, "refresh_token": "lhr_none"})
    assert (wrong.status, wrong.code, wrong.message) == (401, "UNAUTHORIZED", "the login has ended: log in again")
    assert (await api.ask("GET", "/v2/", headers=bearer(refresh))).status == 401
    assert (await api.ask("GET", "/v2/", headers=basic("alice", refresh))).status == 401


async def test_a_login_ends_with_the_password(api: Api, state: Path, users: Path) -> None:
    refresh = (await asked(api, ALICE, offline_token="true")).json["refresh_token"]
    fields = {"grant_type": "refresh_token", "refresh_token": refresh}
    assert (await posted(api, **fields)).status == 200
    htpasswd(users, alice="changed")
    assert (await posted(api, **fields)).status == 401
    htpasswd(users, alice="secret")
    assert (await posted(api, **fields)).status == 401
    assert TokenDatabase(state / "tokens.sqlite").logins(0) == []


async def test_a_login_ends_when_it_is_not_used(api: Api, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = create(state / "tokens.json", Wish("ci", None, ("**",), ("pull",)))
    refresh = (await asked(api, basic("ci", secret), offline_token="1")).json["refresh_token"]
    real, later = time.time, 0.0
    monkeypatch.setattr(time, "time", lambda: real() + later)
    for days, status in ((29, 200), (58, 200), (89, 401)):
        later = days * 86_400.0
        assert (await posted(api, grant_type="refresh_token", refresh_token=refresh)).status == status


async def test_a_login_by_form_is_one_by_password(api: Api, state: Path) -> None:
    fields = {"grant_type": "password", "service": "layerhouse", "client_id": "containerd", "username": "alice"}
    answer = await posted(api, **fields, password="secret", access_type="offline", scope="repository:a:pull")
    assert answer.json["refresh_token"].startswith("lhr_")
    assert (await posted(api, **fields, password="secret")).json.keys() & {"refresh_token"} == set()
    wrong = await posted(api, **fields, password="wrong")
    assert (wrong.status, wrong.code, wrong.message) == (401, "UNAUTHORIZED", "user name or password is wrong")
    robot = create(state / "tokens.json", Wish("ci", None, ("**",), ("pull",)))
    assert (await posted(api, **{**fields, "username": "ci"}, password=robot)).status == 200
    for grant, told in (
        ({"grant_type": "authorization_code"}, "grant_type is 'authorization_code'"),
        ({}, "grant_type is ''"),
    ):
        answer = await posted(api, **grant)
        assert (answer.status, told in answer.message) == (400, True)
    assert (await api.ask("POST", "/auth/token", b"x" * 65_537)).status == 400
    nobody = await posted(api, grant_type="password", username="", password="")
    assert nobody.status == 401


async def test_nobody_keeps_a_login_of_nobody(api: Api) -> None:
    assert "refresh_token" not in (await asked(api, {}, "repository:public/a:pull", offline_token="true")).json


async def test_where_logins_cannot_be_kept_tokens_are_given_all_the_same(
    api: Api, state: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (state / "tokens.sqlite").mkdir()
    answer = await asked(api, ALICE, offline_token="true")
    assert answer.status == 200
    assert "refresh_token" not in answer.json
    assert "a login is not kept: " in caplog.text
    answer = await posted(api, grant_type="refresh_token", refresh_token="lhr_x")
    assert (answer.status, answer.code) == (503, "UNAVAILABLE")


async def test_a_registry_that_is_read_only_gives_tokens(state: Path, users: Path) -> None:
    given = settings(state, users).model_dump(mode="json")
    given["storage"]["maintenance"]["readonly"]["enabled"] = True
    async with serving(MemoryEngine(), Settings.model_validate(given)) as api:
        assert (await posted(api, grant_type="password", username="alice", password="secret")).status == 200


async def test_without_the_token_server_its_address_is_none(users: Path, state: Path) -> None:
    async with registry(state, users, None, enabled=False) as api:
        assert (await api.ask("GET", "/auth/token", headers=ALICE)).status == 403
        assert (await api.get("/v2/")).headers["www-authenticate"] == 'Basic realm="The Shire"'
    assert not (state / "token-keys.pem").exists()


async def test_a_machine_logs_in_by_its_certificate(state: Path, users: Path, tmp_path: Path) -> None:
    given = settings(state, users, [{"who": "certificate:host1", "allow": "pull"}]).model_dump(mode="json")
    given["layerhouse"]["access"]["certificates"] = True
    given["http"]["tls"] = {each: str(tmp_path / each) for each in ("certificate", "key")}
    given["http"]["tls"]["clientcas"] = [str(tmp_path / "ca")]
    async with serving(MemoryEngine(), Settings.model_validate(given)) as api:
        plain = api.scope
        api.scope = lambda *told: {**plain(*told), "extensions": {"tls": {"client_cert_name": "CN=host1"}}}
        answer = await asked(api, {}, "repository:a:pull", offline_token="true")
        assert "refresh_token" not in answer.json
        api.scope = plain
        assert (await api.ask("GET", "/v2/a/tags/list", headers=bearer(answer.json["token"]))).code == "NAME_UNKNOWN"


async def test_a_new_key_leaves_the_tokens_before_their_time(api: Api, state: Path, tmp_path: Path) -> None:
    before = bearer(await token(api, ALICE))
    config = tmp_path / "config.yml"
    config.write_text(f"version: 0.1\nstorage: {{inmemory: {{}}}}\nlayerhouse: {{statedirectory: {state}}}\n")
    told = CliRunner().invoke(app, ["token", "rotate-key", "--config", str(config)])
    assert "tokens by the key before last until they end" in told.stdout
    assert (await api.ask("GET", "/v2/", headers=before)).status == 200
    after = await token(api, ALICE)
    assert jwt.get_unverified_header(after)["kid"] in told.stdout
    assert (await api.ask("GET", "/v2/", headers=bearer(after))).status == 200
    told = CliRunner().invoke(app, ["token", "rotate-key", "--at-once", "--config", str(config)])
    assert "tokens by the key before are refused" in told.stdout
    for each in (before, bearer(after)):
        assert (await api.ask("GET", "/v2/", headers=each)).status == 401
    assert (await api.ask("GET", "/v2/", headers=bearer(await token(api, ALICE)))).status == 200


def kids(path: Path) -> set[str]:
    ring = tokens_signing.Ring.parse(path.read_bytes(), path)
    return {ring.kid, *ring.retired}


def test_keys_are_kept_as_long_as_tokens_by_them_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "keys.pem"
    rotate(path, 100.0)
    (first,) = kids(path)
    keys = SigningKeys(path)
    assert keys.find(first)
    second = rotate(path, 100.0)
    assert kids(path) == {first, second}
    assert path.stat().st_mode & 0o777 == 0o600
    keys = SigningKeys(path)
    assert keys.find(first)
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 101)
    assert keys.find(first) is None
    assert keys.find(second)
    third = rotate(path, 100.0)
    assert kids(path) == {second, third}
    assert kids(path) != {rotate(path, 0.0)}
    assert len(kids(path)) == 1


async def test_a_key_that_another_worker_signed_with_just_now_is_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "keys.pem"
    keys = SigningKeys(path)
    monkeypatch.setattr(tokens_signing, "_LOOK_SECONDS", 0.0)
    new = rotate(path, 100.0)
    assert keys.find(new) is None
    await keys.look_again()
    assert keys.find(new)


def test_the_key_is_made_once_however_many_processes_start(tmp_path: Path) -> None:
    path = tmp_path / "state" / "keys.pem"
    found: list[set[str]] = []

    def start() -> None:
        make(path)
        found.append(kids(path))

    threads = [threading.Thread(target=start) for _ in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len(found) == 8
    assert len({frozenset(each) for each in found}) == 1


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b"", "expected a private key for P-256"),
        (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "holds a key that cannot be read"),
        (b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "holds a key that cannot be read"),
    ],
)
def test_a_key_file_that_cannot_be_used_is_told_without_what_is_in_it(tmp_path: Path, text: bytes, told: str) -> None:
    path = tmp_path / "keys.pem"
    path.write_bytes(text)
    with pytest.raises(ConfigError, match=told) as caught:
        SigningKeys(path)
    assert "AAAA" not in caught.value.message


@pytest.mark.parametrize(
    ("tokens", "told"),
    [
        ({"lifetime": "30s"}, "greater than or equal"),
        ({"lifetime": "25h"}, "less than or equal"),
        ({"refreshlifetime": "1h"}, "greater than or equal"),
        ({"realm": "https://me:secret@auth.example.com/"}, "without user and password"),
        ({"service": ""}, "at least 1 character"),
    ],
)
def test_a_configuration_that_cannot_be_meant_is_none(state: Path, tokens: dict[str, str], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        settings(state, None, **tokens)


async def test_robots_alone_are_asked_for_a_password(state: Path) -> None:
    async with registry(state, None, [{"who": "robot:ci", "allow": "pull"}]) as api:
        answer = await asked(api, {})
        assert answer.headers["www-authenticate"] == 'Basic realm="Layerhouse"'
        secret = create(state / "tokens.json", Wish("ci", None, ("**",), ("pull",)))
        assert access(await token(api, basic("ci", secret), "repository:a:pull")) == {"repository:a": ["pull"]}
        mine = create(state / "tokens.json", Wish("laptop", "alice", ("**",), ("pull",)))
        text = await token(api, basic("alice", mine), "repository:a:pull")
        assert access(text) == {}
        assert (await api.ask("GET", "/v2/", headers=bearer(text))).status == 200


EXAMPLES = re.findall(r"```yaml\n(.*?)```", (REPOSITORY_ROOT / "docs" / "tokens.md").read_text(), re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_examples_are_configurations(tmp_path: Path, example: str) -> None:
    file = tmp_path / "config.yml"
    file.write_text(example)
    found = load(file)
    assert found.auth.token or found.layerhouse.tokens.enabled
    assert len(EXAMPLES) == 2


async def test_who_is_removed_while_he_logs_in_gets_nothing(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Accounts, "of", lambda *_: None)
    answer = await asked(api, ALICE)
    assert (answer.status, answer.message) == (401, "the account is gone")
