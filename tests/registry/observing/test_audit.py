"""The audit log: what is written of whom, that nobody else writes in it, and what happens where it cannot be."""

from __future__ import annotations

import json
import multiprocessing
import os
import stat
from collections.abc import Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from ocispec.headers import Scope
from registry import context
from registry.auth.caller import ANYONE
from registry.cli import app as commands
from registry.config.audit import Audit as Given
from registry.observing import audit as auditing
from registry.observing.audit import Audit, AuditedRequests
from registry.observing.auditfile import AuditFile
from storage.memory import MemoryEngine
from tests.support.api import Api, image, serving
from tests.support.callers import basic, htpasswd, settings
from tests.support.images import sha256
from tests.support.processes import RegistryProcess

ALICE, BOB = basic("alice", "secret"), basic("bob", "other")
RULES = {
    "rules": [
        {"who": "anonymous", "allow": "pull", "repositories": "public/**"},
        {"who": "user:alice", "allow": ["pull", "push", "delete"]},
        {"who": "user:bob", "allow": "pull", "repositories": "shared/**"},
    ]
}


class Log:
    """An audit log that is being read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def lines(self) -> list[dict[str, Any]]:
        text = self.path.read_text("ascii") if self.path.exists() else ""
        assert text == "" or text.endswith("\n")
        return [json.loads(line) for line in text.splitlines()]

    def told(self, *names: str) -> list[tuple[Any, ...]]:
        return [tuple(line.get(name) for name in names) for line in self.lines]


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path / "audit.log")


@pytest.fixture
def registry(tmp_path: Path, log: Log) -> Callable[..., Any]:
    """Serve with an audit log; `keys` stand below `layerhouse.audit`."""

    @asynccontextmanager
    async def start(
        access: Any = RULES, *, sections: Any = MappingProxyType({}), tokens: bool = False, **keys: Any
    ) -> Any:
        file = htpasswd(tmp_path / "htpasswd", alice="secret", bob="other")
        audit = {"file": str(log.path), **keys}
        ours = {"access": access, "audit": audit, "tokens": {"enabled": tokens}}
        given = settings(file, layerhouse=ours, **sections)
        async with serving(MemoryEngine(), given) as api:
            yield api

    return start


async def push(api: Api, repository: str, tag: str, headers: dict[str, str]) -> str:
    """Pushes an image without layers; returns its manifest's digest."""
    blob = await api.ask("POST", f"/v2/{repository}/blobs/uploads/?digest={sha256(b'{}')}", b"{}", headers)
    assert blob.status == 201
    manifest = json.dumps(image(sha256(b"{}"))).encode()
    answer = await api.ask("PUT", f"/v2/{repository}/manifests/{tag}", manifest, headers)
    assert answer.status == 201
    return answer.headers["docker-content-digest"]


async def test_it_tells_who_did_what_to_what_from_where_and_by_which_request(registry: Any, log: Log) -> None:
    async with registry() as api:
        digest = await push(api, "a/b", "1", {**ALICE, "user-agent": "docker/28"})
        await api.ask("POST", f"/v2/c/blobs/uploads/?mount={sha256(b'{}')}&from=a/b", b"", ALICE)
        await api.ask("DELETE", f"/v2/a/b/manifests/{digest}", headers=ALICE)
    names = ("action", "outcome", "name", "kind", "repository", "digest", "tag", "from")
    alice = ("done", "alice", "user")
    assert log.told(*names) == [
        ("push", *alice, "a/b", sha256(b"{}"), None, None),
        ("login", *alice, None, None, None, None),
        ("push", *alice, "a/b", digest, "1", None),
        ("mount", *alice, "c", sha256(b"{}"), None, "a/b"),
        ("delete", *alice, "a/b", digest, None, None),
        ("delete", *alice, "a/b", None, "1", None),
    ]
    first = log.lines[0]
    assert list(first) == [
        "time", "action", "outcome", "name", "kind", "repository", "digest", "address", "request", "useragent",
    ]  # fmt: skip
    assert (first["address"], first["useragent"]) == ("192.0.2.1:40000", "docker/28")
    assert first["time"].endswith("Z")
    assert first["request"]


