"""Where credentials come from, and where `login` puts them.

They are looked for in this order; the first that has some for the repository, or for what lies above it, counts:

1. the file that `$REGISTRY_AUTH_FILE` names; where it names none
   a. `$XDG_RUNTIME_DIR/containers/auth.json`, else `/run/containers/UID/auth.json`
   b. `$XDG_CONFIG_HOME/containers/auth.json`, else `~/.config/containers/auth.json`
2. `$DOCKER_CONFIG/config.json`, else `~/.docker/config.json`

That is the order of podman and skopeo (containers-auth.json(5)). In each file a helper program (`credHelpers` for the
host, else `credsStore`) is asked before its `auths`. `login` writes 2, which docker reads, through its helper if any.
"""

from __future__ import annotations

import asyncio
import os
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from client.access.credential import Credential, key_of, normalised
from client.access.credentialfiles import CredentialFile, drop, encoded, put
from client.access.credentialhelpers import Helper
from ocispec.errors import CredentialsError
from storage.threads import finish

_REMEMBERED = 256


class Lookup(Protocol):
    """Knows credentials."""

    async def find(self, host: str, repository: str) -> Credential | None:
        """Returns what there is for a repository; raises CredentialsError."""


@dataclass(frozen=True, slots=True)
class Given:
    """Knows one credential, for whatever it is asked."""

    credential: Credential

    async def find(self, host: str, repository: str) -> Credential | None:  # noqa: ARG002 - Lookup's
        return self.credential


@dataclass(frozen=True, slots=True)
class Kept:
    """Where a credential was put.

    Attributes:
        place: a file or a helper program.
        plain: whether whoever can read the file can read the credential.
    """

    place: str
    plain: bool


class Credentials:
    """The credentials of a user; files are read once, helpers asked once for each server.

    Args:
        environ: the variables above, with `HOME`, and `PATH` for helpers.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = dict(environ)
        self._lock = asyncio.Lock()
        self._files: tuple[CredentialFile, ...] | None = None
        self._asked: OrderedDict[tuple[str, str], Credential | None] = OrderedDict()

    async def find(self, host: str, repository: str) -> Credential | None:
        """Returns what there is for a repository.

        Args:
            host: as image names have it; `docker.io` for Docker Hub.
            repository: its whole name there; empty for the host as such.

        Raises:
            CredentialsError: a file on the way is broken, or a helper is missing or fails; naming it.
        """
        wanted = normalised(host)
        async with self._lock:
            if self._files is None:
                self._files = await finish(self._read)
            for file in self._files:
                if name := file.helper(wanted):
                    found = await self._ask(self._helper(name, file), key_of(wanted))
                else:
                    found = None
                if found := found or file.credential(wanted, repository):
                    return found
        return None

    async def store(self, host: str, credential: Credential) -> Kept:
        """Keeps a credential where docker looks for it, in place of what was there.

        Cancelled, it leaves the file as it was or written whole.

        Raises:
            CredentialsError: the file or the helper does not let it.
        """
        wanted = normalised(host)
        async with self._lock:
            self._forget()
            helper = await self._writing(wanted)
            if helper:
                await helper.store(key_of(wanted), credential)
            # Docker lists the hosts whose credentials a helper has.
            await finish(put, self.docker_file, wanted, {} if helper else encoded(credential))
        return Kept(helper.program if helper else str(self.docker_file), plain=helper is None)

    async def erase(self, host: str) -> tuple[str, ...]:
        """Removes what docker's file and its helper have for a host, and returns where there was something.

        Raises:
            CredentialsError: see `store`.
        """
        wanted = normalised(host)
        async with self._lock:
            self._forget()
            helper = await self._writing(wanted)
            places = [helper.program] if helper and await helper.erase(key_of(wanted)) else []
            if await finish(drop, self.docker_file, wanted):
                places.append(str(self.docker_file))
        return tuple(places)

    @property
    def docker_file(self) -> Path:
        folder = self._environ.get("DOCKER_CONFIG")
        return (Path(folder) if folder else self._home / ".docker") / "config.json"

    @property
    def _home(self) -> Path:
        return Path(self._environ.get("HOME") or os.path.expanduser("~"))  # noqa: PTH111 - never fails

    def _read(self) -> tuple[CredentialFile, ...]:
        if named := self._environ.get("REGISTRY_AUTH_FILE"):
            try:
                first = [CredentialFile.read(Path(named), needed=True)]
            except CredentialsError as error:
                raise CredentialsError(f"$REGISTRY_AUTH_FILE: {error.message}") from error
        else:
            first = [CredentialFile.read(folder / "auth.json") for folder in self._folders()]
        return (*first, CredentialFile.read(self.docker_file))

    def _folders(self) -> tuple[Path, Path]:
        running, configured = (self._environ.get(name) for name in ("XDG_RUNTIME_DIR", "XDG_CONFIG_HOME"))
        return (
            Path(running) / "containers" if running else Path("/run/containers") / str(os.getuid()),
            (Path(configured) if configured else self._home / ".config") / "containers",
        )

    async def _writing(self, host: str) -> Helper | None:
        file = await finish(CredentialFile.read, self.docker_file)
        name = file.helper(host)
        return self._helper(name, file) if name else None

    def _helper(self, name: str, file: CredentialFile) -> Helper:
        return Helper(name, str(file.path), self._environ)

    async def _ask(self, helper: Helper, server: str) -> Credential | None:
        key = (helper.name, server)
        if key not in self._asked:
            self._asked[key] = await helper.get(server)
            if len(self._asked) > _REMEMBERED:
                self._asked.popitem(last=False)
        return self._asked[key]

    def _forget(self) -> None:
        self._files = None
        self._asked.clear()
