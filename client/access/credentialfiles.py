"""Files of credentials: docker's config.json and the auth.json of podman and skopeo, which share one form.

{
  "auths": {"ghcr.io": {"auth": base64("user:password")}, "HOST[/NAMESPACE]": {…}},
  "credHelpers": {"HOST": "NAME of docker-credential-NAME"},
  "credsStore": "NAME for all other hosts"
}

An entry of `auths` may have `username` and `password`, `identitytoken` or `registrytoken`. Sources: docker/cli
`config/configfile` and `config/types`, containers-auth.json(5). Everything here blocks: call it from a worker thread.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

from client.access.credential import Credential, key_of, names, normalised
from ocispec import strictjson
from ocispec.errors import CredentialsError
from storage.durable import sync_folder

MAX_FILE = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class CredentialFile:
    """One file, read; what it says of one host is judged when that host is asked for.

    Attributes:
        path: where it is.
        members: its JSON object.
    """

    path: Path
    members: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def read(cls, path: Path, *, needed: bool = False) -> CredentialFile:
        """Reads a file; one that is absent, unless it is needed, or empty holds nothing.

        Raises:
            CredentialsError: it cannot be read, or is no such file; naming it and the place in it.
        """
        try:
            with path.open("rb") as source:
                raw = source.read(MAX_FILE + 1)
        except (FileNotFoundError, NotADirectoryError) as error:
            if needed:
                raise CredentialsError(f"{path} does not exist") from error
            return cls(path)
        except OSError as error:
            raise CredentialsError(f"{path} cannot be read: {_cause(error)}") from error
        file = cls(path, _object(path, raw))
        file.section("auths")
        file.section("credHelpers")
        return file

    def section(self, name: str) -> Mapping[str, Any]:
        found = self.members.get(name)
        if found is None:
            return {}
        return found if isinstance(found, dict) else self._broken(name, "an object")

    def helper(self, host: str) -> str | None:
        """Returns the name of the helper program for a host, if any; raises CredentialsError."""
        named = self._entry("credHelpers", host)
        name = self.members.get("credsStore") if named is None else named
        if name is not None and not isinstance(name, str):
            self._broken("credsStore" if named is None else f'credHelpers["{host}"]', "the name of a helper")
        return name or None

    def credential(self, host: str, repository: str) -> Credential | None:
        """Returns what `auths` has for a repository, the closest key first.

        Raises:
            CredentialsError: the entry is broken.
        """
        for name in names(host, repository):
            entry = self._entry("auths", name)
            found = None if entry is None else self._read_entry(f'auths["{name}"]', entry)
            if found:
                return found
        return None

    def _entry(self, section: str, name: str) -> Any:
        entries = self.section(section)
        # Of several keys for one thing the one that docker writes counts.
        for key in (key_of(name), name):
            if key in entries:
                return entries[key]
        return next((entry for key, entry in entries.items() if normalised(key) == name), None)

    def _read_entry(self, where: str, entry: Any) -> Credential | None:
        if not isinstance(entry, dict):
            self._broken(where, "an object")
        known = ("auth", "username", "password", "identitytoken", "registrytoken")
        texts = {name: entry.get(name) or "" for name in known}
        for name, text in texts.items():
            if not isinstance(text, str):
                self._broken(f"{where}.{name}", "a text")
        user, password = texts["username"], texts["password"]
        if texts["auth"]:
            user, password = self._decoded(f"{where}.auth", texts["auth"])
        identity, registry = texts["identitytoken"], texts["registrytoken"]
        if not (password or identity or registry):
            return None
        return Credential(user or None, password or None, identity or None, registry or None, str(self.path))

    def _decoded(self, where: str, auth: str) -> tuple[str, str]:
        user = colon = password = ""
        # The cause would hold what was read.
        with contextlib.suppress(binascii.Error, UnicodeDecodeError):
            user, colon, password = base64.b64decode(auth, validate=True).decode().partition(":")
        if not colon:
            self._broken(where, "base64 of USER:PASSWORD")
        return user, password.rstrip("\0")

    def _broken(self, where: str, expected: str) -> NoReturn:
        raise CredentialsError(f"{self.path}: {where} is not {expected}")


def put(path: Path, host: str, entry: Mapping[str, str]) -> None:
    """Writes an entry for a host, and nothing else anew; the file holds either what it held or all of it.

    Raises:
        CredentialsError: the file is broken, or cannot be written.
    """
    _edit(path, lambda auths: {**auths, key_of(host): dict(entry)})


def drop(path: Path, host: str) -> bool:
    """Removes what the file has for a host, under any of its keys; false where there was none; errors as `put`."""
    before, after = _edit(path, lambda auths: {key: entry for key, entry in auths.items() if normalised(key) != host})
    return any(before[key] for key in before.keys() - after.keys())


def encoded(credential: Credential) -> dict[str, str]:
    """Returns the entry that docker writes for a credential."""
    user, password = credential.username or "", credential.password or ""
    auth = base64.b64encode(f"{user}:{password}".encode()).decode() if user or password else ""
    found = {
        "auth": auth,
        "identitytoken": credential.identity_token or "",
        "registrytoken": credential.registry_token or "",
    }
    return {name: text for name, text in found.items() if text}


_Auths: TypeAlias = Mapping[str, Any]


def _edit(path: Path, change: Callable[[_Auths], _Auths]) -> tuple[_Auths, _Auths]:
    """Changes `auths` and returns it as it was and as it is."""
    file = CredentialFile.read(path)
    before = file.section("auths")
    after = change(before)
    if after != before:
        text = json.dumps({**file.members, "auths": after}, indent="\t", ensure_ascii=False)
        try:
            # A link stays a link: whoever keeps this file elsewhere wants it there.
            _replace(path.resolve(), text.encode())
        except OSError as error:
            raise CredentialsError(f"{path} cannot be written: {_cause(error)}") from error
    return before, after


def _replace(path: Path, data: bytes) -> None:
    # Taken here: it is needed by those who log in alone.
    from tempfile import mkstemp  # noqa: PLC0415 - see above

    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Nobody else can read it, from its first byte on.
    fd, temporary = mkstemp(prefix=f"{path.name}.", dir=path.parent)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            _same_owner(path, fd)
            os.fsync(fd)
        Path(temporary).replace(path)
        sync_folder(path.parent)
    finally:
        Path(temporary).unlink(missing_ok=True)


def _same_owner(path: Path, fd: int) -> None:
    """Under sudo the file stays with the user whose it is."""
    with contextlib.suppress(FileNotFoundError, PermissionError):
        status = path.stat()
        os.fchown(fd, status.st_uid, status.st_gid)


def _object(path: Path, raw: bytes) -> dict[str, Any]:
    if len(raw) > MAX_FILE:
        raise CredentialsError(f"{path} is longer than {MAX_FILE} bytes")
    try:
        members = strictjson.loads(raw) if raw.strip() else {}
    except strictjson.AmbiguousJSON as error:
        # The cause holds the whole file.
        raise CredentialsError(f"{path}: {error}") from None
    if not isinstance(members, dict):
        raise CredentialsError(f"{path} is not a JSON object")
    return members


def _cause(error: OSError) -> str:
    return os.strerror(error.errno).lower() if error.errno else str(error)