async def test_a_push_is_in_it_before_its_answer_is_sent(registry: Any, log: Log) -> None:
    async with registry() as api:
        await push(api, "a", "1", ALICE)
        assert "push" in dict(log.told("action", "outcome"))


async def test_logins_that_fail_are_told_and_who_is_asked_for_credentials_is_no_news(registry: Any, log: Log) -> None:
    async with registry() as api:
        assert (await api.get("/v2/")).status == 401
        assert (await api.ask("GET", "/v2/", headers=basic("alice", "guess"))).status == 401
        assert (await api.ask("GET", "/v2/", headers=basic("nobody", "secret"))).status == 401
        for token in ("forged", "another"):
            assert (await api.ask("GET", "/v2/", headers={"authorization": f"Bearer {token}"})).status == 401
        for _ in range(2):
            assert (await api.ask("GET", "/v2/", headers=ALICE)).status == 200
    # Tokens that ended come again and again: one line for an address in a while.
    assert log.told("action", "outcome", "name", "kind", "code") == [
        ("login", "failed", "alice", None, "UNAUTHORIZED"),
        ("login", "failed", "nobody", None, "UNAUTHORIZED"),
        ("login", "failed", None, None, "UNAUTHORIZED"),
        ("login", "done", "alice", "user", None),
    ]


async def test_an_anonymous_token_that_covers_too_little_is_refused_and_no_failed_login(
    registry: Any, log: Log, tmp_path: Path
) -> None:
    rules = {"rules": [{"who": "anonymous", "repositories": "public", "allow": "pull"}, *RULES["rules"]]}
    keys = {"storage": {"filesystem": {"rootdirectory": tmp_path}}}
    async with registry(rules, sections=keys, tokens=True) as api:
        token = (await api.get("/auth/token?service=layerhouse&scope=repository:public:pull")).json["token"]
        answer = await api.get("/v2/private/manifests/1", authorization=f"Bearer {token}")
    assert (answer.status, answer.code) == (401, "UNAUTHORIZED")
    assert log.told("action", "outcome", "kind", "wanted", "repository")[-1] == (
        "refused",
        "refused",
        "anonymous",
        "pull",
        "private",
    )


@pytest.mark.parametrize("name", ["lh_abc", "lhr_abc", "eyJhbGciOi"])
async def test_a_token_that_was_typed_in_place_of_a_name_is_not_shown(registry: Any, log: Log, name: str) -> None:
    async with registry() as api:
        assert (await api.ask("GET", "/v2/", headers=basic(name, ""))).status == 401
    assert log.told("action", "outcome", "name") == [("login", "failed", "***")]


