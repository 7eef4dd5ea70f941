"""What the cache tells about its images."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from client.cache import VARIABLE, Cache
from ocispec import mediatypes
from ocispec.descriptor import Descriptor
from ocispec.digest import Digest
from ocispec.errors import CacheError, NameInvalid
from ocispec.reference import Reference

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
