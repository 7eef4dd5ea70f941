"""docker, skopeo, podman and containerd take what we save, and we take what they save."""

from __future__ import annotations

import gzip
import json
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from backports import zstd

from client.archive.loading import load
from client.archive.saving import save
from client.caching.cache import Cache, CachedImage
from ocispec.digest import Digest
from ocispec.mediatypes import OCI_CONFIG, OCI_LAYER_GZIP, OCI_LAYER_ZSTD, OCI_MANIFEST
from tests.client.archive.making import Image, blobs_in, described, files_in, image, index_of, keep, keep_index, to_json
from tests.support.docker import DockerEngine
from tests.support.peers import find
from tests.support.processes import run

NAME = "docker.io/layerhouse-test/archive:1"
PACK = {OCI_LAYER_GZIP: gzip.compress, OCI_LAYER_ZSTD: zstd.compress}
ours = pytest.mark.parametrize("form", ["docker-archive", "oci-archive", "oci"])


def skopeo(source: str, target: str, *words: str) -> None:
    run("skopeo", "--insecure-policy", "copy", "--quiet", *words, source, target)


async def saved_by_docker(docker: DockerEngine, folder: Path, cache: Cache, name: str) -> CachedImage:
    docker("save", "--output", str(folder / "docker.tar"), name)
    await load(cache, folder / "docker.tar", name=NAME)
    return await cache.inspect(NAME)


def image_id(docker: DockerEngine, name: str) -> str:
    return docker("image", "inspect", "--format", "{{.Id}}", name)


async def repacked(cache: Cache, media_type: str) -> None:
    """Give the image other layers: the same, compressed."""
    (variant,) = (await cache.inspect(NAME)).variants
    plain = [await cache.layout.read(each.digest) for each in variant.layers]
    layers = tuple(PACK[media_type](each) for each in plain)
    config = variant.config.raw
    members = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": described(config, OCI_CONFIG)}
    manifest = to_json({**members, "layers": [described(each, media_type) for each in layers]})
    await keep(cache, NAME, Image(manifest, config, layers, tuple(plain), {}))


@pytest.mark.peer("docker", "busybox")
async def test_docker_saves_and_we_tell_what_docker_tells(
    docker_engine: DockerEngine, busybox_image: str, cache: Cache, tmp_path: Path
):
    (variant,) = (await saved_by_docker(docker_engine, tmp_path, cache, busybox_image)).variants
    assert f"sha256:{Digest.of(variant.config.raw).hex}" == image_id(docker_engine, busybox_image)
    told = json.loads(docker_engine("image", "inspect", busybox_image))[0]
    assert [str(each.digest) for each in variant.layers] == told["RootFS"]["Layers"]
    assert variant.config.settings["Env"] == told["Config"]["Env"]
    assert str(variant.platform) == f"{told['Os']}/{told['Architecture']}"


@pytest.mark.peer("docker", "busybox")
@pytest.mark.parametrize("media_type", [None, OCI_LAYER_GZIP, OCI_LAYER_ZSTD])
async def test_docker_loads_and_runs_what_we_save(
    docker_engine: DockerEngine, busybox_image: str, cache: Cache, tmp_path: Path, media_type: str | None
):
    await saved_by_docker(docker_engine, tmp_path, cache, busybox_image)
    if media_type:
        await repacked(cache, media_type)
    await save(cache, [NAME], tmp_path / "ours.tar")
    loaded = docker_engine("load", "--input", str(tmp_path / "ours.tar"))
    try:
        assert loaded == "Loaded image: layerhouse-test/archive:1"
        assert image_id(docker_engine, NAME) == image_id(docker_engine, busybox_image)
        ran = docker_engine("run", "--rm", "--network=none", "--env", "TARGET=docker.com", NAME)
        assert ran == "TARGET=docker.com"
    finally:
        docker_engine("image", "rm", NAME)


@pytest.mark.peer("docker", "busybox")
async def test_several_images_of_docker_come_through_a_pipe(
    docker_engine: DockerEngine, busybox_image: str, cache: Cache
):
    others = [f"layerhouse-test/again:{n}" for n in "12"]
    for each in others:
        docker_engine("tag", busybox_image, each)
    env = {"DOCKER_HOST": f"unix://{docker_engine.folder}/docker.sock"}
    try:
        with subprocess.Popen([find("docker"), "save", busybox_image, *others], stdout=-1, env=env) as saving:
            loaded = await load(cache, saving.stdout.fileno())
    finally:
        # The engine is everyone's, and a name that stays keeps layers that other tests expect to be gone.
        docker_engine("image", "rm", *others)
    assert saving.returncode == 0
    assert sorted(each.name for each in loaded) == sorted(f"docker.io/{each}" for each in (busybox_image, *others))
    assert len({each.digest for each in loaded}) == 1


