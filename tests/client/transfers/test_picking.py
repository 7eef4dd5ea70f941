"""Which images under a name are sent."""

from __future__ import annotations

import json
from collections.abc import Iterable

import pytest

from client.transfers.content import MAX_DEPTH
from client.transfers.picking import Picked, Wanted, pick
from ocispec.descriptor import Descriptor
from ocispec.digest import Digest
from ocispec.errors import CacheError, PlatformUnknown
from ocispec.platform import Platform
from tests.client.scripted import CONFIG, INDEX, LAYER, MANIFEST

ARM, AMD = Platform("linux", "arm64"), Platform("linux", "amd64")


class Shelf:
    """Content in memory."""

    def __init__(self) -> None:
        self.held: dict[Digest, bytes] = {}

    def put(self, data: bytes, kind: str, platform: Platform | None = None, *, here: bool = True) -> Descriptor:
        if here:
            self.held[Digest.of(data)] = data
        return Descriptor(kind, Digest.of(data), len(data), platform)

    def image(self, named: Platform | None, *, configured: Platform = AMD, here: bool = True, whole: bool = True):
        config = self.put(json.dumps({**configured.to_json(), "named": str(named)}).encode(), CONFIG, here=here)
        layer = self.put(f"layer {named} {configured}".encode(), LAYER, here=here and whole)
        members = {"config": config.to_json(), "layers": [layer.to_json()]}
        return self.document(MANIFEST, members, named, here=here)

    def index(self, *children: Descriptor, kind: str = INDEX) -> Descriptor:
        return self.document(kind, {"manifests": [each.to_json() for each in children]}, None)

    def document(self, kind: str, members: dict, platform: Platform | None, *, here: bool = True) -> Descriptor:
        raw = json.dumps({"schemaVersion": 2, "mediaType": kind, **members}).encode()
        return self.put(raw, kind, platform, here=here)

    async def read(self, wanted: Descriptor) -> bytes:
        return self.held[wanted.digest]

    async def missing(self, asked: Iterable[Descriptor]) -> list[Descriptor]:
        return [each for each in asked if each.digest not in self.held]

    async def pick(self, top: Descriptor, platform: Platform | None = None, *, every: bool = False) -> Picked:
        return await pick("x:1", self, self.missing, top, Wanted(platform, every))


def digests(picked: Picked) -> list[Digest]:
    return [each.descriptor.digest for each in picked.nodes]


async def test_an_index_that_is_all_here_goes_whole_and_each_manifest_after_what_it_names():
    shelf = Shelf()
    first, second = shelf.image(ARM), shelf.image(AMD)
    inner = shelf.index(first)
    top = shelf.index(inner, second, first)
    for every in (False, True):
        picked = await shelf.pick(top, every=every)
        assert digests(picked) == [first.digest, inner.digest, second.digest, top.digest]
        assert (picked.platform, picked.alone) == (None, False)


async def test_one_image_that_is_whole_goes_alone():
    shelf = Shelf()
    arm = shelf.image(ARM)
    top = shelf.index(shelf.image(AMD, here=False), arm, shelf.image(Platform("linux", "386"), whole=False))
    assert await shelf.pick(top) == Picked(tuple((await shelf.pick(arm)).nodes), ARM, alone=True)


async def test_an_attestation_is_no_image():
    shelf = Shelf()
    arm = shelf.image(ARM)
    attestation = shelf.image(Platform("unknown", "unknown"))
    top = shelf.index(shelf.image(AMD, here=False), arm, attestation)
    assert digests(await shelf.pick(top)) == [arm.digest]


async def test_of_several_images_but_not_all_one_has_to_be_chosen():
    shelf = Shelf()
    top = shelf.index(shelf.image(ARM), shelf.image(AMD), shelf.image(Platform("linux", "386"), here=False))
    with pytest.raises(CacheError, match=r"not all .*; choose with --platform one of linux/arm64, linux/amd64$"):
        await shelf.pick(top)
    assert (await shelf.pick(top, ARM)).platform == ARM


async def test_a_platform_that_no_image_here_runs_on_is_said():
    shelf = Shelf()
    top = shelf.index(shelf.image(ARM), shelf.image(AMD, here=False))
    with pytest.raises(PlatformUnknown, match=r"no image for linux/amd64 here; there are: linux/arm64$"):
        await shelf.pick(top, AMD)


async def test_the_config_tells_the_platform_of_an_image_without_an_index():
    shelf = Shelf()
    alone = shelf.image(None, configured=ARM)
    assert await shelf.pick(alone, ARM) == Picked((await shelf.pick(alone)).nodes, ARM, alone=False)
    with pytest.raises(PlatformUnknown, match="there are: linux/arm64"):
        await shelf.pick(alone, AMD)


async def test_an_artifact_has_no_platform():
    shelf = Shelf()
    config = shelf.put(b"{}", "application/vnd.oci.empty.v1+json")
    top = shelf.document(MANIFEST, {"config": config.to_json(), "layers": []}, None)
    assert digests(await shelf.pick(top)) == [top.digest]
    with pytest.raises(PlatformUnknown, match="there are: none"):
        await shelf.pick(top, AMD)


async def test_what_is_missing_is_named_with_its_platform():
    shelf = Shelf()
    absent = shelf.image(AMD, here=False)
    top = shelf.index(absent, shelf.image(ARM))
    with pytest.raises(CacheError, match=f"^x:1 is not whole, {absent.digest} for linux/amd64 is missing: pull it "):
        await shelf.pick(top, every=True)


async def test_a_child_that_is_no_manifest_counts_as_missing():
    shelf = Shelf()
    image = shelf.image(ARM)
    top = shelf.index(shelf.put(b"x", "text/plain"), image)
    assert digests(await shelf.pick(top)) == [image.digest]


async def test_indexes_do_not_lie_in_each_other_without_end():
    shelf = Shelf()
    top = shelf.image(ARM)
    for _ in range(MAX_DEPTH + 1):
        top = shelf.index(top)
    with pytest.raises(CacheError, match="deep in each other"):
        await shelf.pick(top)
