"""The servers that are measured, each with a folder of its own, and what their processes cost."""

from __future__ import annotations

import os
import platform
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Self

READY_WITHIN = 60.0  # seconds
END_WITHIN = 30.0  # seconds
_PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
_TICKS = os.sysconf("SC_CLK_TCK")
_LISTENING = re.compile(r"listening on http://127\.0\.0\.1:(\d+)")
_VERSION = re.compile(r"\d+(\.\d+)+[\w.+~-]*")
# What Debian's package ships, but for the address, the folder and the password.
_DISTRIBUTION = """\
version: 0.1
log:
  fields: {{service: registry}}
storage:
  cache: {{blobdescriptor: inmemory}}
  filesystem: {{rootdirectory: {root}}}
  delete: {{enabled: true}}
http:
  addr: 127.0.0.1:{port}
  headers: {{X-Content-Type-Options: [nosniff]}}
health:
  storagedriver: {{enabled: true, interval: 10s, threshold: 3}}
"""
_NGINX = """\
daemon off;
{user}worker_processes 1;
pid {folder}/pid;
error_log {folder}/error.log;
events {{ worker_connections 1024; }}
http {{
  access_log {folder}/access.log combined;
  sendfile on;
  tcp_nopush on;
  keepalive_requests 1000000000;
  default_type application/octet-stream;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  server {{ listen 127.0.0.1:{port}; location / {{ alias {root}/docker/registry/v2/blobs/; }} }}
}}
"""


class Server:
    """A process that serves `root` on 127.0.0.1:`port` while used as a context manager; its log goes to a file."""

    name = ""

    def __init__(self, folder: Path, root: Path) -> None:
        self.folder, self.root = folder, root
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True)

    def command(self) -> Sequence[str | Path]:
        """Returns the command line, after writing the configuration that it names."""
        raise NotImplementedError

    def path(self, kind: str, repository: str, reference: str) -> str:
        """Returns where a manifest or a blob is asked for."""
        return f"/v2/{repository}/{kind}/{reference}"

    def cpu(self) -> float:
        """Returns the CPU seconds, user and system, of the process and all its descendants."""
        return sum(_cpu(pid) for pid in _tree(self._running().pid))

    def __enter__(self) -> Self:
        command = self.command()
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            self._await_ready()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    @property
    def _log(self) -> Path:
        return self.folder / "log"

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError(f"{self.name} does not run")
        return self._process

    def _await_ready(self) -> None:
        deadline = time.monotonic() + READY_WITHIN
        while not self._is_ready():
            if self._running().poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{self.name} did not start:\n{self._log.read_text()[-4000:]}")
            time.sleep(0.02)

    def _is_ready(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def _end(self) -> None:
        process = self._running()
        process.terminate()
        try:
            process.wait(END_WITHIN)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Telling(Server):
    """One that takes any free port, and says in its log which."""

    def _is_ready(self) -> bool:
        told = _LISTENING.search(self._log.read_text())
        self.port = int(told[1]) if told else 0
        return told is not None


class Ours(Telling):
    name = "layerhouse"

    def command(self) -> Sequence[str | Path]:
        return [sys.executable, "-m", "registry", "serve", "--root", self.root, "--addr", "127.0.0.1:0"]

    @staticmethod
    def version() -> str | None:
        libraries = ", ".join(f"{name} {version(name)}" for name in ("uvicorn", "uvloop", "httptools"))
        return f"{version('layerhouse')} (Python {platform.python_version()}, {libraries})"


class Distribution(Server):
    name = "docker-registry"

    def command(self) -> Sequence[str | Path]:
        self.port = _free_port()
        config = self.folder / "config.yml"
        config.write_text(_DISTRIBUTION.format(root=self.root, port=self.port))
        return [find("docker-registry") or "", "serve", config]

    @staticmethod
    def version() -> str | None:
        return tell("docker-registry", "--version")


class Nginx(Server):
    """Serves the blobs of another server's root as plain files."""

    name = "nginx"

    def command(self) -> Sequence[str | Path]:
        self.port = _free_port()
        config = self.folder / "nginx.conf"
        # Started by root, its worker would be nobody, who may not read the files.
        user = "user root;\n" if os.geteuid() == 0 else ""
        config.write_text(_NGINX.format(user=user, folder=self.folder, root=self.root, port=self.port))
        return [find("nginx") or "", "-p", self.folder, "-e", self.folder / "error.log", "-c", config]

    def path(self, kind: str, repository: str, reference: str) -> str:
        return f"/{blob_folder(reference)}/data"

    @staticmethod
    def version() -> str | None:
        return tell("nginx", "-v")


def blob_folder(digest: str) -> str:
    """Returns the folder of a blob below `docker/registry/v2/blobs` of a root."""
    algorithm, _, encoded = digest.partition(":")
    return f"{algorithm}/{encoded[:2]}/{encoded}"


def forget_blob(root: Path, digest: str) -> None:
    """Frees the disk of a blob: deleting it over HTTP removes its link alone."""
    shutil.rmtree(root / "docker/registry/v2/blobs" / blob_folder(digest))


def find(program: str) -> str | None:
    """Returns the path of a program, on PATH or in the folders of the system's administrator."""
    return shutil.which(program, path=_PATH)


def tell(program: str, word: str) -> str | None:
    """Returns the version that a program tells, or None where it is not installed."""
    path = find(program)
    if path is None:
        return None
    told = subprocess.run([path, word], capture_output=True, text=True, check=True)
    found = _VERSION.search(told.stdout + told.stderr)
    return found[0] if found else "of no version"


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def _tree(pid: int) -> list[int]:
    children = [int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in _children(task)]
    return [pid, *(descendant for child in children for descendant in _tree(child))]


def _children(task: Path) -> list[str]:
    return (task / "children").read_text().split()


def _cpu(pid: int) -> float:
    """Returns a process's seconds and those of its children that have ended (proc(5), fields 14 to 17)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / _TICKS
