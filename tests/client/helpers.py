"""A user's machine: home, credential files, and helper programs on its PATH."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from client.access.credentials import Credentials

HELPER = """#!{python} -IS
import json, pathlib, sys
kept, log = pathlib.Path({kept!r}), pathlib.Path({log!r})
held, text = json.loads(kept.read_text()), sys.stdin.read()
verb = sys.argv[1]
server = json.loads(text)["ServerURL"] if verb == "store" else text
with log.open("a") as file:
    file.write(f"{{verb}} {{server}}\\n")
if verb == "store":
    held[server] = json.loads(text)
elif server not in held:
    sys.exit(print("credentials not found in native keychain") or 1)
elif verb == "get":
    print(json.dumps(held[server]))
else:
    del held[server]
kept.write_text(json.dumps(held))
"""


@dataclass(frozen=True, slots=True)
class Machine:
    root: Path

    @property
    def home(self) -> Path:
        return self._folder("home")

    @property
    def docker_file(self) -> Path:
        return self._folder("home/.docker") / "config.json"

    def environ(self, **more: str) -> dict[str, str]:
        """What a command is started with; nothing of the real machine's is among its credentials."""
        return {
            "HOME": str(self.home),
            "PATH": f"{self._folder('bin')}:{os.defpath}",
            "XDG_RUNTIME_DIR": str(self._folder("run")),
            "XDG_CONFIG_HOME": str(self._folder("config")),
            **more,
        }

    def credentials(self, **more: str) -> Credentials:
        return Credentials(self.environ(**more))

    def docker(self, members: dict[str, Any]) -> None:
        self.docker_file.write_text(json.dumps(members))

    def containers(self, members: dict[str, Any]) -> None:
        (self._folder("run/containers") / "auth.json").write_text(json.dumps(members))

    def configured(self, members: dict[str, Any]) -> None:
        (self._folder("config/containers") / "auth.json").write_text(json.dumps(members))

    def program(self, name: str, text: str) -> None:
        """Puts `docker-credential-NAME` on PATH."""
        path = self._folder("bin") / f"docker-credential-{name}"
        path.write_text(text)
        path.chmod(0o755)

    def helper(self, name: str) -> None:
        """Puts a helper on PATH that keeps what it is given in a file."""
        (self.root / f"{name}.kept").write_text("{}")
        paths = {each: str(self.root / f"{name}.{each}") for each in ("kept", "log")}
        self.program(name, HELPER.format(python=sys.executable, **paths))

    def keep(self, name: str, server: str, user: str, secret: str) -> None:
        path = self.root / f"{name}.kept"
        entry = {"ServerURL": server, "Username": user, "Secret": secret}
        path.write_text(json.dumps({**json.loads(path.read_text()), server: entry}))

    def calls(self, name: str) -> list[str]:
        return (self.root / f"{name}.log").read_text().splitlines()

    def _folder(self, name: str) -> Path:
        folder = self.root / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder
