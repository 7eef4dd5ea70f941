"""Every command of docs/api.md is run, as it stands there; addresses and folders alone are the test's own."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.images import pull_image, push_image, push_index, tar_layer
from tests.support.processes import REPOSITORY_ROOT, RegistryProcess, program

TEXT = (REPOSITORY_ROOT / "docs/api.md").read_text()
BLOCKS = re.findall(r"```(sh|json)\n(.*?)```", TEXT, re.DOTALL)
CURLS = [(code.strip(), after) for (kind, code), (_, after) in zip(BLOCKS, [*BLOCKS[1:], ("", "")], strict=True)
         if kind == "sh" and code.startswith("curl")]  # fmt: skip
COMMANDS = [line for kind, code in BLOCKS for line in code.splitlines() if kind == "sh" and line.startswith("registry")]


def shape(value: Any) -> Any:
    """What a value is made of: its members, and the types of theirs."""
    if isinstance(value, dict):
        return {name: shape(each) for name, each in value.items()}
    if isinstance(value, list):
        return [shape(each) for each in value]
    return type(value).__name__


def pushed(host: str) -> str:
    shared, platforms = tar_layer("shared", b"the same everywhere" * 100), {}
    for architecture in ("amd64", "arm64"):
        layers = [shared, tar_layer("own", architecture.encode() * 500)]
        platforms[architecture] = push_image(host, "team/app", "of-one", layers, architecture=architecture)
    digest = push_index(host, "team/app", "1.0", platforms)
    subprocess.run(
        ["curl", "-sf", "-X", "DELETE", f"http://{host}/v2/team/app/manifests/of-one"], check=True, timeout=60
    )
    return digest


@pytest.mark.peer("curl")
def test_what_is_asked_is_answered_as_the_page_says(registry_server: Callable[..., RegistryProcess]) -> None:
    server = registry_server()
    pushed(server.host)
    assert [code for code, _ in CURLS if "DELETE" in code] == [CURLS[-1][0]]
    for code, told in CURLS:
        command = code.replace("127.0.0.1:5000", server.host)
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True, timeout=60)
        if code != CURLS[-1][0]:
            assert shape(json.loads(done.stdout)) == shape(json.loads(told)), code
    asked = f"curl -s http://{server.host}/v2/_catalog"
    assert json.loads(subprocess.check_output(["bash", "-c", asked], timeout=60)) == {"repositories": []}


def test_images_move_as_the_page_says(registry_server: Callable[..., RegistryProcess], tmp_path: Path) -> None:
    digest = pushed(registry_server(root=tmp_path / "images").host)
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY_ROOT)}
    for line in COMMANDS:
        words = [*program("registry"), *line.split()[1:]]
        done = subprocess.run(
            words,
            cwd=tmp_path,
            env=env,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done
    there = registry_server(root=tmp_path / "elsewhere").host
    assert next(iter(pull_image(there, "team/app", "1.0"))) == digest
    assert next(iter(pull_image(there, "team/renamed", "2"))) == digest
    assert (tmp_path / "docker.tar").stat().st_size
