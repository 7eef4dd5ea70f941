"""A real Docker engine against our registry."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.support.docker import DockerEngine
from tests.support.images import pull_image
from tests.support.processes import RegistryProcess

pytestmark = pytest.mark.peer("docker", "busybox")


def test_docker_pushes_an_image_and_runs_what_it_pulls_back(
    docker_engine: DockerEngine, busybox_image: str, registry_server: Callable[..., RegistryProcess]
) -> None:
    server = registry_server()
    name = f"{server.host}/diamol/ch03-web-ping:latest"
    docker_engine("tag", busybox_image, name)
    docker_engine("push", name)
    image_id = docker_engine("image", "inspect", "--format", "{{.Id}}", name)
    docker_engine("rmi", name)
    # The layers stay in the engine as long as another image has them: pulled they are only when it goes too.
    docker_engine("rmi", "--force", busybox_image)
    assert "Pull complete" in docker_engine("pull", name)
    assert docker_engine("image", "inspect", "--format", "{{.Id}}", name) == image_id
    docker_engine("tag", name, busybox_image)
    assert docker_engine("run", "--rm", "--network", "none", name) == "TARGET=blog.sixeyed.com"
    told = docker_engine("run", "--rm", "--network", "none", "--env", "TARGET=google.com", name)
    assert told == "TARGET=google.com"
    docker_engine("rmi", name)


def test_docker_pushes_shared_layers_once_and_pulls_by_digest(
    docker_engine: DockerEngine, busybox_image: str, registry_server: Callable[..., RegistryProcess]
) -> None:
    server = registry_server(workers=2)
    first, second = f"{server.host}/team/first:1", f"{server.host}/team/second:1"
    for name in (first, second):
        docker_engine("tag", busybox_image, name)
    docker_engine("push", first)
    assert "Mounted from team/first" in docker_engine("push", second)
    digest = next(iter(pull_image(server.host, "team/second", "1")))
    docker_engine("rmi", first, second)
    pinned = f"{server.host}/team/second@{digest}"
    assert digest in docker_engine("pull", pinned)
    docker_engine("rmi", pinned)
