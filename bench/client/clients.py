"""The clients that are measured, each with a folder of its own, and what one command of theirs costs.

What they do for one pull is not the same. pullclient and skopeo verify every digest, and sync what they write; crane
verifies and does not sync; docker also unpacks every layer, into its engine's own store.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import ClassVar

from bench.client.image import Image
from bench.client.servers import Engine
from bench.servers import find, tell

_LAUNCH = Path(__file__).with_name("launch.py")
_PATIENCE = 900  # seconds
Command = Sequence[str | Path]


@dataclass(frozen=True, slots=True)
class Cost:
    """What a command took: seconds on the clock, CPU seconds (user and system), and bytes of memory at its peak.

    The processes it started and waited for are in it. `memory` is None where an engine does the work.
    """

    wall: float
    cpu: float
    memory: int | None


class Client:
    """A program that pulls images into `held`, which is empty after `forget`."""

    name: ClassVar[str]

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.held = folder / "held"
        self.log = folder / "log"
        # Nothing that the machine's user set up, or once fetched, is to count.
        self.env = {**os.environ, "HOME": str(folder), "XDG_CACHE_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
        folder.mkdir(parents=True)

    @classmethod
    def program(cls) -> str | None:
        return find(cls.name)

    @classmethod
    def version(cls) -> str | None:
        """Returns the version that the program tells, or None where it cannot take part."""
        return tell(cls.name, "--version")

    def pull(self, reference: str) -> Command:
        """Returns the words that follow the program's name."""
        raise NotImplementedError

    def forget(self) -> None:
        shutil.rmtree(self.held, ignore_errors=True)

    def holds(self, image: Image) -> bool:
        names = {layer.digest.partition(":")[2]: layer.size for layer in image.layers}
        found = [path for path in self.held.rglob("*") if names.get(path.name) == path.stat().st_size]
        return len(found) == len(names)

    def run(self, words: Command) -> Cost:
        """Runs the program; raises RuntimeError with what it wrote where it does not end well."""
        command = [sys.executable, "-I", "-S", _LAUNCH, str(_PATIENCE), self.program() or self.name, *words]
        with self.log.open("wb") as log:
            told = subprocess.run(command, env=self.env, stdout=subprocess.PIPE, stderr=log, check=True).stdout
        status, wall, cpu, memory = map(float, told.split())
        if status:
            raise RuntimeError(f"{self.name} ended with {status:.0f}:\n{self.log.read_text()[-2000:]}")
        return Cost(wall, cpu, int(memory) * 1024)


class Pullclient(Client):
    name = "pullclient"

    @classmethod
    def program(cls) -> str | None:
        return str(Path(sys.executable).with_name(cls.name))

    @classmethod
    def version(cls) -> str | None:
        libraries = ", ".join(f"{name} {version(name)}" for name in ("httpx", "httpcore"))
        return f"{version('layerhouse')} (Python {platform.python_version()}, {libraries})"

    def pull(self, reference: str) -> Command:
        return ["pull", "-q", "--cache", self.held, reference]


class Skopeo(Client):
    name = "skopeo"

    def pull(self, reference: str) -> Command:
        source, target = f"docker://{reference}", f"oci:{self.held}:pulled"
        return ["--insecure-policy", "copy", "--src-tls-verify=false", source, target]


class Crane(Client):
    name = "crane"

    @classmethod
    def version(cls) -> str | None:
        return tell(cls.name, "version")

    def pull(self, reference: str) -> Command:
        return ["pull", "--insecure", "--format=oci", reference, self.held]


class Docker(Client):
    """The CPU seconds are those of its engine, which runs for it alone."""

    name = "docker"

    def __init__(self, folder: Path, engine: Engine) -> None:
        super().__init__(folder)
        self._engine = engine
        self.env = {**self.env, **engine.env}

    @classmethod
    def version(cls) -> str | None:
        return Engine.version() if cls.program() and os.geteuid() == 0 else None

    def pull(self, reference: str) -> Command:
        return ["pull", reference]

    def forget(self) -> None:
        super().run(["image", "prune", "--all", "--force"])

    def holds(self, image: Image) -> bool:
        super().run(["image", "ls", "--quiet"])
        return bool(self.log.read_bytes())

    def run(self, words: Command) -> Cost:
        before = self._engine.cpu()
        cost = super().run(words)
        return Cost(cost.wall, cost.cpu + self._engine.cpu() - before, None)
