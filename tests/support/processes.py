"""Servers in processes of their own: ours, and Debian's docker-registry."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from tests.support.peers import find

REPOSITORY_ROOT = Path(__file__).resolve().parents[2]
LISTENING = re.compile(r"listening on (?:https?://)?(127\.0\.0\.1:\d+|\[::\]:\d+|unix:[^\s\"]+)")
READY_WITHIN = 60.0  # seconds; a cold machine that runs other work beside
STOP_WITHIN = 30.0


class Server:
    """A server in a session of its own, so that signals reach it and its children and nothing else.

    `command` takes the address to listen on as `{addr}`; the server tells the port it got by a line of its log that
    holds `listening on 127.0.0.1:PORT`. The log goes to a file: a pipe that nobody reads would stop the server.
    """

    def __init__(self, command: Sequence[str], *, log: Path, env: Mapping[str, str] | None = None) -> None:
        self.command = list(command)
        self.host = "127.0.0.1:0"
        self._env = {**os.environ, **(env or {})}
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://{self.host}"

    @property
    def pid(self) -> int:
        if self._process is None:
            raise RuntimeError(f"not running: {self.command}")
        return self._process.pid

    def start(self, addr: str = "127.0.0.1:0") -> None:
        """Start, and return when the server listens. A server that ends or stays silent raises with its log."""
        offset = self._log.stat().st_size if self._log.exists() else 0
        command = [part.replace("{addr}", addr) for part in self.command]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command, env=self._env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + READY_WITHIN
        while (host := self._listens(offset)) is None:
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"did not start: {' '.join(command)}\n{self.log()}")
            time.sleep(0.01)
        self.host = host

    def stop(self) -> int:
        """End with SIGTERM, as an operator does, and return the exit status; one that will not end raises."""
        if self._process is None:
            return 0
        self._process.terminate()
        try:
            status = self._process.wait(STOP_WITHIN)
        except subprocess.TimeoutExpired:
            self.kill()
            raise RuntimeError(f"did not end {STOP_WITHIN:.0f} s after SIGTERM\n{self.log()}") from None
        self.kill()
        return status

    def kill(self) -> None:
        """SIGKILL to the server and all its children at once."""
        if self._process is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process = None

    def restart(self) -> None:
        """Stop if it runs, and start again on the same port."""
        self.stop()
        self.start(self.host)

    def processes(self) -> list[int]:
        """Process ids of the server and all its children."""
        return [pid for pid, session in _sessions() if session == self.pid]

    def rss(self) -> int:
        """Resident bytes of the server and all its children, pages they share counted for each."""
        return sum(_resident(pid) for pid in self.processes())

    def log(self, limit: int = 4_000) -> str:
        """The end of the log, for the output of a failed test."""
        return self._read(0)[-limit:]

    def _listens(self, offset: int) -> str | None:
        """Where the server that was started last listens; None until it does."""
        match = LISTENING.search(self._read(offset))
        return match and match.group(1)

    def _read(self, offset: int) -> str:
        with self._log.open("rb") as log:
            log.seek(offset)
            return log.read().decode(errors="replace")


class RegistryProcess(Server):
    """`registry serve` of this checkout on a free port.

    `covered=False` keeps coverage's tracer out of the server where its memory or speed is what the test is about.
    """

    def __init__(
        self,
        root: Path,
        *,
        log: Path,
        workers: int = 1,
        args: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        covered: bool = True,
    ) -> None:
        self.root = root
        serve = ["serve", "--root", str(root), "--addr", "{addr}", "--workers", str(workers), *args]
        path = {"PYTHONPATH": str(REPOSITORY_ROOT)}
        super().__init__([*program("registry"), *serve], log=log, env={**path, **(env or {})})
        if not covered:
            self._env = {name: value for name, value in self._env.items() if not name.startswith("COV")}


class DistributionProcess(Server):
    """Debian's docker-registry on a free port, with deletes allowed."""

    def __init__(self, root: Path, *, log: Path) -> None:
        self.root = root
        settings = {
            "REGISTRY_HTTP_SECRET": "of-no-importance",
            "REGISTRY_LOG_ACCESSLOG_DISABLED": "true",
            "REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY": str(root),
            "REGISTRY_STORAGE_DELETE_ENABLED": "true",
        }
        config = log.with_suffix(".yml")
        config.write_text("version: 0.1\nstorage: {filesystem: {}}\nhttp: {addr: '127.0.0.1:0'}\n")
        super().__init__(["docker-registry", "serve", str(config)], log=log, env=settings)

    def start(self, addr: str = "127.0.0.1:0") -> None:
        self._env["REGISTRY_HTTP_ADDR"] = addr
        super().start(addr)


def run(*command: str, env: dict[str, str] | None = None, timeout: float = 120) -> str:
    """Run a peer's command line and return what it printed; a failure raises with all of its output."""
    path = find(command[0]) or command[0]
    done = subprocess.run(
        [path, *command[1:]],
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout.strip()


def pullclient(*words: str, timeout: float = 120) -> str:
    """Run `pullclient` of this checkout and return what it printed; a failure raises with all of its output."""
    return run(*program("pullclient"), *words, env={"PYTHONPATH": str(REPOSITORY_ROOT)}, timeout=timeout)


def program(name: str) -> list[str]:
    """The command line that runs one of the project's commands from this checkout, installed or not."""
    module = {"registry": "registry", "pullclient": "client"}[name]
    return [sys.executable, "-c", f"from {module}.cli import app; app()"]


def _sessions() -> list[tuple[int, int]]:
    """(process id, session id) of every process."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                pid = int(entry.name)
                found.append((pid, os.getsid(pid)))
            except ProcessLookupError:
                continue
    return found


def _resident(pid: int) -> int:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