async def test_who_guesses_is_told_of_once_when_he_is_refused(
    registry: Any, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("registry.auth.attempts.MOST_DELAY", 0.0)
    async with registry() as api:
        statuses = [(await api.ask("GET", "/v2/", headers=basic("alice", str(n)))).status for n in range(13)]
        assert statuses == [401] * 10 + [429] * 3
    assert log.told("outcome", "code") == [("failed", "UNAUTHORIZED")] * 10 + [("refused", "TOOMANYREQUESTS")]


async def test_what_is_refused_is_told_with_what_was_wanted(registry: Any, log: Log) -> None:
    async with registry() as api:
        assert (await api.ask("PUT", "/v2/shared/a/manifests/1", b"{}", BOB)).status == 403
        assert (await api.ask("GET", "/v2/secret/manifests/1", headers=BOB)).status == 404
        assert (await api.ask("GET", "/v2/shared/manifests/1", headers=ALICE)).status == 404
        assert (await api.ask("GET", "/nowhere", headers=BOB)).status == 403
        assert (await api.get("/v2/secret/manifests/1")).status == 401
    assert log.told("action", "outcome", "name", "code", "wanted", "repository") == [
        ("login", "done", "bob", None, None, None),
        ("refused", "refused", "bob", "DENIED", "push", "shared/a"),
        ("refused", "refused", "bob", "HIDDEN", "pull", "secret"),
        ("login", "done", "alice", None, None, None),
    ]


async def test_what_the_configuration_forbids_is_refused_too(registry: Any, log: Log) -> None:
    async with registry(sections={"storage": {"inmemory": {}}}) as api:
        assert (await api.ask("DELETE", "/v2/a/manifests/1", headers=ALICE)).status == 405
        assert (await api.ask("GET", "/v2/a/blobs/uploads/", headers=ALICE)).status == 405
        assert (await api.ask("PATCH", "/v2/_catalog", headers=ALICE)).status == 403
    told = log.told("action", "code", "wanted", "repository")
    assert told == [("login", None, None, None), ("refused", "UNSUPPORTED", "delete", "a")]


async def test_pulls_are_told_where_that_is_asked_for_and_nothing_else_then(registry: Any, log: Log) -> None:
    async with registry(actions=["pull"]) as api:
        digest = await push(api, "public/a", "1", ALICE)
        await api.get("/v2/public/a/manifests/1")
        await api.get("/v2/public/a/manifests/2")
    names = ("action", "outcome", "name", "kind", "repository", "digest", "tag")
    assert log.told(*names) == [("pull", "done", None, "anonymous", "public/a", digest, "1")]


async def test_the_same_login_is_told_again_after_ten_minutes_and_from_elsewhere(log: Log) -> None:
    now = 0.0
    audit = Audit(Given(file=str(log.path)), lambda: now)
    app = AuditedRequests(knowing("ann"), audit)
    for host, seconds in (("192.0.2.1", 0), ("192.0.2.1", 599), ("192.0.2.2", 0), ("192.0.2.1", 1)):
        now += seconds
        await app(scope(host), None, None)  # type: ignore[arg-type]
    assert log.told("address") == [("192.0.2.1:1",), ("192.0.2.2:1",), ("192.0.2.1:1",)]


def scope(host: str = "192.0.2.1") -> Any:
    return {"type": "http", "method": "GET", "path": "/v2/", "client": (host, 1), "headers": []}


def knowing(name: str, **marks: Any) -> Any:
    class Known:
        kind = "robot"

        def may(self, *_: Any) -> bool:
            return True

    async def app(scope: Any, _receive: Any, _send: Any) -> None:
        known = Known()
        known.name = name  # type: ignore[attr-defined]
        context.set_caller(scope, known)  # type: ignore[arg-type]
        if "issued" in marks:
            context.set_issued(scope, marks["issued"])

    return app


async def test_logins_that_are_remembered_are_bounded(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auditing, "_REMEMBERED", 2)
    audit = Audit(Given(file=str(log.path)))
    assert [audit.is_new(name) for name in "abcab"] == [True] * 5
    assert len(audit.__dict__["_seen"]) == 2


async def test_a_token_that_is_given_out_is_told_with_what_it_covers(log: Log) -> None:
    audit = Audit(Given(file=str(log.path), actions=("token",)))
    covered = [Scope("repository", "a/b", ("pull", "push"))] * 30
    for issued in (covered, []):
        await AuditedRequests(knowing("ci", issued=issued), audit)(scope(), None, None)  # type: ignore[arg-type]
    assert log.told("action", "name", "kind", "scopes") == [
        ("token", "ci", "robot", ["repository:a/b:pull,push"] * 20),
        ("token", "ci", "robot", None),
    ]


async def test_what_is_no_request_passes(log: Log) -> None:
    came: list[Any] = []

    async def app(*words: Any) -> None:
        came.append(words)

    await AuditedRequests(app, Audit(Given(file=str(log.path))))({"type": "lifespan"}, None, None)  # type: ignore[arg-type]
    assert len(came) == 1
    assert log.lines == []


TEXTS = st.text(st.characters(codec="latin-1"), max_size=400) | st.text(max_size=400)


@given(name=TEXTS, agent=TEXTS, repository=TEXTS)
async def test_nobody_writes_a_line_or_a_field_of_his_own(
    tmp_path_factory: pytest.TempPathFactory, name: str, agent: str, repository: str
) -> None:
    log = Log(tmp_path_factory.mktemp("forged") / "audit.log")
    audit = Audit(Given(file=str(log.path)))
    await audit.add("login", "failed", {"name": name, "useragent": agent, "repository": repository})
    raw = log.path.read_bytes()
    assert raw.count(b"\n") == 1
    assert raw[:-1].isascii()
    assert raw[:-1].decode().isprintable()
    (line,) = log.lines
    del line["time"]
    expected = {"name": name[:100], "useragent": agent[:200], "repository": repository}
    filled = {key: value for key, value in expected.items() if value}
    assert line == {"action": "login", "outcome": "failed", **filled}


async def test_a_file_that_is_moved_away_or_removed_is_made_anew(log: Log) -> None:
    audit, moved = Audit(Given(file=str(log.path))), log.path.with_name("audit.log.1")
    await audit.add("push", "done", {"tag": "1"})
    log.path.rename(moved)
    await audit.add("push", "done", {"tag": "2"})
    assert (Log(moved).told("tag"), log.told("tag")) == ([("1",)], [("2",)])
    log.path.unlink()
    await audit.add("push", "done", {"tag": "3"})
    assert log.told("tag") == [("3",)]
    assert stat.S_IMODE(log.path.stat().st_mode) & 0o027 == 0


async def test_a_file_that_is_cut_to_nothing_is_gone_on_with(log: Log) -> None:
    audit = Audit(Given(file=str(log.path)))
    await audit.add("push", "done", {"tag": "1"})
    os.truncate(log.path, 0)
    await audit.add("push", "done", {"tag": "2"})
    assert log.told("tag") == [("2",)]


async def test_a_full_disk_stops_nobody_and_is_loud(registry: Any, log: Log, caplog: pytest.LogCaptureFixture) -> None:
    log.path.symlink_to("/dev/full")
    async with registry(actions=["push"]) as api:
        digest = await push(api, "a", "1", ALICE)
        told = [record.message for record in caplog.records if record.levelname == "ERROR"]
        assert len(told) == 2
        begin = f"the audit log {log.path} cannot be written: No space left on device; lost: {{"
        assert all(each.startswith(begin) for each in told)
        assert f'"digest":"{digest}","tag":"1"' in told[1]
        log.path.unlink()
        await push(api, "a", "2", ALICE)
    assert log.told("action", "outcome", "lost", "tag")[0] == ("audit", "failed", 2, None)
    assert log.told("action", "tag")[1:] == [("push", None), ("push", "2")]


async def test_a_line_that_was_cut_short_takes_no_other_along(log: Log) -> None:
    log.path.write_bytes(b'{"time":"2026')
    await Audit(Given(file=str(log.path))).add("push", "done", {"tag": "1"})
    assert [line[:9] for line in log.path.read_text().splitlines()] == ['{"time":"'] * 2


def test_a_write_that_takes_a_part_is_a_full_disk(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    file, write = AuditFile(log.path, lambda lost: b"%d lost\n" % lost), os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:3]))
    with pytest.raises(OSError, match="No space left"):
        file.add(b"first\n")
    monkeypatch.undo()
    file.add(b"second\n")
    assert log.path.read_bytes() == b"fir\n1 lost\nsecond\n"


