"""The bundled sample is a real multi-platform image, and the same on every machine."""

from __future__ import annotations

import io
import json
import tarfile

from ocispec.digest import Digest
from ocispec.manifest import ImageConfig, Manifest
from ocispec.platform import Platform
from registry.sample import PLATFORMS, build

INDEX = "sha256:0e0ab26e760c91305f1349a9125b7c83506e0c7b4c34c50d81719b62fa5b4278"


def test_it_is_the_same_everywhere():
    assert str(build().index.digest) == INDEX


def test_every_part_is_there_under_its_digest_and_size():
    sample = build()
    assert all(digest.matches(data) for digest, data in sample.contents.items())
    index = Manifest.parse(sample.contents[sample.index.digest], sample.index.media_type)
    assert tuple(each.platform for each in index.manifests) == PLATFORMS
    images = [Manifest.parse(sample.contents[each.digest], each.media_type) for each in index.manifests]
    parts = [sample.index, *index.manifests, *(blob for image in images for blob in image.blobs)]
    assert {each.digest: each.size for each in parts} == {key: len(data) for key, data in sample.contents.items()}


def test_its_platforms_share_every_layer_but_the_runtime():
    sample = build()
    index = Manifest.parse(sample.contents[sample.index.digest])
    amd, arm = (Manifest.parse(sample.contents[each.digest]) for each in index.manifests)
    shared = {each.digest for each in amd.layers} & {each.digest for each in arm.layers}
    assert (len(amd.layers), len(shared)) == (4, 3)


def test_its_config_is_that_of_the_web_ping_and_its_layers_unpack():
    sample = build()
    index = Manifest.parse(sample.contents[sample.index.digest])
    image = Manifest.parse(sample.contents[index.manifests[1].digest])
    assert image.config
    config = ImageConfig.parse(sample.contents[image.config.digest])
    assert config.platform == Platform("linux", "arm64")
    assert config.settings["Env"][1:] == ["TARGET=blog.sixeyed.com", "METHOD=HEAD", "INTERVAL=3000"]
    assert (config.settings["WorkingDir"], config.settings["Cmd"]) == ("/web-ping", ["node", "/web-ping/app.js"])
    assert config.diff_ids == tuple(Digest.of(sample.contents[each.digest]) for each in image.layers)
    assert [each.created_by for each in config.history if not each.empty_layer][2:] == [
        "WORKDIR /web-ping",
        "COPY app.js .",
    ]
    with tarfile.open(fileobj=io.BytesIO(sample.contents[image.layers[3].digest])) as layer:
        (entry,) = layer.getmembers()
        assert (entry.name, entry.mode) == ("web-ping/app.js", 0o644)
    assert json.loads(image.raw)["schemaVersion"] == 2
