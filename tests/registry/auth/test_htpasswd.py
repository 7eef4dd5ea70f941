"""Users with passwords: what a check costs, and how long it holds."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ocispec.errors import TooManyRequests, Unauthorized
from registry.auth import htpasswd as module
from registry.auth import identification, watched
from registry.auth.authenticator import Basic, Bearer, Identity, Kind
from registry.auth.htpasswd import Htpasswd
from registry.auth.identification import Identification
from registry.auth.passwords import matches
from registry.config import ConfigError
from tests.support.callers import basic, cheap_hash, htpasswd

ALICE = Identity("alice", Kind.USER)
RIGHT = Basic("alice", "secret")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return htpasswd(tmp_path / "htpasswd", alice="secret", bob="other")


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The hashes that passwords were compared with."""
    compared: list[bytes] = []

    def counted(password: str, hashed: bytes) -> bool:
        compared.append(hashed)
        return matches(password, hashed)

    monkeypatch.setattr(module, "matches", counted)
    return compared


async def ask(users: Htpasswd, credentials: Any) -> Identity | None:
    return await users.identify(credentials, {})


async def test_a_push_of_fifty_blobs_costs_one_check(file: Path, checks: list[bytes]) -> None:
    users = Htpasswd(file, "r")
    assert await asyncio.gather(*(ask(users, RIGHT) for _ in range(50))) == [ALICE] * 50
    assert len(checks) == 1
    assert await ask(users, RIGHT) == ALICE
    assert len(checks) == 1


