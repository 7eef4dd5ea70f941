"""skopeo and podman against our registry, and skopeo on the cache that pullclient fills."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.docker import DockerEngine
from tests.support.images import pull_image, push_image, push_index, tar_layer
from tests.support.processes import RegistryProcess, pullclient, run

Serve = Callable[..., RegistryProcess]


def skopeo_copy(source: str, target: str, *options: str) -> None:
    tls = ["--src-tls-verify=false"] if source.startswith("docker://") else []
    tls += ["--dest-tls-verify=false"] if target.startswith("docker://") else []
    run("skopeo", "--insecure-policy", "copy", "--preserve-digests", *tls, *options, source, target)


def digest_of(host: str, repo: str, reference: str) -> str:
    """Pull all that `reference` names, every digest checked, and return its own."""
    return next(iter(pull_image(host, repo, reference)))


def two_platforms(host: str, repo: str, tag: str) -> str:
    """Push an index of amd64 and arm64 that share a layer, and return its digest."""
    shared = tar_layer("shared", b"the same everywhere" * 1000)
    platforms = {}
    for architecture in ("amd64", "arm64"):
        layers = [shared, tar_layer("own", architecture.encode() * 5000)]
        platforms[architecture] = push_image(host, repo, f"{tag}-{architecture}", layers, architecture=architecture)
    return push_index(host, repo, tag, platforms)


@pytest.mark.peer("docker", "busybox", "skopeo")
def test_skopeo_copies_a_docker_archive_in_and_an_oci_layout_out_and_in_again(
    docker_engine: DockerEngine, busybox_image: str, registry_server: Serve, tmp_path: Path
) -> None:
    host = registry_server().host
    archive, layout = tmp_path / "image.tar", tmp_path / "layout"
    docker_engine("save", "--output", str(archive), busybox_image)
    run("skopeo", "--insecure-policy", "copy", "--dest-tls-verify=false", f"docker-archive:{archive}",
        f"docker://{host}/from/archive:1")  # fmt: skip
    run("skopeo", "--insecure-policy", "copy", "--src-tls-verify=false", f"docker://{host}/from/archive:1",
        f"oci:{layout}:1")  # fmt: skip
    skopeo_copy(f"oci:{layout}:1", f"docker://{host}/from/layout:1")
    in_layout = json.loads((layout / "index.json").read_text())["manifests"][0]["digest"]
    assert digest_of(host, "from/layout", "1") == in_layout
    assert len(pull_image(host, "from/archive", "1")) == len(pull_image(host, "from/layout", "1"))


@pytest.mark.peer("skopeo")
def test_skopeo_carries_every_platform_of_an_index_out_and_in_with_its_digests(
    registry_server: Serve, tmp_path: Path
) -> None:
    host = registry_server().host
    digest = two_platforms(host, "many/platforms", "1")
    skopeo_copy(f"docker://{host}/many/platforms:1", f"oci:{tmp_path / 'layout'}:1", "--all")
    skopeo_copy(f"oci:{tmp_path / 'layout'}:1", f"docker://{host}/many/again:1", "--all")
    assert pull_image(host, "many/again", "1") == pull_image(host, "many/platforms", digest)


@pytest.mark.peer("skopeo")
def test_skopeo_reads_the_cache_of_pullclient_as_an_oci_layout(registry_server: Serve, tmp_path: Path) -> None:
    host, cache = registry_server().host, tmp_path / "cache"
    two_platforms(host, "cached/image", "1")
    for platform in ("linux/amd64", "linux/arm64"):
        pulled = pullclient("pull", "--quiet", "--platform", platform, "--cache", str(cache), f"{host}/cached/image:1")
        entries = json.loads((cache / "index.json").read_text())["manifests"]
        names = [entry.get("annotations", {}).get("org.opencontainers.image.ref.name") for entry in entries]
        name = next(name for name in names if name and "cached/image" in name)
        target = f"docker://{host}/from/cache:{platform[6:]}"
        skopeo_copy(f"oci:{cache}:{name}", target, "--override-arch", platform[6:])
        assert digest_of(host, "from/cache", platform[6:]) == digest_of(host, "cached/image", f"1-{platform[6:]}")
        assert pulled.startswith("sha256:")


@pytest.mark.peer("docker", "busybox", "podman")
def test_podman_pulls_what_docker_pushed(
    docker_engine: DockerEngine, busybox_image: str, registry_server: Serve, tmp_path: Path
) -> None:
    name = f"{registry_server().host}/diamol/ch03-web-ping:latest"
    docker_engine("tag", busybox_image, name)
    docker_engine("push", name)
    docker_engine("rmi", name)
    trust = tmp_path / "policy.json"
    trust.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    # podman refuses a run root whose path is longer than 50 characters.
    with tempfile.TemporaryDirectory(prefix="lh-podman-") as folder:
        podman = ["podman", "--root", f"{folder}/root", "--runroot", f"{folder}/run", "--storage-driver", "vfs"]
        image = run(*podman, "pull", "--quiet", "--tls-verify=false", "--signature-policy", str(trust), name)
        environment = run(*podman, "image", "inspect", "--format", "{{.Config.Env}}", name)
    assert image == docker_engine("image", "inspect", "--format", "{{.Id}}", busybox_image).removeprefix("sha256:")
    assert "TARGET=blog.sixeyed.com" in environment
