"""A real Docker engine of the test's own."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Self

from tests.support.peers import find
from tests.support.processes import run

READY_WITHIN = 60.0  # seconds
BUSYBOX = "/bin/busybox"
DOCKERFILE = """\
FROM scratch
COPY bin /bin
COPY etc /etc
ENV TARGET=blog.sixeyed.com
CMD ["/bin/busybox", "sh", "-c", "echo TARGET=$TARGET"]
"""


class DockerEngine:
    """`dockerd` with folders, socket and process id of its own; call it with the words of a docker command.

    It lies in a short temporary folder, since the path of a UNIX socket holds no more than 107 bytes.
    """

    def __init__(self, mirror: str | None = None) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="lh-docker-"))
        self._mirror = ["--registry-mirror", mirror] if mirror else []
        self._process: subprocess.Popen[bytes] | None = None

    def __call__(self, *words: str) -> str:
        folder = self.folder
        env = {"DOCKER_HOST": f"unix://{folder}/docker.sock", "DOCKER_CONFIG": f"{folder}/cli", "DOCKER_BUILDKIT": "0"}
        return run("docker", *words, env=env)

    def __enter__(self) -> Self:
        folder = self.folder
        command = [find("dockerd") or "dockerd", "--host", f"unix://{folder}/docker.sock", "--pidfile", f"{folder}/pid"]
        command += ["--data-root", f"{folder}/data", "--exec-root", f"{folder}/exec", *self._mirror]
        command += ["--iptables=false", "--bridge=none", "--insecure-registry", "127.0.0.0/8"]
        with (folder / "log").open("wb") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            self._await_ready()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _await_ready(self) -> None:
        deadline = time.monotonic() + READY_WITHIN
        while True:
            try:
                self("info")
            except RuntimeError as error:
                if self._process is None or self._process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"dockerd is not ready: {error}\n{(self.folder / 'log').read_text()}") from error
                time.sleep(0.1)
            else:
                return

    def close(self) -> None:
        """End the engine by its own process id, and remove its folder with whatever it left mounted there."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
        for mount in reversed([mount for mount in mounts if mount.startswith(f"{self.folder}/")]):
            run("umount", mount)
        shutil.rmtree(self.folder)

    def build_busybox(self, name: str) -> str:
        """Build the small real image: two layers, and a container that prints its TARGET."""
        context = self.folder / "context"
        for part in ("bin", "etc"):
            (context / part).mkdir(parents=True)
        shutil.copy(BUSYBOX, context / "bin" / "busybox")
        (context / "etc" / "motd").write_text("a small real image\n")
        (context / "Dockerfile").write_text(DOCKERFILE)
        self("build", "--tag", name, str(context))
        return name
