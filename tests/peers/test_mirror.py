"""Real clients that pull through a mirror, from upstreams that play Docker Hub: cold, warm, and with these stopped."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from random import Random

import pytest

from tests.support.docker import DockerEngine
from tests.support.hub import GRANTED, Hub
from tests.support.images import Wire, pull_image, push_image, tar_layer
from tests.support.processes import RegistryProcess, pullclient, run

NAME = "diamol/ch03-web-ping"
TARGET = "TARGET=blog.sixeyed.com"
CONFIG = """\
version: 0.1
storage: {{filesystem: {{rootdirectory: {root}}}}}
layerhouse:
  mirror:
    upstreams:
      - {{name: docker.io, url: "http://{hub}", fresh: 0s}}
      - {{name: ghcr.io, url: "http://{other}", fresh: 0s}}
    default: docker.io
    hosted: "team/**"
"""


class Mirrored:
    """A mirror of two processes before two registries, and a registry where their images are made.

    Attributes:
        hub: is mirrored as `docker.io`.
        other: is mirrored as `ghcr.io`.
        source: where images are pushed that one of these publishes.
    """

    def __init__(self, folder: Path, ending: ExitStack) -> None:
        self.hub, self.other = ending.enter_context(Hub()), ending.enter_context(Hub())
        config = folder / "config.yml"
        config.write_text(CONFIG.format(root=folder / "root", hub=self.hub.host, other=self.other.host))
        self.source = RegistryProcess(folder / "source", log=folder / "source.log")
        self.server = RegistryProcess(folder / "root", log=folder / "log", workers=2, args=[str(config)])
        for each in (self.source, self.server):
            ending.callback(lambda server=each: print(server.log()))
            ending.callback(each.stop)
            each.start()

    @property
    def host(self) -> str:
        return self.server.host

    def publish(self, hub: Hub, name: str) -> None:
        """Publishes an image there whose layers nobody else has."""
        layers = [tar_layer(f"of/{number}", f"{name} {number}".encode() * 10_000) for number in range(2)]
        push_image(self.source.host, name, "latest", layers)
        hub.take(self.source.host, name, name)


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mirrored]:
    with ExitStack() as ending:
        yield Mirrored(tmp_path_factory.mktemp("mirror"), ending)


@pytest.fixture(scope="module")
def pushed(mirror: Mirrored, docker_engine: DockerEngine, busybox_image: str) -> str:
    """Address of the image that docker pushed where images are made."""
    name = f"{mirror.source.host}/{NAME}:latest"
    docker_engine("tag", busybox_image, name)
    docker_engine("push", name)
    docker_engine("rmi", name)
    return name


@pytest.fixture(scope="module")
def engine(mirror: Mirrored) -> Iterator[DockerEngine]:
    """An engine that has nothing yet, and asks the mirror."""
    with DockerEngine(mirror=mirror.server.url) as found:
        yield found


def cold_warm_and_stopped(hub: Hub, pull: Callable[[], object]) -> None:
    """Pulls three times, and looks at what upstream was asked: everything once, then for the tag alone."""
    mark, remaining = len(hub.asked), hub.remaining
    pull()
    blobs, manifests = hub.asked_since(mark, "GET", "data"), hub.asked_since(mark, "GET", "manifests")
    assert len(blobs) >= 3, "a config and two layers"
    assert set(blobs.values()) == {1}
    assert sum(manifests.values()) <= 2
    assert hub.remaining == remaining - sum(manifests.values())
    mark = len(hub.asked)
    pull()
    assert {each.method for each in hub.asked[mark:] if each.path != "/token"} <= {"HEAD"}
    with hub.stopped():
        pull()
    assert hub.strays == [], "no credentials follow to where the blobs are"


def test_fifty_clients_at_once_fetch_each_blob_once(mirror: Mirrored) -> None:
    mirror.hub.make("diamol/crowd", [Random(seed).randbytes(300_000) for seed in range(3)])
    mark = len(mirror.hub.asked)
    with ThreadPoolExecutor(50) as clients:
        pulled = list(clients.map(lambda _: pull_image(mirror.host, "diamol/crowd", "latest"), range(50)))
    assert all(each == pulled[0] for each in pulled)
    blobs, manifests = (mirror.hub.asked_since(mark, "GET", kind) for kind in ("data", "manifests"))
    assert sorted(blobs.values()) == [1, 1, 1, 1]
    assert sum(manifests.values()) <= 2


@pytest.mark.peer("docker", "busybox")
def test_docker_pulls_by_its_registry_mirror(mirror: Mirrored, pushed: str, engine: DockerEngine) -> None:
    mirror.hub.take(mirror.source.host, NAME, NAME)

    def pull() -> None:
        assert "Pull complete" in engine("pull", NAME)
        assert engine("run", "--rm", "--network", "none", NAME) == TARGET
        engine("rmi", NAME)

    cold_warm_and_stopped(mirror.hub, pull)


@pytest.mark.peer("docker")
def test_docker_pulls_by_prefix_and_pushes_beside_what_is_mirrored(mirror: Mirrored, engine: DockerEngine) -> None:
    mirror.publish(mirror.other, "org/prefixed")
    mirrored, own = f"{mirror.host}/ghcr.io/org/prefixed:latest", f"{mirror.host}/team/app:1"

    def pull() -> None:
        assert "Pull complete" in engine("pull", mirrored)
        engine("rmi", mirrored)

    cold_warm_and_stopped(mirror.other, pull)
    engine("pull", mirrored)
    engine("tag", mirrored, own)
    engine("push", own)
    assert len(pull_image(mirror.host, "team/app", "1")) == 4
    with pytest.raises(RuntimeError, match=r"mirrored from|unsupported"):
        engine("push", mirrored)
    engine("rmi", mirrored, own)


@pytest.mark.peer("docker", "containerd")
def test_containerd_pulls_from_two_upstreams_by_ns(mirror: Mirrored, engine: DockerEngine, tmp_path: Path) -> None:
    """`ctr` reads hosts.toml for itself, as containerd does for Kubernetes."""
    ctr = ["ctr", "--address", f"{engine.folder}/exec/containerd/containerd.sock", "--namespace", "mirror"]
    for registry, hub, name in (("docker.io", mirror.hub, "diamol/one"), ("ghcr.io", mirror.other, "diamol/other")):
        mirror.publish(hub, name)
        (tmp_path / registry).mkdir()
        mirrored = f'[host."{mirror.server.url}"]\ncapabilities = ["pull", "resolve"]\n'
        (tmp_path / registry / "hosts.toml").write_text(f'server = "http://127.0.0.1:9"\n{mirrored}')

        def pull(image: str = f"{registry}/{name}:latest") -> None:
            run(*ctr, "images", "pull", "--hosts-dir", str(tmp_path), "--snapshotter", "native", image)
            run(*ctr, "images", "remove", "--sync", image)

        cold_warm_and_stopped(hub, pull)


@pytest.mark.peer("podman", "skopeo")
def test_podman_and_skopeo_pull_by_registries_conf(
    mirror: Mirrored, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rewritten = "".join(
        f'[[registry]]\nprefix = "{registry}"\nlocation = "{mirror.host}/{registry}"\ninsecure = true\n'
        for registry in ("docker.io", "ghcr.io")
    )
    (tmp_path / "registries.conf").write_text(rewritten)
    trust = tmp_path / "policy.json"
    trust.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    monkeypatch.setenv("CONTAINERS_REGISTRIES_CONF", str(tmp_path / "registries.conf"))
    mirror.publish(mirror.hub, "diamol/by-podman")
    mirror.publish(mirror.other, "diamol/by-skopeo")
    numbers = iter(range(3))
    # podman refuses a run root whose path is longer than 50 characters.
    with tempfile.TemporaryDirectory(prefix="lh-podman-") as folder:
        podman = ["podman", "--root", f"{folder}/root", "--runroot", f"{folder}/run", "--storage-driver", "vfs"]

        def pull() -> None:
            name = "docker.io/diamol/by-podman:latest"
            run(*podman, "pull", "--quiet", "--signature-policy", str(trust), name)
            run(*podman, "rmi", "--force", name)

        def copy() -> None:
            source, target = "docker://ghcr.io/diamol/by-skopeo:latest", f"dir:{folder}/copy-{next(numbers)}"
            options = ["--registries-conf", str(tmp_path / "registries.conf"), "--policy", str(trust)]
            run("skopeo", *options, "copy", source, target)

        cold_warm_and_stopped(mirror.hub, pull)
        cold_warm_and_stopped(mirror.other, copy)


def test_pullclient_pulls_by_ns(mirror: Mirrored, tmp_path: Path) -> None:
    mirror.publish(mirror.other, "diamol/by-pullclient")
    numbers = iter(range(3))

    def pull() -> None:
        cache = ["--cache", str(tmp_path / str(next(numbers)))]
        pullclient("pull", "--quiet", *cache, "--mirror", mirror.server.url, "ghcr.io/diamol/by-pullclient:latest")

    cold_warm_and_stopped(mirror.other, pull)


def test_a_hub_whose_limit_is_reached_serves_what_is_here(mirror: Mirrored) -> None:
    mirror.hub.make("diamol/limited", [b"limited"])
    before = pull_image(mirror.host, "diamol/limited", "latest")
    granted, mirror.hub.remaining = mirror.hub.remaining, 0
    assert granted < GRANTED
    try:
        mirror.hub.make("diamol/limited", [b"moved"])
        with Wire(mirror.host) as wire:
            stale = wire.ask("HEAD", "/v2/diamol/limited/manifests/latest", expect=200)
            assert stale.headers["warning"] == '110 - "Response is Stale"'
            assert stale.headers["docker-content-digest"] == next(iter(before))
            mirror.hub.make("diamol/unseen", [b"unseen"])
            unseen = wire.ask("GET", "/v2/diamol/unseen/manifests/latest", expect=429)
            assert json.loads(unseen.body)["errors"][0]["code"] == "TOOMANYREQUESTS"
    finally:
        mirror.hub.remaining = granted


@pytest.mark.peer("docker", "busybox")
def test_docker_pulls_what_an_instance_of_ours_has_by_way_of_a_proxy(
    mirror: Mirrored, pushed: str, engine: DockerEngine, registry_server: Callable[..., RegistryProcess]
) -> None:
    """`proxy`, as Distribution has it, in two processes."""
    before = len(mirror.source.log(1 << 20))
    proxy = registry_server(workers=2, env={"REGISTRY_PROXY_REMOTEURL": mirror.source.url})
    mirrored = f"{proxy.host}/{NAME}:latest"
    for _ in ("cold", "warm"):
        assert "Pull complete" in engine("pull", mirrored)
        engine("rmi", mirrored)
    asked = [line for line in mirror.source.log(1 << 20)[before:].splitlines() if "/blobs/sha256:" in line]
    blobs = Counter(line.split("/blobs/")[1][:71] for line in asked if "GET" in line)
    assert blobs
    assert set(blobs.values()) == {1}
    mirror.source.stop()
    assert "Pull complete" in engine("pull", mirrored)
    mirror.source.start()
