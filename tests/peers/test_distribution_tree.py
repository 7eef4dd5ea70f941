"""The tree on disk is CNCF Distribution's: either registry serves what the other wrote, without moving a byte."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest

from tests.support.docker import DockerEngine
from tests.support.images import ACCEPT, DOCKER_LIST, Wire, pull_image, push_image, push_index, tar_layer
from tests.support.processes import DistributionProcess, RegistryProcess, Server

pytestmark = pytest.mark.peer("docker", "busybox", "docker-registry")

Serve = Callable[..., RegistryProcess]
Distribution = Callable[[Path], DistributionProcess]
TAGS = {"diamol/ch03-web-ping": ["amd64", "arm64", "latest"], "diamol/mounted": ["1"], "plain": ["1", "2"]}


def fill(host: str, engine: DockerEngine, image: str) -> None:
    """Write with real clients what a tree can hold: an index, tags, a moved tag, two repositories sharing blobs."""
    repo = "diamol/ch03-web-ping"
    for name in (f"{host}/{repo}:amd64", f"{host}/diamol/mounted:1"):
        engine("tag", image, name)
        engine("push", name)
        engine("rmi", name)
    amd64 = next(iter(pull_image(host, repo, "amd64")))
    arm64 = push_image(host, repo, "arm64", [tar_layer("etc/motd", b"for arm64\n")], architecture="arm64")
    push_index(host, repo, "latest", {"amd64": amd64, "arm64": arm64}, media_type=DOCKER_LIST)
    shared = tar_layer("shared", b"in two images" * 1000)
    push_image(host, "plain", "1", [shared])
    push_image(host, "plain", "2", [b"a tag that is moved"])
    push_image(host, "plain", "2", [shared, tar_layer("own", b"of the second")])


def tree(root: Path) -> dict[str, str]:
    """Path → SHA-256 of every file of Distribution's tree."""
    top = root / "docker" / "registry" / "v2"
    files = [path for path in top.rglob("*") if path.is_file()]
    return {str(path.relative_to(top)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def served(host: str) -> dict[str, Any]:
    """All that a client can see: lists, manifests by tag and by digest, blobs, every digest checked."""
    with Wire(host) as wire:
        tags = {
            repo: sorted(listed(wire, f"{repo}/tags/list", "tags")) for repo in listed(wire, "_catalog", "repositories")
        }
        seen: dict[str, Any] = {"tags": tags}
        for repo, reference in ((repo, tag) for repo, names in tags.items() for tag in names):
            for part in (reference, *pull_image(host, repo, reference)):
                manifest = wire.ask("GET", f"/v2/{repo}/manifests/{part}", Accept=ACCEPT)
                if manifest.status == HTTPStatus.OK:
                    seen[f"{repo}:{part}"] = (manifest.headers["content-type"], manifest.body)
                else:
                    seen[f"{repo}@{part}"] = wire.ask("GET", f"/v2/{repo}/blobs/{part}", expect=200).body
    return seen


def listed(wire: Wire, path: str, key: str) -> list[str]:
    return list(json.loads(wire.ask("GET", f"/v2/{path}", expect=200).body)[key])


def assert_docker_runs(engine: DockerEngine, image: str, server: Server) -> None:
    """Pull the index and run the child of this machine's platform, none of whose layers the engine has."""
    name = f"{server.host}/diamol/ch03-web-ping:latest"
    engine("rmi", "--force", image)
    assert "Pull complete" in engine("pull", name)
    engine("tag", name, image)
    assert engine("run", "--rm", "--network", "none", "--env", "TARGET=google.com", name) == "TARGET=google.com"
    engine("rmi", name)


def test_a_tree_written_by_distribution_is_served_unchanged(
    docker_engine: DockerEngine, busybox_image: str, registry_server: Serve, distribution: Distribution, tmp_path: Path
) -> None:
    root = tmp_path / "theirs"
    writer = distribution(root)
    fill(writer.host, docker_engine, busybox_image)
    expected = served(writer.host)
    assert expected["tags"] == TAGS
    writer.stop()
    before = tree(root)
    ours = registry_server(root)
    assert served(ours.host) == expected
    assert_docker_runs(docker_engine, busybox_image, ours)
    ours.stop()
    assert tree(root) == before


def test_a_tree_written_by_ours_is_served_by_distribution(
    docker_engine: DockerEngine, busybox_image: str, registry_server: Serve, distribution: Distribution, tmp_path: Path
) -> None:
    root = tmp_path / "ours"
    writer = registry_server(root)
    fill(writer.host, docker_engine, busybox_image)
    expected = served(writer.host)
    assert expected["tags"] == TAGS
    writer.stop()
    theirs = distribution(root)
    assert served(theirs.host) == expected
    assert_docker_runs(docker_engine, busybox_image, theirs)


def test_both_registries_take_turns_on_one_tree(
    registry_server: Serve, distribution: Distribution, tmp_path: Path
) -> None:
    root = tmp_path / "both"
    layer = tar_layer("kept", b"by both" * 1000)
    digests = {}
    for turn in range(4):
        server = registry_server(root) if turn % 2 else distribution(root)
        digests[turn] = push_image(server.host, "turns", f"t{turn}", [layer, f"turn {turn}".encode()])
        for earlier, digest in digests.items():
            assert next(iter(pull_image(server.host, "turns", f"t{earlier}"))) == digest
        if turn:
            with Wire(server.host) as wire:
                wire.ask("DELETE", f"/v2/turns/manifests/{digests.pop(turn - 1)}", expect=202)
                wire.ask("GET", f"/v2/turns/manifests/t{turn - 1}", expect=404)
        server.stop()
