"""Personal and robot tokens: made, listed and revoked by command, and what may be done with them meanwhile."""

from __future__ import annotations

import json
import os
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as patient
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from ocispec.errors import StorageError
from registry.auth import tokens_database, tokens_state
from registry.auth.authenticator import Basic, Bearer, Identity, Kind
from registry.auth.htpasswd import Htpasswd
from registry.auth.tokens_database import Login, TokenDatabase
from registry.auth.tokens_file import Wish, create, hashed, new_secret, read, revoke
from registry.auth.tokens_personal import PersonalTokens
from registry.cli import app
from registry.config import ConfigError, Settings
from storage.memory import MemoryEngine
from tests.support.api import Api, serving
from tests.support.callers import basic, htpasswd
from tests.support.images import sha256
from tests.support.tokens import bearer

SCOPE: Any = {}
Run = Callable[..., Result]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    passwords = htpasswd(tmp_path / "htpasswd", alice="secret", bob="other")
    file = tmp_path / "config.yml"
    file.write_text(
        f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {tmp_path / 'root'}}}}}\n"
        f"auth: {{htpasswd: {{realm: r, path: {passwords}}}}}\n"
        f"layerhouse: {{statedirectory: {tmp_path / 'state'}}}\n"
    )
    return file


@pytest.fixture
def run(config: Path) -> Run:
    def token(*words: str, file: Path = config) -> Result:
        return CliRunner().invoke(app, ["token", *words, "--config", str(file)])

    return token


def settings(config: Path) -> Settings:
    state = {"statedirectory": str(config.parent / "state")}
    auth = {"htpasswd": {"realm": "r", "path": str(config.parent / "htpasswd")}}
    return Settings.model_validate({"storage": {"delete": {"enabled": True}}, "auth": auth, "layerhouse": state})


def made(run: Run, *words: str) -> str:
    done = run("create", *words)
    assert done.exit_code == 0, done.output
    return done.stdout.strip()


def personal(config: Path, users: Htpasswd | None = None) -> PersonalTokens:
    state = config.parent / "state"
    return PersonalTokens(state / "tokens.json", TokenDatabase(state / "tokens.sqlite"), users)


def test_a_secret_is_random_and_tells_what_it_is() -> None:
    found = {new_secret("lh_") for _ in range(50)}
    assert len(found) == 50
    assert all(re.fullmatch("lh_[0-9A-Za-z]{49}", each) for each in found)


def test_a_token_is_shown_once_and_stored_as_a_hash(run: Run, config: Path) -> None:
    done = run("create", "ci", "--robot", "--repository", "team/*", "--action", "pull,push", "--expires", "90d")
    secret = done.stdout.strip()
    assert re.fullmatch("lh_[0-9A-Za-z]{49}", secret)
    assert re.search(r"ci is a robot that may pull, push in team/\*, until \d{4}-", done.stderr)
    assert "docker login --username ci --password-stdin HOST" in done.stderr
    file = config.parent / "state" / "tokens.json"
    assert file.stat().st_mode & 0o777 == 0o600
    assert secret not in file.read_text()
    assert hashed(secret).hex() in file.read_text()
    assert secret not in run("list").output
    assert secret not in repr(read(file).records)
    done = run("create", "laptop", "--user", "alice")
    assert "laptop is a token of alice that may pull in all repositories, without an end" in done.stderr


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["x"], "say whose token it is: either --user USER or --robot"),
        (["x", "--robot", "--user", "alice"], "say whose token it is"),
        (["x", "--user", "eve"], "there is no user 'eve' in "),
        (["Upper", "--robot"], "'Upper' cannot be a token's name: expected small letters"),
        (["a/b", "--robot"], "'a/b' cannot be a token's name"),
        (["login-1", "--robot"], "not beginning with login-"),
        (["a" * 65, "--robot"], "at most 64"),
        (["x", "--robot", "--action", "pul"], "--action: expected any of 'pull', 'push', 'delete' or 'admin'"),
        (["x", "--robot", "--repository", "Team"], "--repository: expected a repository's name"),
        (["x", "--robot", "--expires", "soon"], "--expires 'soon': expected a time like 30m, 12h, 90d or 4w"),
        (["x", "--robot", "--expires", "0d"], "--expires '0d'"),
        (["taken", "--robot"], "there is a token 'taken' already"),
    ],
)
def test_what_cannot_be_made_is_told_in_a_line(run: Run, words: list[str], told: str) -> None:
    made(run, "taken", "--robot")
    done = run("create", *words)
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith("registry: ")
    assert told in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_where_nobody_is_asked_for_a_token_that_is_said(tmp_path: Path, run: Run) -> None:
    open_to_all = tmp_path / "open.yml"
    open_to_all.write_text(f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {tmp_path / 'open'}}}}}\n")
    assert "anybody comes in without a token" in run("create", "ci", "--robot", file=open_to_all).stderr
    assert (tmp_path / "open" / ".layerhouse" / "tokens.json").exists()


