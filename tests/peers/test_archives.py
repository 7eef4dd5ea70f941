"""Archives that docker and skopeo make are imported and pulled by them; those that are exported are read by them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.peers.test_skopeo_podman import digest_of, skopeo_copy, two_platforms
from tests.support.docker import DockerEngine
from tests.support.processes import REPOSITORY_ROOT, RegistryProcess, program, run

Serve = Callable[..., RegistryProcess]


def registry(*words: str | Path) -> str:
    return run(*program("registry"), *map(str, words), env={"PYTHONPATH": str(REPOSITORY_ROOT)})


def image_id(docker: DockerEngine, name: str) -> str:
    return docker("image", "inspect", "--format", "{{.Id}}", name)


@pytest.mark.peer("docker", "busybox")
def test_what_docker_saves_is_imported_and_pulled_by_docker_as_the_same_image(
    docker_engine: DockerEngine, busybox_image: str, registry_server: Serve, tmp_path: Path
) -> None:
    server = registry_server()
    docker_engine("save", "--output", str(tmp_path / "docker.tar"), busybox_image)
    assert f"\n{busybox_image}: sha256:" in registry("import-archive", tmp_path / "docker.tar", "--root", server.root)
    name = f"{server.host}/{busybox_image}"
    docker_engine("pull", name)
    assert image_id(docker_engine, name) == image_id(docker_engine, busybox_image)
    docker_engine("rmi", name)


@pytest.mark.peer("docker", "busybox")
def test_what_is_exported_for_docker_is_loaded_by_docker_as_the_same_image(
    docker_engine: DockerEngine, busybox_image: str, registry_server: Serve, tmp_path: Path
) -> None:
    server, name, archive = registry_server(), "127.0.0.1:9/team/exported:1", tmp_path / "out.tar"
    docker_engine("tag", busybox_image, f"{server.host}/team/exported:1")
    docker_engine("push", f"{server.host}/team/exported:1")
    registry("export-archive", "team/exported:1", "-o", archive, "--format", "docker", "--root", server.root,
             "--host", "127.0.0.1:9")  # fmt: skip
    assert f"Loaded image: {name}" in docker_engine("load", "--input", str(archive))
    assert image_id(docker_engine, name) == image_id(docker_engine, busybox_image)
    assert docker_engine("run", "--rm", "--network", "none", name) == "TARGET=blog.sixeyed.com"
    docker_engine("rmi", name, f"{server.host}/team/exported:1")


@pytest.mark.peer("skopeo")
def test_what_skopeo_archives_is_imported_with_its_digest_and_copied_by_skopeo(
    registry_server: Serve, tmp_path: Path
) -> None:
    first, second = registry_server(), registry_server()
    digest = two_platforms(first.host, "team/app", "1")
    archive = tmp_path / "oci.tar"
    skopeo_copy(f"docker://{first.host}/team/app:1", f"oci-archive:{archive}:a.example/moved/app:2", "--all")
    registry("import-archive", archive, "--root", second.root)
    assert digest_of(second.host, "moved/app", "2") == digest
    skopeo_copy(f"docker://{second.host}/moved/app:2", f"oci:{tmp_path / 'layout'}:x", "--all")
    index = json.loads((tmp_path / "layout/index.json").read_text())
    assert [each["digest"] for each in index["manifests"]] == [digest]


@pytest.mark.peer("skopeo")
def test_what_is_exported_is_read_by_skopeo_with_its_digests(registry_server: Serve, tmp_path: Path) -> None:
    server, archive = registry_server(), tmp_path / "out.tar"
    digest = two_platforms(server.host, "team/app", "1")
    registry("export-archive", "team/app:1", "team/app:1-arm64", "-o", archive, "--root", server.root)
    skopeo_copy(f"oci-archive:{archive}:localhost/team/app:1", f"docker://{server.host}/read/app:1", "--all")
    assert digest_of(server.host, "read/app", "1") == digest
    skopeo_copy(f"oci-archive:{archive}:localhost/team/app:1-arm64", f"docker://{server.host}/read/app:arm64")
    assert digest_of(server.host, "read/app", "arm64") == digest_of(server.host, "team/app", "1-arm64")
