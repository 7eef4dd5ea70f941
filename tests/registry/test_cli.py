"""The command `registry` as an operator types it."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.images import Wire
from tests.support.processes import REPOSITORY_ROOT, RegistryProcess, program


def registry(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """Runs the command to its end."""
    command = [*program("registry"), *map(str, words)]
    return subprocess.run(command, cwd=REPOSITORY_ROOT, capture_output=True, text=True, timeout=60, check=False)


def complaint(*words: str | Path) -> str:
    """What is said of a mistake: one line, beside those of the log."""
    ended = registry(*words)
    (line,) = [line for line in ended.stderr.splitlines() if not line.startswith("time=")]
    assert (ended.returncode, ended.stdout) == (1, "")
    return line


def test_it_tells_its_version() -> None:
    for option in ("--version", "-v"):
        assert re.fullmatch(r"registry \d+\.\d+\.\d+\n", registry(option).stdout)


@pytest.mark.parametrize("workers", [1, 2])
def test_port_0_is_told_once_and_serves(registry_server: Callable[..., RegistryProcess], workers: int) -> None:
    server = registry_server(workers=workers)
    with Wire(server.host) as wire:
        assert wire.ask("GET", "/v2/", expect=200).body == b"{}"
    assert server.stop() == 0
    assert re.findall(r"listening on http://127\.0\.0\.1:(\d+)", server.log()) == [server.host.partition(":")[2]]


def test_an_address_that_is_taken_is_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        line = complaint("serve", "--root", tmp_path, "--addr", address)
    assert line == f"registry: cannot listen on {address}: Address already in use"


def test_an_address_of_another_machine_is_one_line(tmp_path: Path) -> None:
    line = complaint("serve", "--root", tmp_path, "--addr", "192.0.2.1:5000")
    assert line == "registry: cannot listen on 192.0.2.1:5000: Cannot assign requested address"


@pytest.mark.parametrize("addr", ["nowhere", "127.0.0.1:65536", "127.0.0.1:", "127.0.0.1:http"])
def test_what_is_no_address_is_one_line(tmp_path: Path, addr: str) -> None:
    assert f"got '{addr}'" in complaint("serve", "--root", tmp_path, "--addr", addr)


def test_a_root_that_cannot_be_used_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    for root in (file, file / "below", Path("/proc/none")):
        assert str(root) in complaint("serve", "--root", root, "--addr", "127.0.0.1:0")


def test_a_config_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    assert str(tmp_path / "config.yml") in complaint("serve", tmp_path / "config.yml")


def test_ctrl_c_ends_it_with_status_0(registry_server: Callable[..., RegistryProcess]) -> None:
    server = registry_server()
    server._process.send_signal(signal.SIGINT)
    assert server._process.wait(30) == 0
    assert "Traceback" not in server.log()
