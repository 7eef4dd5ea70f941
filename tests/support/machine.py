"""A machine with files of docker, containerd and containers, for tests of how hosts are reached."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from client.hosts.endpoint import Endpoint
from client.hosts.hosts import Folders, Hosts
from ocispec.reference import Reference


class Machine:
    """Its folders: `etc` and the user's `config`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folders = Folders(user=root / "config", system=root / "etc")
        self.environ: dict[str, str] = {}

    def write(self, path: str, text: str = "") -> Path:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    def hosts(self, **options: Any) -> Hosts:
        return Hosts(folders=self.folders, environ=self.environ, **options)

    def endpoints(self, image: str, **options: Any) -> tuple[Endpoint, ...]:
        """What is asked for an image, in order."""
        reference = Reference.parse(image)
        return asyncio.run(self.hosts(**options).endpoints(reference.host, reference.repository))

    def places(self, image: str, **options: Any) -> list[str]:
        """The same, each as its API, repository and `ns`, where one is told."""
        return [
            f"{each.api}/{each.repository}" + (f"?ns={each.namespace}" if each.namespace else "")
            for each in self.endpoints(image, **options)
        ]
