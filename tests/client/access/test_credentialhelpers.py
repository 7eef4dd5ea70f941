"""The helper protocol, with real programs, good and bad."""

from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path

import pytest

from client.access.credential import Credential
from client.access.credentialhelpers import Helper
from ocispec.errors import CredentialsError
from tests.client.helpers import Machine


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def helper(machine: Machine, name: str = "x", patience: float = 30.0) -> Helper:
    return Helper(name, "FILE", machine.environ(), patience)


def answering(machine: Machine, text: str, status: int = 0) -> Helper:
    machine.program("x", f"#!/bin/sh\ncat >/dev/null\ncat <<'EOF'\n{text}\nEOF\necho s3cret >&2\nexit {status}\n")
    return helper(machine)


async def test_what_is_stored_is_got_until_it_is_erased(machine: Machine):
    machine.helper("x")
    one, server = helper(machine), "ghcr.io"
    assert await one.get(server) is None
    for credential in (Credential("alice", "pässword"), Credential(identity_token="1d")):
        await one.store(server, credential)
        found = await one.get(server)
        assert found == credential
        assert found.place == "docker-credential-x"
    assert await one.erase(server)
    assert not await one.erase(server)
    assert machine.calls("x") == [
        f"{verb} {server}" for verb in ("get", "store", "get", "store", "get", "erase", "erase")
    ]


async def test_an_identity_token_has_the_protocols_name_for_no_user(machine: Machine):
    machine.helper("x")
    await helper(machine).store("a", Credential("alice", identity_token="1d"))
    kept = json.loads((machine.root / "x.kept").read_text())
    assert kept == {"a": {"ServerURL": "a", "Username": "<token>", "Secret": "1d"}}


@pytest.mark.parametrize("credential", [Credential(registry_token="r"), Credential("alice")])
async def test_a_helper_keeps_passwords_and_identity_tokens_only(machine: Machine, credential: Credential):
    with pytest.raises(CredentialsError, match="docker-credential-x keeps passwords and identity tokens"):
        await helper(machine).store("a", credential)


@pytest.mark.parametrize(
    ("answer", "status", "cause"),
    [
        ("s3cret", 0, "its answer for ghcr.io is not JSON"),
        ('{"Secret": "s3cret"', 0, "its answer for ghcr.io is not JSON"),
        ('["s3cret"]', 0, "its answer for ghcr.io has no Username and Secret"),
        ('{"Username": 1, "Secret": "s3cret"}', 0, "its answer for ghcr.io has no Username and Secret"),
        ("error: s3cret", 3, "it ended with status 3; started by hand, it tells why"),
        ("s3cret" * 100_000, 0, "it answered more than 262144 bytes"),
    ],
)
async def test_a_helper_that_fails_is_named_and_nothing_it_said_is_shown(
    machine: Machine, answer: str, status: int, cause: str, capfd: pytest.CaptureFixture[str]
):
    with pytest.raises(CredentialsError) as failed:
        await answering(machine, answer, status).get("ghcr.io")
    assert failed.value.message == f"docker-credential-x get, which FILE asks for, failed: {cause}"
    assert failed.value.__cause__ is None
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "text", ['{"Username": "", "Secret": ""}', '{"ServerURL": "x", "Username": "a", "Secret": ""}']
)
async def test_an_empty_secret_is_none(machine: Machine, text: str):
    assert await answering(machine, text).get("ghcr.io") is None


async def test_a_helper_that_cannot_store_says_so(machine: Machine):
    with pytest.raises(CredentialsError, match="docker-credential-x store, which FILE asks for, failed: it says that"):
        await answering(machine, "credentials not found in native keychain", 1).store("a", Credential("a", "b"))


async def test_a_helper_need_not_read_what_it_is_told(machine: Machine):
    machine.program("x", "#!/bin/sh\nexec <&-\n")
    await helper(machine).store("a", Credential("a", "b" * 300_000))


@pytest.mark.parametrize("name", ["", "../../bin/sh", "a b", "a\0"])
async def test_a_helpers_name_is_no_path(machine: Machine, name: str):
    with pytest.raises(CredentialsError, match=r"^FILE names the credential helper .*, which is no name$"):
        await helper(machine, name).get("a")


async def test_a_helper_that_cannot_start_is_named(machine: Machine):
    machine.program("x", "no program")
    with pytest.raises(
        CredentialsError, match="docker-credential-x get, which FILE asks for, failed: it cannot be started"
    ):
        await helper(machine).get("a")
    with pytest.raises(CredentialsError, match=r"^docker-credential-y, which FILE names, is not on PATH$"):
        await helper(machine, "y").get("a")


HANGING = "#!/bin/sh\nsleep 600 &\necho $! >{pid}.new\nmv {pid}.new {pid}\nwait\n"


async def test_a_helper_that_hangs_is_ended_with_all_it_started(machine: Machine):
    pid = machine.root / "pid"
    machine.program("x", HANGING.format(pid=pid))
    with pytest.raises(CredentialsError, match=r"failed: no answer within 0\.5 s$"):
        await helper(machine, patience=0.5).get("a")
    assert gone(pid)


async def test_a_cancelled_caller_leaves_no_program_behind(machine: Machine):
    pid = machine.root / "pid"
    machine.program("x", HANGING.format(pid=pid))
    asked = asyncio.create_task(helper(machine).get("a"))
    while not pid.exists():
        await asyncio.sleep(0.01)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    assert gone(pid)


def gone(pid: Path) -> bool:
    """Whether a process ends; one whose parent is gone may wait for init to see it."""
    process = Path(f"/proc/{pid.read_text().strip()}/stat")
    for _ in range(500):
        try:
            if process.read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.01)
    os.kill(int(pid.read_text()), 9)
    return False