@pytest.mark.peer("skopeo")
@ours
@pytest.mark.parametrize("packed", ["plain", "gzip", "zstd"])
async def test_skopeo_reads_what_we_save(cache: Cache, tmp_path: Path, form: str, packed: str):
    made = image("x", "y", packed=packed)
    await keep(cache, NAME, made)
    await save(cache, [NAME], tmp_path / "ours", format=form)
    source = f"{form}:{tmp_path / 'ours'}:{NAME}"
    told = json.loads(run("skopeo", "inspect", source))
    assert (told["Architecture"], len(told["Layers"])) == ("amd64", 2)
    if form == "docker-archive":
        skopeo(source, f"dir:{tmp_path / 'dir'}")
        assert {(tmp_path / "dir" / Digest.of(each).hex).read_bytes() for each in made.plain} == set(made.plain)
    else:
        skopeo(source, f"oci:{tmp_path / 'copy'}:again", "--preserve-digests")
        assert blobs_in(Cache(tmp_path / "copy")) == blobs_in(cache)


@pytest.mark.peer("skopeo")
@ours
async def test_we_load_what_skopeo_writes(cache: Cache, tmp_path: Path, form: str):
    made = image("x", "y")
    origin = Cache(tmp_path / "origin")
    await keep(origin, NAME, made)
    target = f"{form}:{tmp_path / 'theirs'}:{NAME}"
    skopeo(f"oci:{origin.root}:{NAME}", target, *(() if form == "docker-archive" else ("--preserve-digests",)))
    (loaded,) = await load(cache, tmp_path / "theirs")
    assert loaded.name == NAME
    if form == "docker-archive":
        (variant,) = (await cache.inspect(NAME)).variants
        assert variant.config.raw == made.config
        assert [each.digest for each in variant.layers] == [Digest.of(each) for each in made.plain]
    else:
        assert blobs_in(cache) == blobs_in(origin)


@pytest.mark.peer("skopeo")
async def test_skopeo_copies_all_platforms_of_what_we_save(cache: Cache, tmp_path: Path):
    images = [image("x", architecture=each) for each in ("amd64", "arm64")]
    await keep_index(cache, NAME, index_of(*images), *images)
    await save(cache, [NAME], tmp_path / "ours.tar", format="oci-archive", all_platforms=True)
    skopeo(f"oci-archive:{tmp_path / 'ours.tar'}:{NAME}", f"oci:{tmp_path / 'copy'}:1", "--all", "--preserve-digests")
    assert blobs_in(Cache(tmp_path / "copy")) == blobs_in(cache)


class Podman:
    """podman with folders of its own; it refuses a run root whose path is longer than 50 characters."""

    def __init__(self, folder: str) -> None:
        self._words = ["podman", "--root", f"{folder}/root", "--runroot", f"{folder}/run", "--storage-driver", "vfs"]
        self.trust = Path(folder) / "policy.json"
        self.trust.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')

    def __call__(self, *words: str) -> str:
        return run(*self._words, *words)


@pytest.fixture
def podman() -> Iterator[Podman]:
    with tempfile.TemporaryDirectory(prefix="lh-podman-") as folder:
        yield Podman(folder)


@pytest.mark.peer("podman")
@pytest.mark.parametrize("packed", ["plain", "gzip", "zstd"])
@pytest.mark.parametrize("form", ["docker-archive", "oci-archive"])
async def test_podman_loads_what_we_save(cache: Cache, tmp_path: Path, podman: Podman, form: str, packed: str):
    made = image("x", "y", packed=packed)
    await keep(cache, NAME, made)
    await save(cache, [NAME], tmp_path / "ours.tar", format=form)
    podman("load", "--signature-policy", str(podman.trust), "--input", str(tmp_path / "ours.tar"))
    assert podman("image", "inspect", "--format", "{{.Id}}", NAME) == Digest.of(made.config).hex


@pytest.mark.peer("podman")
async def test_podman_loads_several_images_of_a_docker_archive(cache: Cache, tmp_path: Path, podman: Podman):
    other = "quay.example/other/image:2"
    await keep(cache, NAME, image("x"))
    await keep(cache, other, image("y"))
    await save(cache, [NAME, other], tmp_path / "ours.tar")
    podman("load", "--signature-policy", str(podman.trust), "--input", str(tmp_path / "ours.tar"))
    names = podman("images", "--format", "{{.Repository}}:{{.Tag}}").split()
    assert sorted(names) == [NAME, other]