def test_tokens_are_listed_and_revoked(run: Run) -> None:
    head = run("list").stdout
    assert head.split() == ["NAME", "KIND", "OWNER", "MAY", "IN", "CREATED", "EXPIRES", "LAST", "USED"]
    made(run, "ci", "--robot", "--repository", "team/app", "--repository", "team/b", "--action", "pull,push")
    made(run, "laptop", "--user", "alice", "--expires", "4w")
    lines = run("list").stdout.splitlines()
    assert re.fullmatch(r"ci +robot +- +pull,push +team/app,team/b +\S+ \S+ +- +-", lines[1])
    assert re.fullmatch(r"laptop +personal +alice +pull +\*\* +\S+ \S+ +\S+ \S+ +-", lines[2])
    assert run("revoke", "ci").stdout == "ci is revoked\n"
    assert len(run("list").stdout.splitlines()) == 2
    again = run("revoke", "ci")
    assert again.exit_code == 1
    assert again.stderr == "registry: there is no token and no login 'ci'; `registry token list` lists them\n"


def test_logins_are_listed_and_revoked_too(run: Run, config: Path) -> None:
    database = TokenDatabase(config.parent / "state" / "tokens.sqlite")
    (config.parent / "state").mkdir()
    now = time.time()
    kept = Login(b"\x01" * 32, "user", "alice", "user:x", "docker", now, now, now + 100)
    database.add(kept)
    assert re.search(r"^login-010101010101 +login +alice +- +docker ", run("list").stdout, re.MULTILINE)
    assert run("revoke", kept.title).exit_code == 0
    assert kept.title not in run("list").stdout


async def test_a_token_is_a_password_or_a_bearer(run: Run, config: Path) -> None:
    robot, laptop = made(run, "ci", "--robot"), made(run, "laptop", "--user", "alice")
    tokens = personal(config)
    for credentials in (Basic("ci", robot), Basic("token", robot), Bearer(robot)):
        found = await tokens.identify(credentials, SCOPE)
        assert found == Identity("ci", Kind.ROBOT)
    assert await tokens.identify(Basic("alice", laptop), SCOPE) == Identity("alice", Kind.USER)
    wrong = [None, Basic(robot, "x"), Bearer(robot[:-1]), Bearer(robot.swapcase()), Basic("ci", "lh_"), Bearer("a.b.c")]
    for each in wrong:
        assert await tokens.identify(each, SCOPE) is None


async def test_changes_count_at_once_and_what_is_remembered_ends_with_them(run: Run, config: Path) -> None:
    tokens = personal(config)
    robot = made(run, "ci", "--robot")
    found = await tokens.identify(Bearer(robot), SCOPE)
    assert found
    assert found.holds
    assert found.holds()
    made(run, "other", "--robot")
    assert not found.holds()
    assert await tokens.identify(Bearer(robot), SCOPE)
    run("revoke", "ci")
    assert await tokens.identify(Bearer(robot), SCOPE) is None
    again = made(run, "ci", "--robot")
    assert await tokens.identify(Bearer(robot), SCOPE) is None
    assert await tokens.identify(Bearer(again), SCOPE)


async def test_a_token_ends_at_its_time(run: Run, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    robot = made(run, "ci", "--robot", "--expires", "30m")
    tokens = personal(config)
    found = await tokens.identify(Bearer(robot), SCOPE)
    assert found
    assert found.holds
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 1801)
    assert not found.holds()
    assert await tokens.identify(Bearer(robot), SCOPE) is None


async def test_a_token_ends_with_its_user(run: Run, config: Path) -> None:
    laptop = made(run, "laptop", "--user", "bob")
    passwords = config.parent / "htpasswd"
    tokens = personal(config, Htpasswd(passwords, "r"))
    found = await tokens.identify(Bearer(laptop), SCOPE)
    assert found
    assert found.holds
    htpasswd(passwords, alice="secret", bob="changed")
    assert not found.holds()
    assert await tokens.identify(Bearer(laptop), SCOPE)
    htpasswd(passwords, alice="secret")
    assert await tokens.identify(Bearer(laptop), SCOPE) is None


