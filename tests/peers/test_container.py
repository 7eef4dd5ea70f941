"""The image is built from a base made on the spot, started by a real engine, and used as registry:2 is."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.support.base import import_debian
from tests.support.docker import DockerEngine
from tests.support.processes import REPOSITORY_ROOT, run

pytestmark = [pytest.mark.peer("docker", "debootstrap"), pytest.mark.timeout(600)]
IMAGE, BASE, CONTAINER, VOLUME = "layerhouse-test/registry:1", "layerhouse-test/base:1", "layerhouse-test", "images"
CONFIG = "/etc/docker/registry/config.yml"


@pytest.fixture(scope="module")
def image(docker_engine: DockerEngine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    base = import_debian(docker_engine, tmp_path_factory.mktemp("base"), BASE)
    words = ("--network", "host", "--build-arg", f"BASE={base}", "--tag", IMAGE)
    docker_engine("build", *words, str(REPOSITORY_ROOT))
    yield IMAGE
    docker_engine("rmi", "--force", IMAGE, BASE)


@pytest.fixture
def address(docker_engine: DockerEngine, image: str) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    start(docker_engine, image, address)
    yield address
    docker_engine("rm", "--force", "--volumes", CONTAINER)
    docker_engine("volume", "rm", VOLUME)


def start(engine: DockerEngine, image: str, address: str, *words: str) -> None:
    listen, volume = f"REGISTRY_HTTP_ADDR={address}", f"{VOLUME}:/var/lib/registry"
    engine("run", "--detach", "--name", CONTAINER, "--network", "host", "-e", listen, "-v", volume, image, *words)
    deadline = time.monotonic() + 60
    while True:
        try:
            engine("exec", CONTAINER, "registry", "healthcheck")
        except RuntimeError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
        else:
            return


def test_it_is_pushed_to_and_pulled_from_and_keeps_its_images(
    docker_engine: DockerEngine, image: str, address: str, busybox_image: str
) -> None:
    name = f"{address}/team/busybox:1"
    docker_engine("tag", busybox_image, name)
    docker_engine("push", name)
    docker_engine("rmi", name)
    docker_engine("stop", CONTAINER)
    assert docker_engine("inspect", "--format", "{{.State.ExitCode}}", CONTAINER) == "0"
    docker_engine("rm", CONTAINER)
    # A config file alone, as compose files for registry:2 have it.
    start(docker_engine, image, address, CONFIG)
    docker_engine("pull", name)
    assert docker_engine("run", "--rm", "--network", "none", name) == "TARGET=blog.sixeyed.com"
    docker_engine("rmi", name)


def test_it_is_not_root_and_collects_garbage_by_the_words_of_registry_2(
    docker_engine: DockerEngine, address: str
) -> None:
    assert docker_engine("exec", CONTAINER, "id", "-u") != "0"
    assert docker_engine("exec", CONTAINER, "/bin/registry", "--version").startswith("registry ")
    settings = docker_engine("exec", CONTAINER, "registry", "config", CONFIG)
    assert (address in settings, "/var/lib/registry" in settings) == (True, True)


def test_the_image_is_small_beside_its_base(docker_engine: DockerEngine, image: str) -> None:
    layers = json.loads(docker_engine("inspect", "--format", "{{json .RootFS.Layers}}", image))
    base = json.loads(docker_engine("inspect", "--format", "{{json .RootFS.Layers}}", BASE))
    assert layers[: len(base)] == base
    grown = int(docker_engine("inspect", "--format", "{{.Size}}", image))
    assert grown - int(docker_engine("inspect", "--format", "{{.Size}}", BASE)) < 120_000_000


@pytest.mark.peer("docker-compose")
def test_docker_compose_takes_the_file(tmp_path: Path) -> None:
    words = ("--file", str(REPOSITORY_ROOT / "docker-compose.yml"), "--profile", "mirror", "--profile", "tls", "config")
    services = yaml.safe_load(run("docker-compose", *words, env={"HOME": str(tmp_path)}))["services"]
    assert {name: each.get("profiles", []) for name, each in services.items()} == {
        "registry": [],
        "mirror": ["mirror"],
        "tls": ["tls"],
    }