@pytest.mark.peer("podman")
@pytest.mark.parametrize("form", ["docker-archive", "oci-archive", "oci-dir", "docker-archive-many"])
async def test_we_load_what_podman_saves(cache: Cache, tmp_path: Path, podman: Podman, form: str):
    made = image("x", "y")
    origin = Cache(tmp_path / "origin")
    await keep(origin, NAME, made)
    await save(origin, [NAME], tmp_path / "ours.tar")
    podman("load", "--signature-policy", str(podman.trust), "--input", str(tmp_path / "ours.tar"))
    names, options = [NAME], ["--format", form.removesuffix("-many")]
    if form.endswith("many"):
        names.append("quay.example/b:2")
        options.append("--multi-image-archive")
        podman("tag", *names)
    podman("save", "--quiet", *options, "--output", str(tmp_path / "theirs"), *names)
    loaded = await load(cache, tmp_path / "theirs", name=NAME if form == "oci-dir" else None)
    assert {each.name for each in loaded} == set(names)
    (variant,) = (await cache.inspect(NAME)).variants
    assert variant.config.diff_ids == tuple(Digest.of(each) for each in made.plain)


@pytest.fixture
def ctr() -> Iterator[list[str]]:
    """The words that begin a command to a containerd of the test's own."""
    with tempfile.TemporaryDirectory(prefix="lh-containerd-") as name:
        folder = Path(name)
        (folder / "config.toml").write_text(
            f'version = 2\nroot = "{folder}/root"\nstate = "{folder}/state"\n'
            'disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"]\n'
            f'[grpc]\naddress = "{folder}/socket"\n'
        )
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen([find("containerd"), "--config", folder / "config.toml"], stdout=log, stderr=log)
        words = ["ctr", "--address", f"{folder}/socket"]
        try:
            _await(words)
            yield words
        finally:
            process.terminate()
            process.wait(30)


def _await(words: list[str]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with suppress(RuntimeError):
            run(*words, "version")
            return
        time.sleep(0.05)
    raise RuntimeError("containerd is not ready")


@pytest.mark.peer("containerd")
@pytest.mark.parametrize("form", ["docker-archive", "oci-archive"])
async def test_containerd_takes_and_gives_the_same_bytes(cache: Cache, tmp_path: Path, ctr: list[str], form: str):
    """Its importer and exporter are those of an engine with the containerd store."""
    made = image("x", "y")
    await keep(cache, NAME, made)
    await save(cache, [NAME], tmp_path / "ours.tar", format=form)
    run(*ctr, "image", "import", "--no-unpack", str(tmp_path / "ours.tar"))
    assert str(made.digest) in run(*ctr, "image", "ls")
    run(*ctr, "image", "export", str(tmp_path / "theirs.tar"), NAME)
    assert {"index.json", "manifest.json"} <= files_in((tmp_path / "theirs.tar").read_bytes()).keys()
    other = Cache(tmp_path / "other")
    (loaded,) = await load(other, tmp_path / "theirs.tar")
    assert (loaded.name, loaded.digest) == (NAME, made.digest)
    assert blobs_in(other) == blobs_in(cache)


@pytest.mark.peer("containerd")
async def test_an_index_that_an_engine_has_in_part_is_taken(cache: Cache, tmp_path: Path, ctr: list[str]):
    images = [image("x", architecture=each) for each in ("amd64", "arm64")]
    raw = index_of(*images)
    await keep_index(cache, NAME, raw, *images)
    await save(cache, [NAME], tmp_path / "ours.tar", format="oci-archive", all_platforms=True)
    run(*ctr, "image", "import", "--no-unpack", "--all-platforms", str(tmp_path / "ours.tar"))
    run(*ctr, "image", "export", "--platform", "linux/arm64", str(tmp_path / "theirs.tar"), NAME)
    other = Cache(tmp_path / "other")
    (loaded,) = await load(other, tmp_path / "theirs.tar")
    assert (loaded.name, loaded.digest) == (NAME, Digest.of(raw))
    assert [str(each.platform) for each in (await other.inspect(NAME)).variants] == ["linux/arm64"]


async def test_the_tar_of_the_standard_library_reads_what_we_write(tmp_path: Path, cache: Cache):
    """Headers are plain ustar, owned by root, without a time."""
    await keep(cache, NAME, image("x"))
    await save(cache, [NAME], tmp_path / "ours.tar")
    with tarfile.open(tmp_path / "ours.tar") as archive:
        assert {(each.uid, each.gid, each.mtime, each.mode) for each in archive} == {(0, 0, 0, 0o644), (0, 0, 0, 0o755)}
        assert archive.pax_headers == {}
