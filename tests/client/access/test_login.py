"""`pullclient login` and `logout`, in processes of their own, against registries on sockets and beside real clients."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

from client.access.credential import Credential
from client.cli import app
from client.commands import login as commands
from tests.client.guarded import CERTIFICATE
from tests.client.helpers import Machine
from tests.client.scripted import Reply, ScriptedRegistry, Seen, scripted

WARNING = (
    "Warning: the password is stored there unencrypted. A credential helper keeps it safe: "
    'name one as "credsStore" in that file.\n'
)


@dataclass(frozen=True, slots=True)
class Ended:
    status: int
    out: str
    err: str


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def wanting_alice(request: Seen) -> Reply:
    if request.headers.get("authorization") == f"Basic {base64.b64encode(b'alice:p:w').decode()}":
        return Reply(200, b"{}")
    return Reply(401, headers={"WWW-Authenticate": 'Basic realm="x"'})


@pytest.fixture
async def registry() -> AsyncIterator[ScriptedRegistry]:
    """Wants alice's password."""
    async with scripted() as server:
        server.behaviours["/v2/"] = wanting_alice
        yield server


@pytest.fixture
async def encrypted() -> AsyncIterator[ScriptedRegistry]:
    """The same, with a certificate that nobody knows."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(CERTIFICATE)
    async with scripted(context) as server:
        server.behaviours["/v2/"] = wanting_alice
        yield server


async def run(machine: Machine, *words: str, password: str = "", **more: str) -> Ended:
    program = words if words[0] in ("skopeo", "podman", "docker") else (sys.executable, "-m", "client", *words)
    own = {name: text for name, text in os.environ.items() if name.startswith("COV")}
    process = await asyncio.create_subprocess_exec(
        *program, stdin=-1, stdout=-1, stderr=-1, env={**own, **machine.environ(), **more}
    )
    out, err = await process.communicate(password.encode())
    return Ended(process.returncode or 0, out.decode(), err.decode())


async def test_a_login_is_proven_kept_used_and_forgotten(machine: Machine, registry: ScriptedRegistry):
    host, file = registry.host, machine.docker_file
    words = ("login", host, "--username", "alice", "--password-stdin")
    assert await run(machine, *words, password="p:w\n") == Ended(
        0, f"Logged in to {host} as alice; kept in {file}\n", WARNING
    )
    assert await machine.credentials().find(host, "a") == Credential("alice", "p:w")
    assert await run(machine, "logout", host) == Ended(0, f"Logged out of {host}; removed from {file}\n", "")
    assert await run(machine, "logout", host) == Ended(0, f"There are no credentials for {host}\n", "")


async def test_a_wrong_password_is_not_kept(machine: Machine, registry: ScriptedRegistry):
    machine.docker({"auths": {}})
    told = await run(machine, "login", registry.host, "-u", "alice", "--password-stdin", password="s3cret")
    assert told == Ended(1, "", f"pullclient: {registry.host} refused the credentials of alice\n")
    assert json.loads(machine.docker_file.read_text()) == {"auths": {}}


async def test_a_token_server_is_asked_as_for_a_pull(machine: Machine, registry: ScriptedRegistry):
    def tokens(request: Seen) -> Reply:
        known = request.headers.get("authorization") == f"Basic {base64.b64encode(b'alice:pw').decode()}"
        return Reply(200, b'{"token":"t"}') if known else Reply(401)

    def api(request: Seen) -> Reply:
        challenge = f'Bearer realm="http://{registry.host}/token",service="s"'
        known = request.headers.get("authorization") == "Bearer t"
        return Reply(200) if known else Reply(401, headers={"WWW-Authenticate": challenge})

    registry.behaviours |= {"/v2/": api, "/token": tokens}
    words = ("login", registry.host, "-u", "alice", "--password-stdin")
    assert (await run(machine, *words, password="pw\r\n")).status == 0
    told = await run(machine, *words, password="wrong")
    assert told.err == f"pullclient: {registry.host} refused the credentials of alice\n"


async def test_credentials_that_could_not_be_sent_are_not_kept(machine: Machine, registry: ScriptedRegistry):
    port = registry.host.rpartition(":")[2]
    challenge = {"WWW-Authenticate": f'Bearer realm="http://localhost:{port}/token"'}
    registry.behaviours["/token"] = Reply(200, b'{"token":"t"}')
    registry.behaviours["/v2/"] = lambda seen: (
        Reply(200) if "authorization" in seen.headers else Reply(401, headers=challenge)
    )
    told = await run(machine, "login", registry.host, "-u", "alice", "--password-stdin", password="pw")
    assert (told.status, told.out) == (1, "")
    assert f"the credentials for it were not sent to localhost:{port}: it is on another site than 127.0.0.1" in told.err
    assert not machine.docker_file.exists()


async def test_a_registry_that_asks_nobody_is_told_of(machine: Machine, registry: ScriptedRegistry):
    registry.behaviours["/v2/"] = Reply(200)
    told = await run(machine, "login", registry.host, "-u", "alice", "--password-stdin", password="pw")
    assert told.status == 0
    assert told.err == f"{registry.host} does not ask who you are: the password could not be proven\n{WARNING}"


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        (Reply(404), "does not answer as a registry does: /v2/ has status 404"),
        (Reply(401), "refuses everybody (status 401), and does not say how to log in"),
        (Reply(401, headers={"WWW-Authenticate": "Negotiate"}), "wants a login by Negotiate; this client knows Bearer"),
        (Reply(401, headers={"WWW-Authenticate": "Basic"}), "refused the credentials of alice"),
    ],
)
async def test_a_host_that_is_no_registry_is_told_apart(
    machine: Machine, registry: ScriptedRegistry, reply: Reply, text: str
):
    registry.behaviours["/v2/"] = reply
    told = await run(machine, "login", registry.host, "-u", "alice", "--password-stdin", password="pw")
    assert (told.status, told.err) == (1, f"pullclient: {registry.host} {text}" + told.err.partition(text)[2])


async def test_a_helper_keeps_it_without_a_warning(machine: Machine, registry: ScriptedRegistry):
    machine.helper("safe")
    machine.docker({"credsStore": "safe"})
    words = ("login", registry.host, "-u", "alice", "--password-stdin")
    told = await run(machine, *words, password="p:w")
    assert told == Ended(0, f"Logged in to {registry.host} as alice; kept in docker-credential-safe\n", "")
    assert "p:w" not in machine.docker_file.read_text()
    told = await run(machine, "logout", registry.host)
    assert told == Ended(0, f"Logged out of {registry.host}; removed from docker-credential-safe\n", "")


async def test_credentials_that_come_first_elsewhere_are_told_of(machine: Machine, registry: ScriptedRegistry):
    auth = base64.b64encode(b"bob:x").decode()
    machine.containers({"auths": {registry.host: {"auth": auth}}})
    file = machine.root / "run" / "containers" / "auth.json"
    told = await run(machine, "login", registry.host, "-u", "alice", "--password-stdin", password="p:w")
    assert told.err == f"{WARNING}Warning: bob from {file} comes before it and is what is used\n"
    told = await run(machine, "logout", registry.host)
    left = f"Warning: there is still bob from {file}, which pullclient uses and does not remove\n"
    assert told.err == left


async def test_a_terminal_is_asked_and_the_password_not_shown(machine: Machine, registry: ScriptedRegistry):
    ours, theirs = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "client", "login", registry.host],
        preexec_fn=lambda: os.login_tty(os.dup(theirs)),  # noqa: PLW1509 - it becomes the controlling terminal
        env=machine.environ(),
    )
    os.close(theirs)
    shown = await asyncio.to_thread(typed, ours, {"Username for": b"alice\n", "Password of alice": b"p:w\n"})
    assert await asyncio.to_thread(process.wait) == 0, shown
    assert "p:w" not in shown
    assert f"Logged in to {registry.host} as alice" in shown


def typed(screen: int, answers: dict[str, bytes]) -> str:
    """Types each answer once its question stands on the screen, and returns all that was shown."""
    shown, open_questions = b"", dict(answers)
    try:
        while data := os.read(screen, 65536):
            shown += data
            for question in [each for each in open_questions if f"{each}".encode() in shown and shown.endswith(b": ")]:
                os.write(screen, open_questions.pop(question))
    except OSError:  # Linux's way to say that the other end is closed
        pass
    finally:
        os.close(screen)
    return shown.decode()


@pytest.mark.parametrize(
    ("words", "password", "text"),
    [
        (["login"], "", "Missing argument"),
        (["login", "node", "-u", "a", "--password-stdin"], "x", "'node' is no registry: expected a host"),
        (["login", "ghcr.io/a", "-u", "a", "--password-stdin"], "x", "'ghcr.io/a' is no registry: expected a host"),
        (["login", "a b.io", "-u", "a", "--password-stdin"], "x", "'a b.io' is no registry: expected a host"),
        (["login", "", "-u", "a", "--password-stdin"], "x", "'' is no registry: expected a host"),
        (["logout", "https://"], "", "'https://' is no registry: expected a host"),
        (["login", "ghcr.io", "--password-stdin"], "x", "--password-stdin needs --username"),
        (["login", "ghcr.io", "-u", "a"], "x", "there is no terminal to ask for the password"),
        (["login", "ghcr.io", "-u", "a", "-p", "x"], "", "No such option"),
        (["login", "ghcr.io", "-u", "a", "--password-stdin"], "\n", "the password is empty"),
        (["login", "ghcr.io", "-u", "a:b", "--password-stdin"], "x", "'a:b' is no user name"),
        (["login", "ghcr.io", "-u", "a", "--password-stdin"], "x" * 65537, "a password has at most 65536 bytes"),
        (["login", "ghcr.io", "-u", "a", "--password-stdin"], b"\xff", "the password is not UTF-8"),
    ],
)
def test_what_cannot_be_meant_ends_with_2(words: list[str], password: str | bytes, text: str):
    ended = CliRunner().invoke(app, words, input=password)
    assert ended.exit_code == 2
    assert text in ended.stderr


def test_who_goes_away_from_the_question_keeps_nothing(monkeypatch: pytest.MonkeyPatch):
    def away(*_: object, **__: object) -> str:
        raise commands.typer.Abort

    monkeypatch.setattr(commands.sys, "stdin", type("Terminal", (), {"isatty": staticmethod(lambda: True)}))
    monkeypatch.setattr(commands.typer, "prompt", away)
    with pytest.raises(commands.typer.Exit) as ended:
        commands._asked("ghcr.io", None, password_stdin=False)
    assert ended.value.exit_code == 130


@pytest.mark.parametrize("words", [["login"], ["logout"]])
def test_help_reads_well(words: list[str]):
    told = CliRunner().invoke(app, [*words, "--help"])
    assert told.exit_code == 0
    assert max(map(len, told.stdout.splitlines())) <= 80


@pytest.mark.peer("skopeo")
async def test_skopeo_reads_what_login_wrote_and_we_what_skopeo_wrote(machine: Machine, encrypted: ScriptedRegistry):
    host = encrypted.host
    await machine.credentials().store(host, Credential("alice", "p:w"))
    told = await run(machine, "skopeo", "login", "--get-login", "--authfile", str(machine.docker_file), host)
    assert (told.status, told.out) == (0, "alice\n")
    machine.docker_file.unlink()
    await peer_login(machine, encrypted, "skopeo")


@pytest.mark.peer("podman")
async def test_we_read_what_podman_wrote(machine: Machine, encrypted: ScriptedRegistry):
    await peer_login(machine, encrypted, "podman")


async def peer_login(machine: Machine, registry: ScriptedRegistry, program: str) -> None:
    words = (program, "login", "--tls-verify=false", "-u", "alice", "--password-stdin", registry.host)
    told = await run(machine, *words, password="p:w")
    assert told.status == 0, told.err
    found = await machine.credentials().find(registry.host, "a/b")
    assert found == Credential("alice", "p:w")
    assert found.place == str(machine.root / "run" / "containers" / "auth.json")


@pytest.mark.peer("docker")
async def test_docker_logs_out_of_what_login_wrote(machine: Machine, registry: ScriptedRegistry):
    await run(machine, "login", registry.host, "-u", "alice", "--password-stdin", password="p:w")
    told = await run(machine, "docker", "logout", registry.host)
    assert f"Removing login credentials for {registry.host}" in told.out
    assert await machine.credentials().find(registry.host, "a") is None
