"""The examples of docs/python.md, each run as it stands, against a registry of the test's own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.support.images import push_image, tar_layer
from tests.support.processes import REPOSITORY_ROOT, RegistryProcess

EXAMPLES = re.findall(r"```python\n(.*?)```", (REPOSITORY_ROOT / "docs" / "python.md").read_text(), re.DOTALL)
EXPECTED = [
    r"sha256:[0-9a-f]{64} \S+",
    r"\w{12} \d+ was here",
    r"1",
    r"\S+web-ping:latest \S+ \d+",
    r"\S+web-ping:latest sha256:[0-9a-f]{64}",
    r"True",
    r"1 9",
    r"MANIFEST_UNKNOWN .+",
]


def test_each_example_does_what_the_page_says(registry_server: Callable[..., RegistryProcess], tmp_path: Path) -> None:
    server = registry_server()
    push_image(server.host, "diamol/ch03-web-ping", "latest", [tar_layer("motd", b"one layer")])
    assert len(EXAMPLES) == len(EXPECTED)
    for example, expected in zip(EXAMPLES, EXPECTED, strict=True):
        done = subprocess.run(
            [sys.executable, "-c", example.replace('"diamol/', f'"{server.host}/diamol/')],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY_ROOT), "PULLCLIENT_CACHE": str(tmp_path / "cache")},
            capture_output=True,
            text=True,
            check=False,
        )
        assert re.fullmatch(expected, done.stdout.strip()), (example, done.stdout, done.stderr)
