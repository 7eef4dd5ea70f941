"""A registry as its owner starts it: `registry serve FILE` with variables above the file, and nothing else."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import ssl
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.support.images import MIB, Answer, Wire, WrongBytesError, sha256
from tests.support.processes import REPOSITORY_ROOT, STOP_WITHIN, Server, program, run

FILES = REPOSITORY_ROOT / "tests" / "registry" / "configs"
HERE = {"PYTHONPATH": str(REPOSITORY_ROOT)}
_PAIR = re.compile(r'([\w.@-]+)=("(?:[^"\\]|\\.)*"|\S*)')


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listened on just now, each another one."""
    with ExitStack() as held:
        free = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in free]


def free_port() -> int:
    return free_ports(1)[0]


class Deployment(Server):
    """`registry serve` as a file and variables say; the test knows the port that one of them gives.

    It is there when it takes connections: a log that is kept to errors does not tell.
    """

    def __init__(self, file: Path | None, port: int, *, log: Path, variables: Mapping[str, str] | None = None) -> None:
        self._words = [] if file is None else [str(file)]
        super().__init__([*program("registry"), "serve", *self._words], log=log, env={**HERE, **(variables or {})})
        self._port = port
        self._file = log

    def _listens(self, offset: int) -> str | None:
        del offset
        try:
            socket.create_connection(("127.0.0.1", self._port), 1).close()
        except OSError:
            return None
        return f"127.0.0.1:{self._port}"

    def wait(self) -> int:
        """Returns the exit status once it has ended, without another signal."""
        assert self._process is not None
        return self._process.wait(STOP_WITHIN)

    def registry(self, *words: str) -> str:
        """What another command of `registry` prints, given the same file and variables."""
        return run(*program("registry"), *words, *self._words, env=self._env)

    @property
    def is_running(self) -> bool:
        return self._process is not None

    @property
    def text(self) -> str:
        """All of the log."""
        return self._file.read_text()

    def lines(self) -> list[dict[str, Any]]:
        """The log's lines, each as its fields; a line that is none, as of a traceback, fails."""
        return list(read_lines(self.text))


class Deployments:
    """Starts registries by files as people have them, with addresses and folders of the test's own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._started: list[Deployment] = []

    def __call__(
        self, name: str, *, root: str = "root", port: int = 0, by_variable: bool = False, **variables: object
    ) -> Deployment:
        """Starts the registry of a file.

        Args:
            name: of the file.
            root: the folder of its images; none is given where it is empty.
            port: where it listens; a free one for 0.
            by_variable: whether `REGISTRY_CONFIGURATION_PATH` names the file, and not the command line.
            variables: those that stand above the file, without `REGISTRY_`.
        """
        port, file = port or free_port(), FILES / f"{name}.yml"
        given: dict[str, object] = {"HTTP_ADDR": f"127.0.0.1:{port}"}
        given |= {"STORAGE_FILESYSTEM_ROOTDIRECTORY": self.folder / root} if root else {}
        given |= {"CONFIGURATION_PATH": file} if by_variable else {}
        environment = {f"REGISTRY_{key}": str(value) for key, value in (given | variables).items()}
        log = self.folder / f"{len(self._started)}-{name}.log"
        made = Deployment(None if by_variable else file, port, log=log, variables=environment)
        self._started.append(made)
        made.start()
        return made

    def end(self) -> None:
        """Ends those that still run: each has to end well, and none may have a line in its log that is none."""
        running = [each for each in self._started if each.is_running]
        for each in running:
            os.kill(each.pid, signal.SIGTERM)
        try:
            statuses = [each.wait() for each in running]
        finally:
            for each in running:
                each.kill()
        for each in self._started:
            print(each.log())
        assert not any(statuses)
        for each in self._started:
            each.lines()


def deploying(tmp_path: Path) -> Iterator[Deployments]:
    """For a fixture."""
    made = Deployments(tmp_path)
    yield made
    made.end()


def complaints(server: Deployment) -> list[str]:
    """What is warned of, without the path of the files."""
    return [each.removeprefix(f"{FILES}/") for each in messages(server.lines(), "warning", "error")]


def read_lines(text: str) -> Iterator[dict[str, Any]]:
    """Reads lines of `text`, `json` and `logstash`."""
    for line in text.splitlines():
        if line.startswith("{"):
            yield json.loads(line)
        else:
            assert not _PAIR.sub("", line).strip(), line
            yield {name: json.loads(value) if value[:1] == '"' else value for name, value in _PAIR.findall(line)}


def messages(lines: list[dict[str, Any]], *levels: str) -> list[str]:
    """What is said at these levels, in order; requests apart."""
    said = [each.get("msg", each.get("message")) for each in lines if each["level"] in levels]
    return [each for each in said if each != "response completed"]


class Client(Wire):
    """One connection, over TLS where a context is given; every request carries `headers`, below a path if need be."""

    def __init__(
        self,
        host: str,
        *,
        headers: Mapping[str, str] | None = None,
        tls: ssl.SSLContext | None = None,
        below: str = "",
    ) -> None:
        super().__init__(host)
        if tls is not None:
            self._connection = http.client.HTTPSConnection(host, context=tls, timeout=60, blocksize=MIB)
        self._headers = dict(headers or {})
        self._below = below

    def ask(self, method: str, path: str, body: Any = None, *, expect: int | None = None, **headers: str) -> Answer:
        where = path if path.startswith(f"{self._below}/") else self._below + path
        return super().ask(method, where, body, expect=expect, **{**self._headers, **headers})

    def body_of(self, path: str, expect: int = 200) -> Any:
        """The JSON that a path answers."""
        return json.loads(self.ask("GET", path, expect=expect).body)

    def blob(self, repo: str, digest: str) -> int:
        found = self.ask("GET", f"/v2/{repo}/blobs/{digest}", expect=200).body
        if sha256(found) != digest:
            raise WrongBytesError(f"{repo}@{digest} is {sha256(found)}")
        return len(found)
