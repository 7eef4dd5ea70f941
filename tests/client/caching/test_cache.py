"""What the cache tells about its images."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from client.caching.cache import VARIABLE, Cache, chosen, shared_bytes
from ocispec import mediatypes
from ocispec.descriptor import REF_NAME, Descriptor
from ocispec.digest import Digest
from ocispec.errors import CacheError, NameInvalid, PlatformUnknown
from ocispec.platform import Platform
from ocispec.reference import Reference
from tests.client import filled

CONFIG = {
    "os": "linux",
    "architecture": "amd64",
    "created": "2026-01-01T00:00:00Z",
    "config": {"Env": ["TARGET=blog.sixeyed.com"], "Cmd": ["node", "/web-ping/app.js"]},
    "rootfs": {"type": "layers", "diff_ids": []},
    "history": [{"created_by": "COPY app.js"}, {"created_by": "ENV TARGET", "empty_layer": True}],
}


async def add(cache: Cache, data: bytes, media_type: str) -> Descriptor:
    digest = Digest.of(data)
    await cache.layout.add(digest, data)
    return Descriptor(media_type, digest, len(data))


async def add_image(cache: Cache, name: str, config: bytes, media_type: str = mediatypes.OCI_CONFIG) -> Descriptor:
    members = {
        "schemaVersion": 2,
        "mediaType": mediatypes.OCI_MANIFEST,
        "config": (await add(cache, config, media_type)).to_json(),
        "layers": [(await add(cache, b"layer", mediatypes.OCI_LAYER)).to_json()],
    }
    image = await add(cache, json.dumps(members).encode(), mediatypes.OCI_MANIFEST)
    await cache.layout.set_name(name, image)
    return image


async def test_an_empty_cache_has_no_images(cache: Cache):
    assert await cache.images() == []
    with pytest.raises(CacheError, match=f"docker.io/library/node:latest is not in the cache {cache.root}"):
        await cache.inspect("node")


async def test_an_image_is_told_with_what_made_each_layer(cache: Cache):
    image = await add_image(cache, "docker.io/library/node:latest", json.dumps(CONFIG).encode())
    found = (await cache.inspect(Reference.parse("node"))).to_json()
    (variant,) = found.pop("images")
    assert found == {
        "name": "docker.io/library/node:latest",
        "digest": str(image.digest),
        "mediaType": mediatypes.OCI_MANIFEST,
    }
    assert variant["platform"] == "linux/amd64"
    assert variant["created"] == "2026-01-01T00:00:00Z"
    assert variant["config"]["Cmd"] == ["node", "/web-ping/app.js"]
    assert variant["layers"] == [{"digest": str(Digest.of(b"layer")), "size": 5, "createdBy": "COPY app.js"}]
    assert variant["size"] == 5 + len(json.dumps(CONFIG))


async def test_images_are_listed_by_name(cache: Cache):
    for name in ("b.example/x:1", "a.example/x:1"):
        await add_image(cache, name, json.dumps(CONFIG).encode())
    assert [each.name for each in await cache.images()] == ["a.example/x:1", "b.example/x:1"]


@pytest.mark.parametrize("config", [b"[]", b"{"])
async def test_a_config_that_cannot_be_read_hides_nothing_else(cache: Cache, config: bytes):
    await add_image(cache, "a.example/x:1", config)
    (image,) = await cache.images()
    assert image.variants[0].platform is None
    assert image.variants[0].to_json()["layers"][0]["createdBy"] is None


async def test_an_artifact_is_an_image_without_platform(cache: Cache):
    await add_image(cache, "a.example/chart:1", b"{}", "application/vnd.cncf.helm.config.v1+json")
    assert (await cache.inspect("a.example/chart:1")).variants[0].config is None


@pytest.mark.parametrize("lost", ["layer", "manifest"])
async def test_an_image_that_is_not_whole_is_said_to_be_so(cache: Cache, lost: str):
    image = await add_image(cache, "a.example/x:1", json.dumps(CONFIG).encode())
    cache.layout.path(Digest.of(b"layer") if lost == "layer" else image.digest).unlink()
    assert (await cache.images())[0].variants == ()
    with pytest.raises(CacheError, match="is not whole"):
        await cache.inspect("a.example/x:1")


async def test_a_name_that_is_none_is_refused(cache: Cache):
    with pytest.raises(NameInvalid):
        await cache.inspect("UP PER")


async def test_names_of_other_tools_are_found_as_they_are_written(cache: Cache):
    for name in ("docker.io/library/node:latest", "node", "UP+PER"):
        await add_image(cache, name, json.dumps(CONFIG | {"author": name}).encode())
    assert (await cache.inspect("node")).name == "docker.io/library/node:latest"
    await cache.remove("node")
    assert (await cache.inspect("node")).name == "node"
    assert (await cache.inspect("UP+PER")).name == "UP+PER"


async def test_of_two_entries_with_one_name_the_first_counts(cache: Cache):
    one, two = [await add_image(cache, "a:1", json.dumps(CONFIG | {"author": each}).encode()) for each in "12"]
    entries = [{**each.to_json(), "annotations": {REF_NAME: "a:1"}} for each in (one, two)]
    (cache.root / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": entries}))
    assert [each.digest for each in await cache.images()] == [one.digest]
    assert (await cache.entry("a:1")).digest == one.digest


async def test_shared_bytes_are_those_that_another_image_has_too(cache: Cache):
    for name, layers in (("a/a:1", [b"base", b"1"]), ("a/b:1", [b"base", b"22"]), ("a/c:1", [b"base", b"22"])):
        await filled.image(cache, layers, name=name, architecture="arm64" if name == "a/c:1" else "amd64")
    images = await cache.images()
    config = images[0].variants[0].manifest.config
    assert config
    assert shared_bytes(images) == [[4 + config.size], [6 + config.size], [6]]


async def test_a_variant_is_chosen_by_platform(cache: Cache):
    children = [await filled.image(cache, [each.encode()], architecture=each) for each in ("s390x", "arm64")]
    await filled.index(cache, "a.example/x:1", children)
    image = await cache.inspect("a.example/x:1")
    assert chosen(image, Platform.parse("linux/arm64")).digest == children[1].digest
    assert chosen(image, None).digest in {each.digest for each in children}
    with pytest.raises(PlatformUnknown, match="no image for linux/386 in the cache; there are: linux/s390x, linux/arm"):
        chosen(image, Platform.parse("linux/386"))


async def test_entries_without_a_name_are_left_to_the_tools_that_wrote_them(cache: Cache):
    cache.root.mkdir()
    entry = {"mediaType": "x/y", "digest": str(Digest.of(b"")), "size": 0}
    (cache.root / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    assert await cache.images() == []


def test_the_cache_lies_where_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(VARIABLE, str(tmp_path / "environment"))
    assert Cache(tmp_path / "told").root == tmp_path / "told"
    assert Cache().root == tmp_path / "environment"
    monkeypatch.delenv(VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert Cache().root.name == "pullclient"
