"""Real clients at a registry that is strict with each of them: what they do side by side waits, and nothing fails."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.docker import DockerEngine
from tests.support.processes import RegistryProcess, run

LAYERS = 6


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("strict")
    config = folder / "config.yml"
    limits = {"limits": {"perclient": 1}}
    config.write_text(json.dumps({"version": "0.1", "storage": {"filesystem": {}}, "layerhouse": limits}))
    server = RegistryProcess(folder / "root", log=folder / "log", args=[str(config)])
    server.start()
    yield server.host
    print(server.log())
    server.stop()


@pytest.mark.peer("docker", "busybox")
def test_docker_pushes_and_pulls_many_layers_with_one_request_at_a_time(
    host: str, docker_engine: DockerEngine, busybox_image: str, tmp_path: Path
) -> None:
    name = f"{host}/strict/app:1"
    for number in range(LAYERS):
        (tmp_path / f"layer-{number}").write_bytes(hashlib.sha256(b"%d" % number).digest() * 30_000)
    lines = [f"FROM {busybox_image}", *(f"COPY layer-{number} /" for number in range(LAYERS))]
    (tmp_path / "Dockerfile").write_text("\n".join(lines))
    docker_engine("build", "--tag", name, str(tmp_path))
    docker_engine("push", name)
    docker_engine("rmi", name)
    assert "Downloaded newer image" in docker_engine("pull", name)
    docker_engine("rmi", name)


@pytest.mark.peer("skopeo", "docker", "busybox")
def test_skopeo_copies_with_one_request_at_a_time(
    host: str, docker_engine: DockerEngine, busybox_image: str, tmp_path: Path
) -> None:
    name = f"{host}/strict/copied:1"
    docker_engine("tag", busybox_image, name)
    docker_engine("push", name)
    docker_engine("rmi", name)
    run("skopeo", "copy", "--src-tls-verify=false", f"docker://{name}", f"dir:{tmp_path / 'copy'}")
