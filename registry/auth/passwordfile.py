"""Changing an htpasswd file: whole or not at all, durably, with its mode and its other lines kept. All here blocks."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from registry.auth.authenticator import CONTROLS
from registry.auth.passwords import entries
from registry.config import ConfigError
from storage.durable import sync_folder, write_all

_MODE = 0o600


def require_name(user: str) -> None:
    """Raises ConfigError: no line of the file could hold it."""
    if not user or ":" in user or user.startswith("#") or user != user.strip() or CONTROLS.search(user):
        expected = "expected no colon, no control character, no # at the beginning, no space at either end"
        raise ConfigError(f"{user!r:.80} cannot be a user's name: {expected}")


def add(path: Path, user: str, hashed: str) -> None:
    """Adds a user; makes the file, and its folder, where they are not there yet.

    Raises:
        ConfigError: the name is none or there already, or the file cannot be read or replaced.
    """
    require_name(user)
    with _changing(path) as file:
        if user in file.users:
            raise ConfigError(f"{path}: user {user!r} is there already; `registry user passwd` sets another password")
        file.write([*file.lines, f"{user}:{hashed}"])


def set_password(path: Path, user: str, hashed: str) -> None:
    """Gives a user another password; raises ConfigError where there is no such user, and as `add` does."""
    with _changing(path) as file:
        first = file.first_of(user)
        before, after = file.lines[: first - 1], file.lines[first:]
        file.write([*before, f"{user}:{hashed}", *file.others(after, user)])


def remove(path: Path, user: str) -> None:
    """Removes a user; raises ConfigError where there is no such user, and as `add` does."""
    with _changing(path) as file:
        file.first_of(user)
        file.write(list(file.others(file.lines, user)))


class _File:
    def __init__(self, path: Path, data: bytes) -> None:
        self._path = path
        self.users = {user: line for line, user, _ in reversed(list(entries(data, path)))}
        self.lines = data.decode().splitlines()

    def first_of(self, user: str) -> int:
        """Number of the line where a user stands first."""
        if user not in self.users:
            raise ConfigError(f"{self._path}: there is no user {user!r:.80}")
        return self.users[user]

    def others(self, lines: list[str], user: str) -> Iterator[str]:
        return (line for line in lines if line.strip().partition(":")[:2] != (user, ":"))

    def write(self, lines: list[str]) -> None:
        target = self._path.resolve()
        temporary = target.with_name(f".{target.name}.{uuid4().hex}")
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _MODE)
        try:
            _keep_owner(fd, target)
            write_all(lambda piece: os.write(fd, piece), "".join(f"{line}\n" for line in lines).encode())
            os.fsync(fd)
            temporary.replace(target)
        finally:
            os.close(fd)
            temporary.unlink(missing_ok=True)
        sync_folder(target.parent)


def _keep_owner(fd: int, target: Path) -> None:
    with suppress(FileNotFoundError):
        found = target.stat()
        with suppress(PermissionError):
            os.fchown(fd, found.st_uid, found.st_gid)
        os.fchmod(fd, found.st_mode & 0o777)


@contextmanager
def _changing(path: Path) -> Iterator[_File]:
    """Opens the file for one change: whoever changes it at the same time waits."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = os.open(path.resolve().parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield _File(path, path.read_bytes() if path.exists() else b"")
        finally:
            os.close(folder)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be changed: {error.strerror or error}") from error
