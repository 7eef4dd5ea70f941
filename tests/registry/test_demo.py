"""The demo shows all of it on any machine, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.registry.test_sample import INDEX
from tests.support.docker import DockerEngine
from tests.support.images import pull_image
from tests.support.processes import program


@asynccontextmanager
async def demo(folder: Path, *words: str, **variables: str) -> AsyncIterator[asyncio.subprocess.Process]:
    environment = {**os.environ, "TMPDIR": str(folder), "PYTHONUNBUFFERED": "1", **variables}
    process = await asyncio.create_subprocess_exec(
        *program("registry"), "demo", *words, stdout=-1, stderr=-1, env=environment
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
            await process.communicate()


async def test_once_shows_everything_and_ends(tmp_path: Path):
    async with demo(tmp_path, "--once") as process:
        out, err = (each.decode() for each in await process.communicate())
    assert (process.returncode, err) == (0, "")
    assert "/diamol/ch03-web-ping:latest for linux/amd64, linux/arm64" in out
    assert out.count("fetched\n") == 4 + 1
    assert f"diamol/ch03-web-ping:latest: {INDEX}, 3.19 MB fetched" in out
    assert "verified: all 7 files" in out
    assert "COPY app.js ." in out
    assert "TARGET=blog.sixeyed.com" in out
    assert "docker pull 127.0.0.1:" in out
    assert list(tmp_path.iterdir()) == []


async def serving(process: asyncio.subprocess.Process) -> str:
    """Waits until the demo serves on, and gives the registry's host."""
    host = ""
    async for line in process.stdout:
        if line.startswith(b"serving http://"):
            host = line.decode().split()[1].removeprefix("http://").rstrip(",")
        if line == b"serving until Ctrl-C\n":
            return host
    raise AssertionError((await process.communicate())[1].decode())


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
async def test_it_serves_until_it_is_told_to_end_and_takes_everything_with_it(tmp_path: Path, end: signal.Signals):
    async with demo(tmp_path) as process:
        host = await serving(process)
        pulled = await asyncio.to_thread(pull_image, host, "diamol/ch03-web-ping", "latest")
        assert (next(iter(pulled)), len(pulled)) == (INDEX, 10)
        process.send_signal(end)
        _, err = await process.communicate()
    assert process.returncode == 0
    assert b'http.request.uri="/v2/diamol/ch03-web-ping/manifests/latest"' in err
    assert b"Traceback" not in err
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ConnectionRefusedError), socket.create_connection(tuple(host.split(":"))):
        pass


async def test_a_port_5000_that_is_taken_is_no_hindrance(tmp_path: Path):
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Where this fails, somebody else takes it.
        with contextlib.suppress(OSError):
            taken.bind(("127.0.0.1", 5000))
            taken.listen()
        async with demo(tmp_path, "--once") as process:
            out, _ = await process.communicate()
    assert process.returncode == 0
    assert b"serving http://127.0.0.1:5000," not in out


async def test_a_registry_that_does_not_start_is_one_clear_line(tmp_path: Path):
    async with demo(tmp_path, "--once", REGISTRY_LOG_LEVEL="nonsense") as process:
        _, err = await process.communicate()
    assert process.returncode == 1
    assert err.startswith(b"registry: the registry did not start: ")
    assert err.count(b"\n") == 1


@pytest.mark.peer("docker")
async def test_a_real_docker_engine_pulls_what_it_serves(tmp_path: Path, docker_engine: DockerEngine):
    async with demo(tmp_path) as process:
        name = f"{await serving(process)}/diamol/ch03-web-ping"
        await asyncio.to_thread(docker_engine, "pull", name)
        shown = await asyncio.to_thread(docker_engine, "image", "inspect", name)
        await asyncio.to_thread(docker_engine, "rmi", name)
    assert "TARGET=blog.sixeyed.com" in shown
    assert INDEX in shown
