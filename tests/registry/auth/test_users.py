"""`registry user`: the file is changed whole, and no password stands where others read it."""

from __future__ import annotations

import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from registry.auth import passwordfile
from registry.auth.passwords import Passwords, matches
from registry.cli import app
from registry.config import ConfigError
from tests.support.callers import cheap_hash
from tests.support.processes import REPOSITORY_ROOT, program


def registry(*words: str | Path, given: str = "") -> subprocess.CompletedProcess[str]:
    command = [*program("registry"), "user", *map(str, words)]
    return subprocess.run(
        command, cwd=REPOSITORY_ROOT, input=given, capture_output=True, text=True, timeout=60, check=False
    )


def typed(*words: str | Path, given: str = "") -> Result:
    """The same in this process, which is quicker."""
    return CliRunner().invoke(app, ["user", *map(str, words)], input=given)


def users(file: Path) -> dict[str, bytes]:
    return Passwords.parse(file.read_bytes(), file).hashes


def test_a_user_from_beginning_to_end(tmp_path: Path) -> None:
    file, config = tmp_path / "auth" / "htpasswd", tmp_path / "config.yml"
    config.write_text(f"version: 0.1\nstorage: {{inmemory: {{}}}}\nauth: {{htpasswd: {{realm: r, path: {file}}}}}\n")
    added = registry("add", "alice", "--config", config, "--password-stdin", given="secret\n")
    assert (added.returncode, added.stdout, added.stderr) == (0, f"alice can log in ({file})\n", "")
    assert matches("secret", users(file)["alice"])
    assert file.stat().st_mode & 0o777 == 0o600
    assert typed("passwd", "alice", "--htpasswd", file, "--password-stdin", given="other\r\n").exit_code == 0
    assert matches("other", users(file)["alice"])
    file.write_text(file.read_text() + "bob:plain\n")
    listed = typed("list", "--htpasswd", file)
    assert listed.stdout == "alice\n"
    assert "user 'bob' cannot log in" in listed.stderr
    assert typed("remove", "alice", "--htpasswd", file).stdout == f"alice can no longer log in ({file})\n"
    assert users(file) == {}


@pytest.mark.parametrize(
    ("words", "given", "told"),
    [
        (["add", "e:ve", "--password-stdin"], "x", "'e:ve' cannot be a user's name: expected no colon"),
        (["add", "eve", "--password-stdin"], "\n", "the password is empty"),
        (["add", "eve", "--password-stdin"], "x" * 73, "the password is longer than 72 bytes"),
        (["add", "eve"], "", "there is no terminal to ask for the password at: give it with --password-stdin"),
        (["add", "alice", "--password-stdin"], "x", "user 'alice' is there already"),
        (["passwd", "eve", "--password-stdin"], "x", "there is no user 'eve'"),
        (["remove", "eve"], "", "there is no user 'eve'"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_changes_nothing(
    tmp_path: Path, words: list[str], given: str, told: str
) -> None:
    file = tmp_path / "htpasswd"
    file.write_text(f"alice:{cheap_hash('secret')}\n")
    before = file.read_bytes()
    ended = typed(*words, "--htpasswd", file, given=given)
    assert (ended.exit_code, ended.stdout) == (1, "")
    (line,) = ended.stderr.splitlines()
    assert line.startswith("registry: ")
    assert told in line
    assert file.read_bytes() == before
    assert list(tmp_path.iterdir()) == [file]


def test_no_file_is_told() -> None:
    assert "no htpasswd file is configured" in typed("list").stderr
    assert "registry: /nowhere/htpasswd: No such file" in typed("list", "--htpasswd", "/nowhere/htpasswd").stderr


def test_a_terminal_is_asked_twice_and_does_not_show_the_password(tmp_path: Path) -> None:
    file = tmp_path / "htpasswd"
    master, slave = os.openpty()
    command = ["setsid", "--ctty", "--wait", *program("registry"), "user", "add", "alice", "--htpasswd", str(file)]
    with subprocess.Popen(command, cwd=REPOSITORY_ROOT, stdin=slave, stdout=slave, stderr=slave) as running:
        os.close(slave)
        told = b""
        while piece := read(master):
            told += piece
            if told.endswith(b": "):
                os.write(master, b"secret\n")
        assert running.wait(60) == 0
    os.close(master)
    assert told.startswith(b"Password: \r\nRepeat for confirmation: \r\nalice can log in")
    assert b"secret" not in told
    assert matches("secret", users(file)["alice"])


def read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 1000)
    except OSError:  # its last user has closed it
        return b""


@pytest.mark.parametrize("name", ["", "a:b", "#a", " a", "a ", "a\nb", "a\x7f"])
def test_a_name_that_no_line_can_hold_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="cannot be a user's name"):
        passwordfile.add(tmp_path / "htpasswd", name, "hash")


def test_other_lines_and_the_mode_and_a_link_stay_as_they_are(tmp_path: Path) -> None:
    real, link = tmp_path / "real", tmp_path / "htpasswd"
    real.write_text("# ours\nalice:1\n\nbob:2\nalice:3\n")
    real.chmod(0o640)
    link.symlink_to(real)
    passwordfile.set_password(link, "alice", "4")
    assert real.read_text() == "# ours\nalice:4\n\nbob:2\n"
    passwordfile.add(link, "carl", "5")
    passwordfile.remove(link, "bob")
    assert real.read_text() == "# ours\nalice:4\n\ncarl:5\n"
    assert link.is_symlink()
    assert real.stat().st_mode & 0o777 == 0o640


def test_of_many_who_add_at_once_none_is_lost(tmp_path: Path) -> None:
    file = tmp_path / "htpasswd"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: passwordfile.add(file, f"user{number}", "hash"), range(40)))
    assert len(file.read_text().splitlines()) == 40


def test_a_file_that_cannot_be_replaced_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be changed: "):
        passwordfile.add(tmp_path / "file" / "htpasswd", "alice", "hash")
