"""Programs that keep credentials: docker's helper protocol (docker-credential-helpers, "credentials" package).

`docker-credential-NAME get|store|erase` reads a server's address, or for `store` a JSON object, and answers JSON.
What it prints may hold a secret and is never repeated in a message.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from client.access.credential import Credential
from ocispec import strictjson
from ocispec.errors import CredentialsError

# A helper may have to ask a person to unlock something.
PATIENCE = 120.0
MAX_ANSWER = 256 * 1024
TOKEN_USER = "<token>"  # noqa: S105 - the protocol's name for "this is no user"
_NOT_FOUND = b"credentials not found"
_NAME = re.compile(r"[A-Za-z0-9_.-]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class Helper:
    """One helper program.

    Attributes:
        name: what follows `docker-credential-`.
        named_by: the file that names it, for messages.
        environ: the variables it runs with; `PATH` is where it is looked for.
        patience: how long it may take, in seconds.
    """

    name: str
    named_by: str
    environ: Mapping[str, str] = field(repr=False)
    patience: float = PATIENCE

    @property
    def program(self) -> str:
        return f"docker-credential-{self.name}"

    async def get(self, server: str) -> Credential | None:
        """Returns what the helper keeps for a server; None where it keeps nothing.

        When cancelled, the program is ended first; so with `store` and `erase`.

        Raises:
            CredentialsError: it is missing, fails, takes too long, or does not answer as the protocol says.
        """
        answer = await self._run("get", server)
        return None if answer is None else self._credential(answer, server)

    async def store(self, server: str, credential: Credential) -> None:
        """Hands a credential to the helper; raises CredentialsError, see `get`."""
        secret = credential.identity_token or credential.password
        if secret is None or credential.registry_token:
            raise CredentialsError(f"{self.program} keeps passwords and identity tokens, and this is neither")
        user = TOKEN_USER if credential.identity_token else credential.username or ""
        kept = {"ServerURL": server, "Username": user, "Secret": secret}
        if await self._run("store", json.dumps(kept)) is None:
            raise self._failed("store", "it says that it has none")

    async def erase(self, server: str) -> bool:
        """Removes what the helper keeps; false where there was nothing; raises CredentialsError, see `get`."""
        return await self._run("erase", server) is not None

    async def _run(self, verb: str, text: str) -> bytes | None:
        async with self._started(verb) as process:
            try:
                async with asyncio.timeout(self.patience):
                    answer = await _talk(process, text.encode())
                    if len(answer) > MAX_ANSWER:
                        raise self._failed(verb, f"it answered more than {MAX_ANSWER} bytes")
                    status = await process.wait()
            except TimeoutError as error:
                raise self._failed(verb, f"no answer within {self.patience:g} s") from error
        if status and answer.strip().startswith(_NOT_FOUND):
            return None
        if status:
            raise self._failed(verb, f"it ended with status {status}; started by hand, it tells why")
        return answer

    @asynccontextmanager
    async def _started(self, verb: str) -> AsyncIterator[Process]:
        if not _NAME.fullmatch(self.name):
            raise CredentialsError(f"{self.named_by} names the credential helper {self.name!r:.100}, which is no name")
        try:
            # A session of its own, so that all it started ends with it.
            process = await asyncio.create_subprocess_exec(
                self.program, verb, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, env=self.environ, start_new_session=True
            )
        except FileNotFoundError as error:
            raise CredentialsError(f"{self.program}, which {self.named_by} names, is not on PATH") from error
        except OSError as error:
            raise self._failed(verb, f"it cannot be started: {os.strerror(error.errno or 0)}") from error
        try:
            yield process
        finally:
            await _ended(process)

    def _credential(self, answer: bytes, server: str) -> Credential | None:
        try:
            members = strictjson.loads(answer)
        except strictjson.AmbiguousJSON:
            # The cause holds what was read, secrets and all.
            raise self._failed("get", f"its answer for {server} is not JSON") from None
        user, secret = (members.get(name) for name in ("Username", "Secret")) if _is_object(members) else (None, None)
        if not isinstance(user, str) or not isinstance(secret, str):
            raise self._failed("get", f"its answer for {server} has no Username and Secret")
        if not secret:
            return None
        if user == TOKEN_USER:
            return Credential(identity_token=secret, place=self.program)
        return Credential(user, secret, place=self.program)

    def _failed(self, verb: str, cause: str) -> CredentialsError:
        return CredentialsError(f"{self.program} {verb}, which {self.named_by} asks for, failed: {cause}")


async def _talk(process: Process, text: bytes) -> bytes:
    if not process.stdin or not process.stdout:
        raise CredentialsError("a helper was started without pipes")
    # It may end without having read what it does not need.
    with suppress(BrokenPipeError, ConnectionResetError):
        process.stdin.write(text)
        await process.stdin.drain()
    process.stdin.close()
    try:
        return await process.stdout.readexactly(MAX_ANSWER + 1)
    except asyncio.IncompleteReadError as error:
        return error.partial


async def _ended(process: Process) -> None:
    if process.returncode is not None:
        return
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    # Its end is told only once the pipe is empty and closed, which something that fled its session may prevent.
    with suppress(TimeoutError):
        async with asyncio.timeout(1):
            while process.stdout and await process.stdout.read(MAX_ANSWER):
                pass
            await process.wait()


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)
