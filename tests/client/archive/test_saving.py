"""Save: what is written is what the cache has, byte for byte, whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from client.archive.choosing import choose
from client.archive.formats import Format
from client.archive.loading import load
from client.archive.plain import for_docker
from client.archive.saving import save
from client.caching.cache import Cache
from ocispec import mediatypes
from ocispec.digest import Digest
from ocispec.errors import (
    ArchiveInvalid,
    CacheError,
    ConfigurationError,
    ManifestInvalid,
    PlatformUnknown,
    StorageError,
)
from ocispec.mediatypes import OCI_LAYER, OCI_LAYER_GZIP
from ocispec.platform import Platform
from ocispec.reference import Reference
from tests.client.archive.making import (
    blob,
    blobs_in,
    described,
    files_in,
    image,
    index_of,
    keep,
    keep_index,
    to_json,
)

NAME = "docker.io/library/a:1"
IMAGE = image("x", "y")
ARM = image("x", "z", architecture="arm64")
FOREIGN = {
    "mediaType": "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
    "digest": str(Digest.of(b"elsewhere")),
    "size": 9,
    "urls": ["https://a.example/layer"],
}
archives = pytest.mark.parametrize("form", [Format.DOCKER_ARCHIVE, Format.OCI_ARCHIVE])


async def saved(cache: Cache, folder: Path, *names: str, **options: object) -> bytes:
    await save(cache, names, folder / "saved.tar", **options)
    return (folder / "saved.tar").read_bytes()


@archives
async def test_an_archive_holds_the_bytes_of_the_cache(cache: Cache, tmp_path: Path, form: Format):
    await keep(cache, NAME, IMAGE)
    found = files_in(await saved(cache, tmp_path, "a:1", format=form))
    assert dict(map(blob, (IMAGE.manifest, *IMAGE.blobs))).items() <= found.items()
    rest = {name for name in found if not name.startswith("blobs/")}
    assert rest == {"oci-layout", "index.json"} | ({"manifest.json"} if form is Format.DOCKER_ARCHIVE else set())
    (entry,) = json.loads(found["index.json"])["manifests"]
    assert entry["digest"] == str(IMAGE.digest)
    assert set(entry["annotations"].values()) == {NAME}


async def test_manifest_json_has_each_image_once_with_all_its_tags(cache: Cache, tmp_path: Path):
    for name in (NAME, "docker.io/library/b:2", f"docker.io/library/c@{IMAGE.digest}"):
        await keep(cache, name, IMAGE)
    await keep(cache, "a.example/other:1", image("z"))
    names = ("a:1", "b:2", "a:1", f"c@{IMAGE.digest}", "a.example/other:1")
    first, second = json.loads(files_in(await saved(cache, tmp_path, *names))["manifest.json"])
    config, *layers = (blob(each)[0] for each in IMAGE.blobs)
    assert first == {"Config": config, "RepoTags": [NAME, "docker.io/library/b:2"], "Layers": layers}
    assert second["RepoTags"] == ["a.example/other:1"]


@archives
async def test_the_same_images_give_the_same_bytes(cache: Cache, tmp_path: Path, form: Format):
    await keep(cache, NAME, IMAGE)
    first = await saved(cache, tmp_path, "a:1", format=form)
    other = Cache(tmp_path / "other")
    await load(other, tmp_path / "saved.tar")
    assert await saved(other, tmp_path, "a:1", format=form) == first


@pytest.mark.parametrize("form", Format)
async def test_what_was_saved_is_loaded_again(cache: Cache, tmp_path: Path, form: Format):
    await keep(cache, NAME, IMAGE)
    await keep(cache, "a.example/arm:1", ARM)
    await save(cache, ["a:1", Reference.parse("a.example/arm:1")], tmp_path / "saved", format=form)
    other = Cache(tmp_path / "other")
    loaded = await load(other, tmp_path / "saved")
    assert [(each.name, each.digest) for each in loaded] == [(NAME, IMAGE.digest), ("a.example/arm:1", ARM.digest)]
    assert blobs_in(other) == blobs_in(cache)


async def test_zstd_layers_go_into_a_docker_archive_unpacked(cache: Cache, tmp_path: Path):
    made = image("x", "y", "x", packed="zstd", annotations={"kept": "yes"})
    await keep(cache, NAME, made)
    found = files_in(await saved(cache, tmp_path, "a:1"))
    (listed,) = json.loads(found["manifest.json"])
    assert [found[each] for each in listed["Layers"]] == list(made.plain)
    assert not {blob(each)[0] for each in made.layers} & set(found)
    (entry,) = json.loads(found["index.json"])["manifests"]
    manifest = json.loads(found[f"blobs/sha256/{entry['digest'][7:]}"])
    assert manifest["annotations"] == {"kept": "yes"}
    assert manifest["layers"] == [described(each, OCI_LAYER) for each in made.plain]
    other = Cache(tmp_path / "other")
    await load(other, tmp_path / "saved.tar")
    assert len((await other.inspect("a:1")).variants[0].layers) == 3


async def test_what_docker_gets_can_be_read_as_any_content(cache: Cache):
    made = image("x", packed="zstd")
    await keep(cache, NAME, made)
    chosen = await for_docker(await choose(cache, Reference.parse(NAME), None, everything=False))
    config, layer = chosen.top.manifest.blobs
    assert await chosen.content.read(config) == made.config
    async with chosen.content.stream(layer) as pieces:
        assert b"".join([each async for each in pieces]) == made.plain[0]


async def test_zstd_layers_stay_as_they_are_in_oci_formats(cache: Cache, tmp_path: Path):
    made = image("x", packed="zstd")
    await keep(cache, NAME, made)
    assert blob(made.layers[0])[0] in files_in(await saved(cache, tmp_path, "a:1", format="oci-archive"))


async def test_sha512_goes_both_ways(cache: Cache, tmp_path: Path):
    made = image("x")
    layer = Digest.of(made.layers[0], "sha512")
    described_so = {**described(made.layers[0], OCI_LAYER_GZIP), "digest": str(layer)}
    sha512 = image("x", layers=[described_so])
    await cache.layout.add(layer, made.layers[0])
    await keep(cache, NAME, sha512)
    for form in Format:
        await save(cache, ["a:1"], tmp_path / form, format=form)
        other = Cache(tmp_path / f"other-{form}")
        (loaded,) = await load(other, tmp_path / form)
        assert loaded.digest == sha512.digest
        assert await other.layout.read(layer) == made.layers[0]


# Platforms.


async def digests(cache: Cache, folder: Path, **options: object) -> list[str]:
    found = files_in(await saved(cache, folder, "a:1", format="oci-archive", **options))
    return [each["digest"] for each in json.loads(found["index.json"])["manifests"]]


async def test_the_platform_tells_which_image_of_an_index(cache: Cache, tmp_path: Path):
    raw = index_of(IMAGE, ARM)
    await keep_index(cache, NAME, raw, IMAGE, ARM)
    assert await digests(cache, tmp_path, platform="linux/amd64") == [str(IMAGE.digest)]
    assert await digests(cache, tmp_path, platform=Platform.parse("linux/arm64")) == [str(ARM.digest)]
    with pytest.raises(PlatformUnknown, match=r"no image for linux/s390x in the cache; there are: linux/amd64, "):
        await digests(cache, tmp_path, platform="linux/s390x")


async def test_the_only_image_that_is_there_is_taken_unless_told(cache: Cache, tmp_path: Path):
    attestation = image("a", architecture="unknown")
    attestation.described["platform"]["os"] = "unknown"
    s390x = image("x", architecture="s390x")
    await keep_index(cache, NAME, index_of(IMAGE, ARM, s390x, attestation), s390x, attestation)
    await cache.layout.add(ARM.digest, ARM.manifest)  # of which the layers are elsewhere
    assert await digests(cache, tmp_path) == [str(s390x.digest)]
    with pytest.raises(PlatformUnknown, match=r"no image for linux/amd64 in the cache; there are: linux/s390x$"):
        await digests(cache, tmp_path, platform="linux/amd64")


async def test_an_index_whose_images_are_elsewhere_has_none(cache: Cache, tmp_path: Path):
    await keep_index(cache, NAME, index_of(IMAGE, ARM))
    with pytest.raises(PlatformUnknown, match=r"there are: none$"):
        await digests(cache, tmp_path)


async def test_one_image_without_an_index_is_taken_where_it_runs(cache: Cache, tmp_path: Path):
    await keep(cache, NAME, ARM)
    assert await digests(cache, tmp_path) == [str(ARM.digest)]
    assert await digests(cache, tmp_path, platform="linux/arm64/v8") == [str(ARM.digest)]
    with pytest.raises(PlatformUnknown, match=r"there are: linux/arm64"):
        await digests(cache, tmp_path, platform="linux/amd64")


async def test_all_platforms_are_the_whole_index(cache: Cache, tmp_path: Path):
    raw = index_of(IMAGE, ARM)
    await keep_index(cache, NAME, raw, IMAGE, ARM)
    assert await digests(cache, tmp_path, all_platforms=True) == [str(Digest.of(raw))]
    other = Cache(tmp_path / "other")
    await load(other, tmp_path / "saved.tar")
    assert blobs_in(other) == blobs_in(cache)


@pytest.mark.parametrize("images", [[], [IMAGE]])
async def test_an_index_that_is_not_whole_is_said_to_be_so(cache: Cache, tmp_path: Path, images: list):
    await keep_index(cache, NAME, index_of(IMAGE, ARM), *images)
    with pytest.raises(CacheError, match=r"a:1 is not whole in the cache .*: pull it with --all-platforms"):
        await saved(cache, tmp_path, "a:1", all_platforms=True, format="oci-archive")


async def test_an_index_that_is_named_again_and_again_is_looked_into_once(cache: Cache, tmp_path: Path):
    raw = index_of(IMAGE, ARM)
    for _ in range(3):
        below = [described(raw, mediatypes.OCI_INDEX)] * 200
        raw = to_json({"schemaVersion": 2, "mediaType": mediatypes.OCI_INDEX, "manifests": below})
        await keep_index(cache, NAME, raw, IMAGE, ARM)
    inner = index_of(IMAGE, ARM)
    await cache.layout.add(Digest.of(inner), inner)
    assert await digests(cache, tmp_path, platform="linux/arm64") == [str(ARM.digest)]


async def test_an_index_in_an_index_is_looked_into(cache: Cache, tmp_path: Path):
    inner = index_of(IMAGE, ARM)
    outer = {"schemaVersion": 2, "mediaType": mediatypes.OCI_INDEX}
    outer["manifests"] = [described(inner, mediatypes.OCI_INDEX)]
    await cache.layout.add(Digest.of(inner), inner)
    await keep_index(cache, NAME, to_json(outer), IMAGE, ARM)
    assert await digests(cache, tmp_path, platform="linux/arm64") == [str(ARM.digest)]
    raw = to_json(outer)
    for _ in range(5):
        outer["manifests"] = [described(raw, mediatypes.OCI_INDEX)]
        raw = to_json(outer)
        await keep_index(cache, NAME, raw)
    with pytest.raises(ManifestInvalid, match=r"indexes lie more than 4 deep"):
        await digests(cache, tmp_path, platform="linux/arm64")


async def test_an_image_whose_index_tells_no_platform_has_its_configs(cache: Cache, tmp_path: Path):
    bare, other = image("b"), image("c", architecture="arm64")
    for each in (bare, other):
        del each.described["platform"]
    await keep_index(cache, NAME, index_of(bare, other), bare, other)
    assert await digests(cache, tmp_path, platform="linux/arm64") == [str(other.digest)]


# What cannot be saved.


@pytest.mark.parametrize("lost", [IMAGE.layers[0], IMAGE.manifest])
@pytest.mark.parametrize("form", Format)
async def test_an_image_that_is_not_whole_is_not_saved(cache: Cache, tmp_path: Path, lost: bytes, form: Format):
    await keep(cache, NAME, IMAGE)
    cache.layout.path(Digest.of(lost)).unlink()
    with pytest.raises(CacheError, match=r"a:1 is not whole in the cache .*: pull it again"):
        await saved(cache, tmp_path, "a:1", format=form)
    assert [each.name for each in tmp_path.iterdir()] == ["cache"]


async def test_an_image_that_is_not_there_is_said_to_be_so(cache: Cache, tmp_path: Path):
    with pytest.raises(CacheError, match=f"library/b:1 is not in the cache {cache.root}"):
        await saved(cache, tmp_path, "b:1")
    assert not cache.root.exists()
    await keep(cache, NAME, IMAGE)
    with pytest.raises(CacheError, match=f"library/b:1 is not in the cache {cache.root}"):
        await saved(cache, tmp_path, "b:1")


@archives
async def test_a_damaged_blob_is_not_passed_on(cache: Cache, tmp_path: Path, form: Format):
    await keep(cache, NAME, IMAGE)
    cache.layout.path(Digest.of(IMAGE.layers[1])).write_bytes(bytes(len(IMAGE.layers[1])))
    (tmp_path / "saved.tar").write_text("before")
    with pytest.raises(StorageError, match=f"damaged in storage: expected {Digest.of(IMAGE.layers[1])}, its content"):
        await saved(cache, tmp_path, "a:1", format=form)
    assert (tmp_path / "saved.tar").read_text() == "before"
    assert {each.name for each in tmp_path.iterdir()} == {"cache", "saved.tar"}


async def test_foreign_layers_stay_where_they_are(cache: Cache, tmp_path: Path):
    made = image(layers=[FOREIGN])
    await keep(cache, NAME, made)
    found = files_in(await saved(cache, tmp_path, "a:1", format="oci-archive"))
    assert blob(made.manifest)[0] in found
    with pytest.raises(ArchiveInvalid, match=f"the foreign layer {FOREIGN['digest']} is not here"):
        await saved(cache, tmp_path, "a:1")


async def test_an_artifact_goes_into_oci_formats_only(cache: Cache, tmp_path: Path):
    chart = image(config=described(b"{}", "application/vnd.cncf.helm.config.v1+json"))
    await cache.layout.add(Digest.of(b"{}"), b"{}")
    await keep(cache, NAME, chart)
    assert await digests(cache, tmp_path)
    with pytest.raises(ArchiveInvalid, match=r"is no container image but application/vnd.cncf.helm.* or oci"):
        await saved(cache, tmp_path, "a:1")


async def test_a_config_that_counts_other_layers_is_refused(cache: Cache, tmp_path: Path):
    await keep(cache, NAME, image("x", layers=[]))
    with pytest.raises(ArchiveInvalid, match=r"its config tells 1 layers, its manifest 0"):
        await saved(cache, tmp_path, "a:1")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "zip"}, "unknown format 'zip': expected docker-archive, oci-archive, oci"),
        ({"all_platforms": True}, "a docker-archive holds one platform per name"),
        ({"all_platforms": True, "platform": "linux/arm64", "format": "oci"}, "exclude each other"),
        ({"format": "oci", "target": 1}, "an OCI layout is a folder"),
    ],
)
async def test_arguments_that_contradict_each_other(cache: Cache, tmp_path: Path, options: dict, message: str):
    with pytest.raises(ConfigurationError, match=message):
        await save(cache, ["a:1"], options.pop("target", tmp_path / "x"), **options)