async def test_the_last_use_is_entered_once_a_minute(
    run: Run, config: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    robot = made(run, "ci", "--robot")
    tokens, database = personal(config), TokenDatabase(config.parent / "state" / "tokens.sqlite")
    now = 1000.0
    monkeypatch.setattr("registry.auth.tokens_personal.time.monotonic", lambda: now)
    monkeypatch.setattr("registry.auth.tokens_personal._MOST_NOTED", 1)
    found = await tokens.identify(Bearer(robot), SCOPE)
    ((token, first),) = database.uses().items()
    assert found
    assert found.holds
    assert found.holds()
    database.note(token, 5.0)
    await tokens.identify(Bearer(robot), SCOPE)
    assert database.uses() == {token: 5.0}
    now += 60
    assert not found.holds()
    await tokens.identify(Bearer(robot), SCOPE)
    assert database.uses()[token] >= first
    assert "-" not in run("list").stdout.splitlines()[1].split()[-2:]
    now += 60
    monkeypatch.setattr(TokenDatabase, "note", raising)
    assert await tokens.identify(Bearer(robot), SCOPE)
    assert "the last use of a token is not entered: full" in caplog.text


def raising(*_: object) -> None:
    raise StorageError("full")


async def test_a_robot_does_what_it_is_for_and_nothing_else(run: Run, config: Path) -> None:
    robot = made(run, "ci", "--robot", "--repository", "team/app", "--action", "pull,push")
    reader = made(run, "reader", "--robot", "--repository", "team/**")
    admin = made(run, "admin", "--robot", "--action", "admin,pull")
    layer = b"a layer"
    async with serving(MemoryEngine(), settings(config)) as api:
        await push(api, "team/app", layer, bearer(robot))
        await push(api, "team/secret", layer, basic("alice", "secret"))
        await push(api, "other/app", layer, basic("alice", "secret"))
        blob = f"blobs/{sha256(layer)}"
        for headers in (bearer(robot), basic("ci", robot)):
            assert (await api.ask("GET", f"/v2/team/app/{blob}", headers=headers)).body == layer
            assert (await api.ask("GET", f"/v2/team/secret/{blob}", headers=headers)).status == 404
            assert (await api.ask("POST", "/v2/team/app2/blobs/uploads/", headers=headers)).status == 403
            assert (await api.ask("POST", "/v2/team/secret/blobs/uploads/", headers=headers)).status == 403
            assert (await api.ask("DELETE", f"/v2/team/app/{blob}", headers=headers)).status == 403
            mount = f"/v2/team/app/blobs/uploads/?mount={sha256(layer)}&from=other/app"
            assert (await api.ask("POST", mount, headers=headers)).status == 202
            assert (await api.ask("GET", "/v2/_catalog", headers=headers)).json == {"repositories": []}
        assert (await api.ask("GET", f"/v2/team/secret/{blob}", headers=bearer(reader))).status == 200
        assert (await api.ask("GET", f"/v2/other/app/{blob}", headers=bearer(reader))).status == 404
        assert (await api.ask("POST", "/v2/team/app/blobs/uploads/", headers=bearer(reader))).status == 403
        assert (await api.ask("POST", "/v2/team/app/blobs/uploads/", headers=bearer(admin))).status == 403
        assert (await api.ask("GET", "/v2/", headers=basic("ci", robot[:-1] + "!"))).status == 401


async def push(api: Api, name: str, layer: bytes, headers: dict[str, str]) -> None:
    begun = await api.ask("POST", f"/v2/{name}/blobs/uploads/", headers=headers)
    assert begun.status == 202, begun
    put = await api.ask("PUT", f"{begun.headers['location']}?digest={sha256(layer)}", layer, headers)
    assert put.status == 201


def test_limits_cover_what_concerns_all_only_where_they_are_about_all(run: Run, config: Path) -> None:
    made(run, "some", "--robot", "--repository", "team/**", "--action", "pull,admin")
    made(run, "all", "--robot", "--action", "push,admin")
    some, every = read(config.parent / "state" / "tokens.json").by_id.values()
    assert some.cover("pull", None)
    assert not some.cover("admin", None)
    assert every.cover("admin", None)
    assert not every.cover("pull", None)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("torn", "Invalid JSON"),
        ('{"version": 2, "tokens": []}', "version: Input should be 1"),
        ('{"version": 1, "tokens": [{}]}', "tokens.0.id: Field required"),
    ],
)
def test_a_file_that_is_not_ours_is_told(tmp_path: Path, text: str, told: str) -> None:
    file = tmp_path / "tokens.json"
    file.write_text(text)
    with pytest.raises(ConfigError, match=re.escape(told)) as caught:
        read(file)
    assert str(file) in caught.value.message
    assert "\n" not in caught.value.message