async def test_what_is_remembered_ends_after_minutes(
    file: Path, checks: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    users, now = Htpasswd(file, "r"), time.monotonic()
    await ask(users, RIGHT)
    monkeypatch.setattr(time, "monotonic", lambda: now + 301)
    assert await ask(users, RIGHT) == ALICE
    assert len(checks) == 2


async def test_what_is_remembered_is_bounded(file: Path, checks: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_REMEMBERED", 1)
    users = Htpasswd(file, "r")
    for credentials in (RIGHT, Basic("bob", "other"), RIGHT):
        assert await ask(users, credentials)
    assert len(checks) == 3


@pytest.mark.parametrize(
    "credentials", [Basic("alice", "Secret"), Basic("alice", ""), Basic("carl", "secret"), Basic("bob", "secret")]
)
async def test_what_is_wrong_is_nobody_and_costs_a_check_each_time(
    file: Path, checks: list[bytes], credentials: Basic
) -> None:
    users = Htpasswd(file, "r")
    assert await ask(users, credentials) is None
    assert await ask(users, credentials) is None
    assert len(checks) == 2
    assert {each[:7] for each in checks} == {b"$2b$04$"}


async def test_what_is_no_password_is_not_its_business(file: Path, checks: list[bytes]) -> None:
    users = Htpasswd(file, "r")
    assert await ask(users, None) is None
    assert await ask(users, Bearer("secret")) is None
    assert checks == []
    assert users.challenge((), None, {}) == 'Basic realm="r"'


async def test_a_user_who_is_removed_is_nobody_at_once(file: Path) -> None:
    users = Htpasswd(file, "r")
    assert await ask(users, RIGHT) == ALICE
    htpasswd(file, bob="other")
    assert await ask(users, RIGHT) is None
    assert await ask(users, Basic("bob", "other"))


async def test_another_password_counts_at_once(file: Path) -> None:
    users = Htpasswd(file, "r")
    assert await ask(users, RIGHT) == ALICE
    htpasswd(file, alice="changed")
    assert await ask(users, RIGHT) is None
    assert await ask(users, Basic("alice", "changed")) == ALICE


async def test_a_change_of_others_forgets_nobody(file: Path, checks: list[bytes]) -> None:
    users = Htpasswd(file, "r")
    await ask(users, RIGHT)
    file.write_text(file.read_text() + f"carl:{cheap_hash('new')}\n")
    assert await ask(users, RIGHT) == ALICE
    assert len(checks) == 1


async def test_a_file_that_is_broken_or_gone_leaves_the_users_that_were(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    users = Htpasswd(file, "r")
    file.write_text("alice\n")
    assert await ask(users, RIGHT) == ALICE
    assert f"{file}:1: expected user:hash; what {file} said before stays in force" in caplog.text
    file.unlink()
    assert await ask(users, RIGHT) == ALICE
    assert "No such file" in caplog.text
    assert all(record.levelno == logging.ERROR for record in caplog.records)


async def test_users_who_cannot_log_in_are_told_of_when_the_file_changes(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file.write_text("alice:plain\n")
    users = Htpasswd(file, "r")
    assert caplog.text == ""
    (remark,) = users.remarks
    assert "user 'alice' cannot log in" in remark
    file.write_text("alice:plainer\n")
    await ask(users, RIGHT)
    assert remark in caplog.text


def test_without_a_file_nothing_starts(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file; add a user with `registry user add NAME --htpasswd"):
        Htpasswd(tmp_path / "htpasswd", "r")
    with pytest.raises(ConfigError, match="Is a directory"):
        Htpasswd(tmp_path, "r")


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Checks that wait until the test asks how many ran at once."""
    running, most, lock, go = 0, 0, threading.Lock(), threading.Event()

    def check(password: str, hashed: bytes) -> bool:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        go.wait(30)
        with lock:
            running -= 1
        return matches(password, hashed)

    def end() -> int:
        go.set()
        return most

    monkeypatch.setattr(module, "matches", check)
    return end


async def test_two_checks_run_at_once_and_a_bounded_number_waits(file: Path, held: Callable[[], int]) -> None:
    users = Htpasswd(file, "r")
    asked = [asyncio.create_task(ask(users, Basic("alice", str(number)))) for number in range(256)]
    await asyncio.sleep(0)
    with pytest.raises(TooManyRequests) as refused:
        await ask(users, RIGHT)
    assert refused.value.headers == {"Retry-After": "1"}
    while users._threads.locked() is False:
        await asyncio.sleep(0)
    most = held()
    assert await asyncio.gather(*asked) == [None] * 256
    assert most <= 2
    assert await ask(users, RIGHT) == ALICE


async def test_who_leaves_while_the_password_is_checked_leaves_the_others_their_turn(
    file: Path, held: Callable[[], int]
) -> None:
    users = Htpasswd(file, "r")
    first, second = (asyncio.create_task(ask(users, RIGHT)) for _ in range(2))
    while not users._checking:
        await asyncio.sleep(0)
    first.cancel()
    held()
    assert await second == ALICE
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_a_hash_that_changes_during_the_check_is_not_believed_later(file: Path, held: Callable[[], int]) -> None:
    users = Htpasswd(file, "r")
    asked = asyncio.create_task(ask(users, RIGHT))
    while not users._checking:
        await asyncio.sleep(0)
    htpasswd(file, alice="changed")
    held()
    await asked
    assert await ask(users, RIGHT) is None


async def test_a_header_that_comes_again_is_neither_read_nor_checked_again(
    file: Path, checks: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identification, "_REMEMBERED", 1)
    known = Identification([Htpasswd(file, "r")])

    async def ask(user: str, password: str) -> Identity:
        header = basic(user, password)["authorization"].encode()
        return await known.of({"headers": [(b"authorization", header)]}, tuple)

    first = await ask("alice", "secret")
    assert await ask("alice", "secret") is first
    await ask("bob", "other")
    again = await ask("alice", "secret")
    assert again == first
    assert again is not first
    assert len(checks) == 2
    assert "secret" not in repr(vars(known))
    htpasswd(file, bob="other")
    with pytest.raises(Unauthorized):
        await ask("alice", "secret")


async def test_a_file_is_looked_at_ten_times_a_second(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    monkeypatch.setattr(watched, "_LOOK_SECONDS", 0.1)
    users = Htpasswd(file, "r")
    htpasswd(file, bob="other")
    assert await ask(users, RIGHT) == ALICE
    now += 0.11
    assert await ask(users, RIGHT) is None
