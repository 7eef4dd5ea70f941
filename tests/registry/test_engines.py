"""Where images lie: in a folder, or in the memory of the one process that serves."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from registry import engines
from registry.config import Settings
from registry.config.values import ConfigError
from storage.files import FilesEngine
from storage.memory import MemoryEngine
from tests.support.images import sha256
from tests.support.processes import Server

CONFIG = "version: 0.1\nstorage: {inmemory: {}, delete: {enabled: true}}\nhttp: {addr: '127.0.0.1:0'}\n"


def settings(**layerhouse: Any) -> Settings:
    return Settings.model_validate({"storage": {"inmemory": {}}, "layerhouse": layerhouse})


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "config.yml").write_text(CONFIG)
    return tmp_path / "config.yml"


@pytest.fixture
def serve(tmp_path: Path, config: Path) -> Iterator[Callable[[], Server]]:
    started: list[Server] = []

    def start() -> Server:
        command = [sys.executable, "-m", "registry", "serve", str(config)]
        server = Server(command, log=tmp_path / f"log-{len(started)}", env={"TMPDIR": str(tmp_path / "tmp")})
        started.append(server)
        server.start()
        return server

    (tmp_path / "tmp").mkdir()
    yield start
    for each in started:
        each.kill()


def test_images_in_memory_are_served_and_gone_at_the_end(serve: Callable[[], Server], tmp_path: Path) -> None:
    layer = bytes(3_000_000)
    for expected in (404, 404):
        server = serve()
        with httpx.Client(base_url=server.url, timeout=30) as client:
            digest = sha256(layer)
            assert client.get(f"/v2/image/blobs/{digest}").status_code == expected
            begun = client.post("/v2/image/blobs/uploads/").headers["location"]
            assert client.put(begun, params={"digest": digest}, content=layer).status_code == 201
            assert client.get(f"/v2/image/blobs/{digest}").content == layer
            ranged = client.get(f"/v2/image/blobs/{digest}", headers={"Range": "bytes=2000000-2000009"})
            assert (ranged.status_code, ranged.content) == (206, bytes(10))
        assert len(list((tmp_path / "tmp").iterdir())) == 1  # where what is kept beside the images lies meanwhile
        server.stop()
        assert re.search(r"images are kept in memory, up to [\d]+ MiB, and are gone at the end", server.log())
        assert list((tmp_path / "tmp").iterdir()) == []


def test_several_workers_cannot_share_the_memory_of_one(config: Path) -> None:
    command = [sys.executable, "-m", "registry", "serve", str(config), "--workers", "2"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1] == (
        "registry: storage.inmemory: images in memory are those of one process, layerhouse.workers is 2: expected 1"
    )
    with pytest.raises(ConfigError), engines.prepared(settings(workers=2)):
        pass


def test_a_state_directory_that_was_given_is_kept(tmp_path: Path) -> None:
    with engines.prepared(settings(statedirectory=tmp_path)) as prepared:
        assert prepared.state_directory == tmp_path
    with engines.prepared(settings()) as prepared:
        state = prepared.state_directory
        assert state.is_dir()
    assert not state.exists()
    assert tmp_path.is_dir()


def test_images_in_a_folder_are_told_with_the_folder(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "registry")
    on_disk = Settings.model_validate({"storage": {"filesystem": {"rootdirectory": tmp_path / "images"}}})
    with engines.prepared(on_disk) as prepared:
        assert prepared is on_disk
    assert f"images are kept in {tmp_path / 'images'}" in caplog.text
    assert isinstance(engines.engine(on_disk), FilesEngine)
    assert isinstance(engines.engine(settings()), MemoryEngine)


@pytest.mark.parametrize(("told", "bound"), [("8000000\n", 4_000_000), ("max\n", None), (None, None)])
def test_half_of_what_a_container_may_have_is_for_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: str | None, bound: int | None
) -> None:
    if told is not None:
        (tmp_path / "memory.max").write_text(told)
    monkeypatch.setattr(engines, "_CGROUP", tmp_path / "memory.max")
    machine = int(re.search(r"MemTotal: +(\d+) kB", Path("/proc/meminfo").read_text())[1]) * 1024  # type: ignore[index]
    assert engines.half_of_memory() == (bound or pytest.approx(machine // 2, rel=0.1))