def fill(path: Path, name: bytes) -> None:
    """Adds many lines, in a process of its own."""
    file = AuditFile(path, lambda _: b"")
    for number in range(500):
        file.add(b"%b %d %b\n" % (name, number, name * 300))


def test_processes_do_not_mix_their_lines(log: Log) -> None:
    spawning = multiprocessing.get_context("spawn")
    both = [spawning.Process(target=fill, args=[log.path, name]) for name in (b"a", b"b")]
    for each in both:
        each.start()
    for each in both:
        each.join()
        assert each.exitcode == 0
    lines = log.path.read_bytes().splitlines()
    expected = {b"%b %d %b" % (name, number, name * 300) for name in (b"a", b"b") for number in range(500)}
    assert (len(lines), set(lines)) == (1000, expected)


def test_standard_error_is_written_to_where_that_is_asked_for(capfd: pytest.CaptureFixture[str]) -> None:
    audit = Audit(Given(file="stderr"))
    audit.open()
    audit.add_now("push", "done", {"tag": "1"})
    assert json.loads(capfd.readouterr().err)["tag"] == "1"


def test_a_file_made_by_root_belongs_to_whose_folder_it_is(log: Log) -> None:
    if os.getuid() != 0:
        pytest.skip("only root gives files away")
    os.chown(log.path.parent, 1234, 1234)
    auditing.check(Given(file=str(log.path)))
    assert (log.path.stat().st_uid, log.path.stat().st_gid) == (1234, 1234)


def test_without_a_file_there_is_nothing_to_check() -> None:
    auditing.check(Given())


