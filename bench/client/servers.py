"""A Docker engine of the benchmark's own, and the relay that stands before the registry."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench.servers import Server, Telling, find, tell

RATE = 25e6  # bytes per second: 200 Mbit/s
DELAY = 0.02  # seconds, each way


class Engine(Server):
    """`dockerd` with folders, socket and process id of its own; its containerd is a child of it, and counts.

    Its socket lies in a short temporary folder: the path of a UNIX socket holds no more than 107 bytes.
    """

    name = "dockerd"

    def __init__(self, folder: Path, root: Path) -> None:
        super().__init__(folder, root)
        self._short = Path(tempfile.mkdtemp(prefix="bench-docker-"))
        self.env = {"DOCKER_HOST": f"unix://{self._short}/socket", "DOCKER_CONFIG": str(folder)}

    @staticmethod
    def version() -> str | None:
        return tell("dockerd", "--version")

    def command(self) -> Sequence[str | Path]:
        config = self.folder / "daemon.json"
        config.write_text("{}")  # and not the machine's
        words: list[str | Path] = [
            find(self.name) or self.name,
            "--config-file",
            config,
            "--host",
            self.env["DOCKER_HOST"],
        ]
        words += ["--pidfile", self._short / "pid", "--data-root", self.root, "--exec-root", self._short / "exec"]
        return [*words, "--iptables=false", "--bridge=none", "--insecure-registry", "127.0.0.0/8"]

    def _is_ready(self) -> bool:
        asked = [find("docker") or "docker", "--host", self.env["DOCKER_HOST"], "info"]
        return subprocess.run(asked, capture_output=True, check=False).returncode == 0

    def _end(self) -> None:
        super()._end()
        mounted = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
        for mount in reversed(mounted):
            if Path(mount).is_relative_to(self._short) or Path(mount).is_relative_to(self.root):
                subprocess.run(["umount", mount], check=True)
        shutil.rmtree(self._short)


class Relay(Telling):
    """A link to a port of this machine, far away; see `bench.client.relay`."""

    name = "relay"

    def __init__(self, folder: Path, port: int) -> None:
        super().__init__(folder, folder)
        self._target = port

    def command(self) -> Sequence[str | Path]:
        program = Path(__file__).with_name("relay.py")
        return [sys.executable, "-P", program, str(self._target), str(RATE), str(DELAY)]
