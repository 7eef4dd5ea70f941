"""`registry mirror …`, without a registry and beside one that runs."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from registry.cli import app as commands
from tests.support.images import Wire, pull_image, push_image, push_index, sha256
from tests.support.processes import RegistryProcess

LAYERS = [bytes([65 + n]) * 300_000 for n in range(4)]
HERE = {"amd64": 0, "arm64": 1}


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("registry.mirror.removing.GRACE", 0.0)


@pytest.fixture
def upstream(registry_server: Callable[..., RegistryProcess]) -> RegistryProcess:
    server = registry_server()
    push_image(server.host, "library/one", "1", LAYERS[:2])
    return server


def mirroring(root: Path, url: str) -> Callable[..., Result]:
    """Gives what runs `registry mirror` with a configuration of two upstreams."""
    upstreams = [{"name": name, "url": url} for name in ("docker.io", "ghcr.io")]
    mirror = {"upstreams": upstreams, "default": "docker.io", "hosted": "team/**", "cap": "5MB"}
    storage = {"filesystem": {"rootdirectory": str(root / "images")}}
    file = root / "config.yml"
    file.write_text(json.dumps({"version": "0.1", "storage": storage, "layerhouse": {"mirror": mirror}}))

    def run(*words: str) -> Result:
        return CliRunner().invoke(commands, ["mirror", *words, "--config", str(file)])

    return run


@pytest.fixture
def mirror(tmp_path: Path, upstream: RegistryProcess) -> Callable[..., Result]:
    return mirroring(tmp_path, upstream.url)


def kept(mirror: Callable[..., Result]) -> Any:
    told = mirror("ls", "--json")
    assert told.exit_code == 0, told.output
    return json.loads(told.stdout)


def blobs(root: Path) -> set[str]:
    return {f"sha256:{each.parent.name}" for each in root.glob("images/docker/registry/v2/blobs/*/*/*/data")}


def test_an_image_is_brought_in_whole_and_only_once(mirror: Any, upstream: RegistryProcess, tmp_path: Path) -> None:
    told = mirror("warm", "one:1")
    assert told.exit_code == 0, told.output
    assert told.stdout.splitlines()[0].startswith("docker.io/library/one:1: sha256:")
    assert re.search(r"docker.io/library/one:1: 3 blobs fetched, 60\d{4} bytes; 0 were here\n", told.stdout)
    assert {sha256(LAYERS[0]), sha256(LAYERS[1])} < blobs(tmp_path)
    upstream.stop()
    told = mirror("warm", "docker.io/library/one:1")
    assert "docker.io/library/one:1: 0 blobs fetched, 0 bytes; 3 were here\n" in told.stdout
    table = mirror("ls").stdout.splitlines()
    assert table[0].split() == ["IMAGE", "DIGEST", "PLATFORMS", "SIZE", "LAST", "USED", "PINNED"]
    assert re.fullmatch(r"docker.io/library/one:1 +sha256:[0-9a-f]{64} +- +60\d kB +\S+Z +-", table[1])
    assert re.fullmatch(r"in all: 60\d kB of 5 MB", table[2])
    assert len(table) == 3


def test_of_an_index_those_come_that_are_wanted(mirror: Any, upstream: RegistryProcess) -> None:
    pushed = {
        name: push_image(upstream.host, "org/many", name, [LAYERS[at]], architecture=name) for name, at in HERE.items()
    }
    push_index(upstream.host, "org/many", "latest", pushed)
    told = mirror("warm", "ghcr.io/org/many", "--platform", "linux/arm64")
    assert told.exit_code == 0, told.output
    (image,) = kept(mirror)["images"]
    assert (image["platforms"], image["platformsThere"], image["tag"]) == (["linux/arm64"], 2, "latest")
    assert image["bytes"] == image["bytesWhole"]
    assert "linux/arm64 of 2" in mirror("ls").stdout
    assert mirror("warm", "ghcr.io/org/many", "--all-platforms").exit_code == 0
    assert kept(mirror)["images"][0]["platforms"] == ["linux/amd64", "linux/arm64"]
    told = mirror("warm", "ghcr.io/org/many", "--platform", "linux/s390x")
    assert (told.exit_code, told.stderr) == (
        1,
        "registry: ghcr.io/org/many: it has no image for linux/s390x: expected one of linux/amd64, linux/arm64\n",
    )


def test_what_does_not_come_is_told_and_the_rest_comes(mirror: Any, upstream: RegistryProcess) -> None:
    told = mirror("warm", "nope", "one:1")
    assert told.exit_code == 1
    assert re.fullmatch(r"registry: docker.io/library/nope: .*manifest unknown.*\n", told.stderr)
    assert "docker.io/library/one:1: 3 blobs fetched" in told.stdout
    upstream.stop()
    told = mirror("warm", "other")
    assert told.exit_code == 1
    assert re.fullmatch(r"registry: docker.io/library/other: upstream: .*\n", told.stderr)


def test_images_are_evicted_with_what_no_other_one_needs(
    mirror: Any, upstream: RegistryProcess, tmp_path: Path
) -> None:
    push_image(upstream.host, "library/one", "2", [LAYERS[1], LAYERS[2]])
    assert mirror("warm", "one:1", "one:2").exit_code == 0
    told = mirror("evict", "one:1")
    assert re.fullmatch(r"docker.io/library/one:1: 3 manifests and blobs evicted, 30\d kB\n", told.stdout), told.output
    assert {sha256(LAYERS[n]) for n in range(3)} & blobs(tmp_path) == {sha256(LAYERS[1]), sha256(LAYERS[2])}
    assert [each["tag"] for each in kept(mirror)["images"]] == ["2"]
    assert mirror("evict", "one").exit_code == 0
    assert (kept(mirror)["images"], blobs(tmp_path)) == ([], set())
    assert mirror("evict", "one").stderr == "registry: nothing of docker.io/library/one is here\n"


def test_pinned_images_stay_until_they_are_unpinned(mirror: Any, tmp_path: Path) -> None:
    assert mirror("warm", "one:1").exit_code == 0
    before = blobs(tmp_path)
    assert mirror("pin", "one:1*", "ghcr.io/**").stdout == "docker.io/library/one:1* stays\nghcr.io/** stays\n"
    assert kept(mirror)["images"][0]["pinned"] is True
    assert mirror("evict", "one:1").stderr == "registry: docker.io/library/one:1 is pinned, or was pushed, and stays\n"
    assert mirror("evict", "--to", "0").stdout.startswith("0 B evicted, 60")
    assert mirror("evict", "--older-than", "0s").stdout == "not used for 0s: 0 manifests and blobs evicted, 0 B\n"
    assert blobs(tmp_path) == before
    told = mirror("unpin", "one:1*", "one:9")
    assert told.stdout == "docker.io/library/one:1* is not pinned any more\n"
    assert (told.exit_code, told.stderr) == (1, "registry: docker.io/library/one:9: not pinned by command\n")
    assert mirror("evict", "--older-than", "30d").stdout == "not used for 30d: 0 manifests and blobs evicted, 0 B\n"
    assert mirror("evict", "--to", "0").stdout.endswith("evicted, 0 B are left\n")
    assert blobs(tmp_path) == set()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["warm", "quay.io/x"], "quay.io/x: quay.io is not mirrored here"),
        (["warm", "team/app"], "team/app is hosted here, and mirrored from nowhere"),
        (["warm", "a", "--platform", "!"], "--platform: invalid platform '!': expected os/architecture[/variant]"),
        (
            ["warm", "a", "--platform", "arm", "--all-platforms"],
            "expected either --platform or --all-platforms",
        ),
        (["evict"], "expected either images, --older-than or --to"),
        (["evict", "a", "--to", "1GB"], "expected either images, --older-than or --to"),
        (["evict", "--to", "much"], "--to: expected a size like 50GB, got 'much'"),
        (["evict", "--older-than", "old"], "--older-than: expected an age like 30d or 12h, got 'old'"),
        (["evict", "one:9"], "nothing of docker.io/library/one is here"),
        (["pin", "one:a b"], "expected an image like docker.io/library/alpine"),
    ],
)
def test_what_cannot_be_meant_is_told_in_one_line(tmp_path: Path, words: list[str], said: str) -> None:
    told = mirroring(tmp_path, "http://127.0.0.1:9")(*words)
    assert told.exit_code == 1
    assert told.stderr.startswith(f"registry: {said}")
    assert told.stderr.count("\n") == 1


def test_a_registry_that_mirrors_nothing_says_so(tmp_path: Path) -> None:
    told = CliRunner().invoke(commands, ["mirror", "ls", "--root", str(tmp_path)])
    assert told.stderr == "registry: nothing is mirrored: see layerhouse.mirror.upstreams, or proxy.remoteurl\n"


def test_it_works_beside_a_registry_that_runs_and_on_the_one_upstream_of_proxy(
    upstream: RegistryProcess, tmp_path: Path, registry_server: Callable[..., RegistryProcess]
) -> None:
    root = tmp_path / "images"
    env = {"REGISTRY_PROXY_REMOTEURL": upstream.url}
    server = registry_server(root, env=env, workers=2)
    words = ["--root", str(root)]

    def mirror(*given: str) -> Result:
        return CliRunner(env=env).invoke(commands, ["mirror", *given, *words])

    pull_image(server.host, "library/one", "1")
    (image,) = json.loads(mirror("ls", "--json").stdout)["images"]
    assert (image["repository"], image["tag"]) == ("library/one", "1")
    assert mirror("evict", "library/one:1").exit_code == 0
    assert blobs(tmp_path) == set()
    assert mirror("warm", f"{upstream.host}/library/one:1").exit_code == 0
    upstream.stop()
    pull_image(server.host, "library/one", "1")
    with Wire(server.host) as wire:
        assert wire.manifest("library/one", "1").status == 200