def test_of_many_who_change_the_file_at_once_nobody_is_lost(tmp_path: Path) -> None:
    file = tmp_path / "state" / "tokens.json"
    threads = [
        threading.Thread(target=create, args=(file, Wish(f"r{number}", None, ("**",), ("pull",))))
        for number in range(8)
    ]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len(read(file).records) == 8
    assert [each.name for each in file.parent.iterdir() if each.suffix not in (".json", ".lock")] == []


def test_what_the_system_refuses_is_told(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file")
    with pytest.raises(ConfigError, match="cannot be changed: "):
        create(tmp_path / "state" / "tokens.json", Wish("ci", None, ("**",), ("pull",)))


def test_what_root_makes_belongs_to_the_folders_owner(tmp_path: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("needs to be root")
    os.chown(tmp_path, 12345, 12346)
    file = tmp_path / "state" / "tokens.json"
    create(file, Wish("ci", None, ("**",), ("pull",)))
    for each in (file.parent, file, file.with_suffix(".lock")):
        assert (each.stat().st_uid, each.stat().st_gid) == (12345, 12346)


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "tokens.json"
    create(file, Wish("ci", None, ("**",), ("pull",)))
    before = file.read_bytes()
    monkeypatch.setattr(tokens_state.os, "fsync", raise_oserror)
    with pytest.raises(ConfigError, match="No space left"):
        revoke(file, "ci")
    assert file.read_bytes() == before
    assert sorted(each.name for each in tmp_path.iterdir()) == ["tokens.json", "tokens.lock"]


def raise_oserror(*_: object) -> None:
    raise OSError(28, "No space left on device")


def test_logins_end_are_put_off_and_are_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens_database, "MOST_LOGINS", 8)
    database = TokenDatabase(tmp_path / "tokens.sqlite")
    assert database.logins(0) == []
    assert database.uses() == {}
    assert database.use(b"none", 0.0, 10.0) is None
    database.remove(b"none")
    assert not (tmp_path / "tokens.sqlite").exists()
    for number in range(13):
        kept = Login(b"%d" % number, "robot", "ci", "token:1", "", number, number, number + 1000.0)
        database.add(kept)
    database.add(Login(b"other", "user", "ci", "user:1", "", 100.0, 100.0, 2000.0))
    assert len(database.logins(200.0)) == 9
    assert database.use(b"4", 200.0, 10.0) is None
    used = database.use(b"10", 200.0, 10.0)
    assert used
    assert (used.used, used.expires) == (200.0, 210.0)
    assert database.use(b"10", 211.0, 10.0) is None
    database.add(Login(b"late", "user", "bob", "user:2", "", 1500.0, 1500.0, 3000.0))
    assert {each.hash for each in database.logins(0)} == {b"other", b"late"}
    assert (tmp_path / "tokens.sqlite").stat().st_mode & 0o777 == 0o600
    (tmp_path / "tokens.sqlite").write_bytes(b"no database at all" * 100)
    with pytest.raises(StorageError, match=r"tokens\.sqlite: "):
        database.logins(0)


NAMES = st.from_regex(r"[a-z][a-z0-9]{0,5}", fullmatch=True)


@patient(max_examples=20)
@given(names=st.lists(NAMES, unique=True, max_size=6), gone=st.sets(st.integers(0, 5)))
def test_what_was_made_and_not_revoked_is_there(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], gone: set[int]
) -> None:
    file = tmp_path_factory.mktemp("state") / "tokens.json"
    secrets = {name: create(file, Wish(name, None, ("**",), ("pull",))) for name in names}
    for number, name in enumerate(names):
        if number in gone:
            assert revoke(file, name)
    left = {name for number, name in enumerate(names) if number not in gone}
    known = read(file).by_hash
    assert {name for name, secret in secrets.items() if hashed(secret) in known} == left
    if names:
        assert {each["name"] for each in json.loads(file.read_text())["tokens"]} == left


async def test_a_refusal_is_told_in_words_that_docker_does_not_take_for_a_fault(run: Run, config: Path) -> None:
    robot = made(run, "ci", "--robot", "--repository", "team/app", "--action", "pull,push")
    async with serving(MemoryEngine(), settings(config)) as api:
        answer = await api.ask("POST", "/v2/team/other/blobs/uploads/", headers=bearer(robot))
        assert (answer.code, answer.message) == ("DENIED", "you may not push team/other")
