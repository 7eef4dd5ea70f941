"""A real Docker engine whose registry-mirror is ours, before an upstream that plays Docker Hub."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from tests.support.docker import DockerEngine
from tests.support.processes import RegistryProcess

NAME = "diamol/ch03-web-ping"


@pytest.mark.peer("docker", "busybox")
@pytest.mark.parametrize("workers", [1, 2])
def test_docker_pulls_through_the_mirror_cold_warm_and_with_the_upstream_stopped(
    docker_engine: DockerEngine, busybox_image: str, registry_server: Callable[..., RegistryProcess], workers: int
) -> None:
    upstream = registry_server()
    pushed = f"{upstream.host}/{NAME}:latest"
    docker_engine("tag", busybox_image, pushed)
    docker_engine("push", pushed)
    docker_engine("rmi", pushed)
    before = len(upstream.log(1 << 20))
    mirror = registry_server(workers=workers, env={"REGISTRY_PROXY_REMOTEURL": upstream.url})
    with DockerEngine(mirror=mirror.url) as engine:
        for _ in ("cold", "warm"):
            assert "Pull complete" in engine("pull", NAME)
            assert engine("run", "--rm", "--network", "none", NAME) == "TARGET=blog.sixeyed.com"
            engine("rmi", NAME)
        asked = [line for line in upstream.log(1 << 20)[before:].splitlines() if "/blobs/sha256:" in line]
        blobs = Counter(line.split("/blobs/")[1][:71] for line in asked if "GET" in line)
        assert blobs
        assert set(blobs.values()) == {1}
        upstream.stop()
        assert "Pull complete" in engine("pull", NAME)
