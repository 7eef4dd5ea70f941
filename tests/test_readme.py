"""Every command of the README is run, as it stands there; addresses and folders alone are the test's own."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.docker import DockerEngine
from tests.support.peers import require_peers
from tests.support.processes import REPOSITORY_ROOT, RegistryProcess, program, run

ADDRESS = "127.0.0.1:5000"
BLOCKS = re.findall(r"```sh\n(.*?)```", (REPOSITORY_ROOT / "README.md").read_text(), re.DOTALL)
COMMANDS = [line for block in BLOCKS for line in block.splitlines() if line]
INSTALLS = [line for line in COMMANDS if line.startswith("pip ")]
SERVES = [line for line in COMMANDS if line.startswith("registry ")]
USES = [line for line in COMMANDS if line.startswith(("docker ", "pullclient "))]


@pytest.fixture(scope="module")
def fresh_machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Runs a shell command in a copy of the checkout, with nothing but Python."""
    if not require_peers():
        pytest.skip("installs packages from the network: LAYERHOUSE_REQUIRE_PEERS=1 runs it")
    folder = tmp_path_factory.mktemp("newcomer")
    run("git", "clone", "-q", str(REPOSITORY_ROOT), str(folder / "layerhouse"))
    run(sys.executable, "-m", "venv", str(folder / "venv"))
    kept = {name: value for name, value in os.environ.items() if name.startswith("PIP_") or name in ("HOME", "LANG")}
    path = f"{folder}/venv/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    running: list[subprocess.Popen[str]] = []

    def start(command: str, **variables: str) -> subprocess.Popen[str]:
        started = subprocess.Popen(
            ["bash", "-c", command],
            cwd=folder / "layerhouse",
            env={**kept, "PATH": path, "PYTHONUNBUFFERED": "1", **variables},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        running.append(started)
        return started

    yield start
    for each in running:
        if each.poll() is None:
            os.killpg(each.pid, signal.SIGKILL)
        each.communicate()


def test_every_command_is_run_by_one_of_these_tests() -> None:
    assert sorted(COMMANDS) == sorted(INSTALLS + SERVES + USES)
    assert INSTALLS == ["pip install . && registry demo", "pip install '.[test]' && pytest"]
    assert len(SERVES) == 1


@pytest.mark.timeout(600)
def test_the_first_command_installs_and_shows_the_demo(
    fresh_machine: Callable[..., subprocess.Popen[str]],
) -> None:
    demo = fresh_machine(INSTALLS[0])
    assert demo.stdout
    told = []
    for line in demo.stdout:
        told.append(line)
        if "Ctrl-C" in line:
            os.killpg(demo.pid, signal.SIGINT)
            break
    rest, _ = demo.communicate(timeout=60)
    text = "".join(told) + rest
    assert "Ctrl-C" in text, text
    assert "Traceback" not in text
    assert "diamol/ch03-web-ping" in text


@pytest.mark.timeout(600)
def test_the_second_command_installs_and_passes_tests(
    fresh_machine: Callable[..., subprocess.Popen[str]],
) -> None:
    # All tests are what this very run is about: one floor shows that the command finds and passes them.
    tests = fresh_machine(INSTALLS[1], PYTEST_ADDOPTS="tests/ocispec/test_digest.py tests/storage/test_layout.py")
    text, _ = tests.communicate(timeout=500)
    assert tests.returncode == 0, text


def test_the_registry_serves_as_the_readme_says(tmp_path: Path) -> None:
    words = shlex.split(SERVES[0].replace(ADDRESS, "127.0.0.1:0").replace("./images", str(tmp_path / "images")))
    assert words[:2] == ["registry", "serve"]
    server = RegistryProcess(tmp_path / "images", log=tmp_path / "log")
    server.command = [*program("registry"), *words[1:]]
    server.start()
    assert server.stop() == 0
    assert (tmp_path / "images").is_dir()


@pytest.mark.peer("docker", "busybox")
def test_pushing_and_pulling_work_as_the_readme_says(
    docker_engine: DockerEngine,
    busybox_image: str,
    registry_server: Callable[..., RegistryProcess],
    tmp_path: Path,
) -> None:
    server = registry_server()
    docker_engine("tag", busybox_image, "busybox")
    for line in USES:
        words = shlex.split(line.replace(ADDRESS, server.host))
        if words[0] == "docker":
            docker_engine(*words[1:])
        else:
            run(*program("pullclient"), *words[1:], env={"PULLCLIENT_CACHE": str(tmp_path / "cache")})
    docker_engine("rmi", "busybox", f"{server.host}/team/busybox")