def test_a_registry_that_cannot_write_it_does_not_start(tmp_path: Path) -> None:
    config = tmp_path / "config.yml"
    log = tmp_path / "nowhere" / "audit.log"
    config.write_text(f"version: 0.1\nstorage: {{filesystem: {{}}}}\nlayerhouse: {{audit: {{file: {log}}}}}\n")
    server = RegistryProcess(tmp_path / "root", log=tmp_path / "log", args=[str(config)])
    with pytest.raises(RuntimeError, match="did not start"):
        server.start()
    assert server.log().splitlines()[-1] == f"registry: layerhouse.audit.file: {log}: No such file or directory"


@pytest.fixture
def run(tmp_path: Path, log: Log) -> Callable[..., Any]:
    """Run `registry user`, with a configuration that names a file, or does not."""
    users, config = tmp_path / "htpasswd", tmp_path / "config.yml"
    audit = f"layerhouse: {{audit: {{file: {log.path}}}}}\n"
    storage = f"storage: {{filesystem: {{rootdirectory: {tmp_path}/root}}}}\n"
    begin = f"version: 0.1\n{storage}auth: {{htpasswd: {{path: {users}}}}}\n"

    def running(*words: str, audited: str = audit) -> Any:
        config.write_text(begin + audited)
        options = ["--config", str(config)]
        stdin = [] if words[0] in ("remove", "list") else ["--password-stdin"]
        return CliRunner().invoke(commands, ["user", *words, *options, *stdin], input="secret\n")

    return running


def test_what_commands_change_is_told(run: Any, log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUDO_USER", "operator")
    for words in (("add", "ann"), ("passwd", "ann"), ("list",), ("remove", "ann")):
        assert run(*words).exit_code == 0
    assert run("remove", "ann").exit_code == 1
    assert log.told("action", "outcome", "name", "kind", "command", "subject") == [
        ("administration", "done", "operator", "operator", command, "ann")
        for command in ("user add", "user passwd", "user remove")
    ]


def test_tokens_that_are_made_and_revoked_are_told_and_never_shown(run: Any, log: Log, tmp_path: Path) -> None:
    assert run("add", "ann").exit_code == 0
    config = ["--config", str(tmp_path / "config.yml")]
    made = CliRunner().invoke(commands, ["token", "create", "ci", "--robot", *config])
    assert made.exit_code == 0
    assert CliRunner().invoke(commands, ["token", "revoke", "ci", *config]).exit_code == 0
    assert CliRunner().invoke(commands, ["token", "revoke", "ci", *config]).exit_code == 1
    assert CliRunner().invoke(commands, ["token", "rotate-key", "--at-once", *config]).exit_code == 0
    assert log.told("command", "subject")[1:] == [
        ("token create", "ci"),
        ("token revoke", "ci"),
        ("token rotate-key", "at once"),
    ]
    assert made.stdout.strip() not in log.path.read_text()


@pytest.mark.parametrize("audited", ["", "layerhouse: {audit: {file: stderr}}\n"])
def test_without_a_file_commands_tell_nobody(run: Any, log: Log, audited: str) -> None:
    found = run("add", "ann", audited=audited)
    assert (found.exit_code, found.stderr, log.lines) == (0, "", [])


def test_what_cannot_be_told_is_not_done(run: Any, log: Log) -> None:
    log.path.mkdir()
    found = run("add", "ann")
    assert (found.exit_code, found.stderr) == (1, f"registry: layerhouse.audit.file: {log.path}: Is a directory\n")
    assert run("list", audited="").stdout == ""


def test_what_could_not_be_told_after_all_is_said(run: Any, log: Log) -> None:
    log.path.symlink_to("/dev/full")
    found = run("add", "ann")
    told = "done, but the audit log cannot be written: No space left on device"
    assert (found.exit_code, found.stderr) == (1, f"registry: {log.path}: {told}\n")


def test_who_has_no_name_is_told_by_number(run: Any, log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SUDO_USER", raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 54321)
    assert run("add", "ann").exit_code == 0
    assert log.told("name") == [("54321",)]


def test_nobody_in_particular_is_anonymous() -> None:
    assert (ANYONE.name, ANYONE.kind) == (None, "anonymous")
