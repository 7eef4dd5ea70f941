"""Which image a name stands for on a platform."""

from __future__ import annotations

import json

import pytest

from client.transfers.resolving import MAX_DEPTH, Node, choose
from ocispec import mediatypes
from ocispec.descriptor import Descriptor
from ocispec.digest import Digest
from ocispec.errors import ManifestInvalid, PlatformUnknown
from ocispec.manifest import Manifest
from ocispec.platform import Platform
from ocispec.reference import Reference, Tag

NAME = Reference.parse("example.com/a:1")


class Shelf:
    """Manifests in memory, by digest and by tag."""

    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {}
        self.configs: dict[Digest, bytes] = {}

    async def manifest(self, target: Tag | Digest, media_type: str | None = None) -> Node:
        return self.nodes[str(target)]

    async def config(self, wanted: Descriptor) -> bytes:
        return self.configs[wanted.digest]

    def put(self, members: dict[str, object], tag: str = "1") -> Descriptor:
        raw = json.dumps({"schemaVersion": 2, **members}).encode()
        manifest = Manifest.parse(raw)
        descriptor = Descriptor(manifest.media_type, Digest.of(raw), len(raw))
        self.nodes[tag] = self.nodes[str(descriptor.digest)] = Node(descriptor, manifest)
        return descriptor

    def image(self, config: bytes, media_type: str = mediatypes.OCI_CONFIG) -> Descriptor:
        described = Descriptor(media_type, Digest.of(config), len(config))
        self.configs[described.digest] = config
        members = {"mediaType": mediatypes.OCI_MANIFEST, "config": described.to_json(), "layers": []}
        return self.put(members)

    def index(self, *children: tuple[str | None, Descriptor]) -> Descriptor:
        entries = []
        for platform, child in children:
            os, _, architecture = (platform or "").partition("/")
            at = {"platform": {"os": os, "architecture": architecture}} if platform else {}
            entries.append(child.to_json() | at)
        return self.put({"mediaType": mediatypes.OCI_INDEX, "manifests": entries})


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


def config(platform: str) -> bytes:
    os, _, architecture = platform.partition("/")
    return json.dumps({"os": os, "architecture": architecture}).encode()


async def test_the_wanted_platform_is_found_in_an_index(shelf: Shelf):
    amd, arm = shelf.image(config("linux/amd64")), shelf.image(config("linux/arm64"))
    root = shelf.index(("linux/amd64", amd), ("linux/arm64", arm))
    found = await choose(NAME, shelf, Platform.parse("linux/arm64"))
    assert [each.descriptor.digest for each in found.chain] == [root.digest, arm.digest]
    assert (found.platform, found.root.descriptor) == (Platform("linux", "arm64"), root)


async def test_this_machine_is_the_platform_unless_told(shelf: Shelf):
    here = str(Platform.here())
    image = shelf.image(config(here))
    shelf.index(("linux/riscv64", shelf.image(config("linux/riscv64"))), (here, image))
    assert (await choose(NAME, shelf, None)).image.descriptor.digest == image.digest


async def test_an_index_without_the_platform_tells_which_it_has(shelf: Shelf):
    image = shelf.image(config("linux/amd64"))
    attestation = shelf.image(b"{}")
    shelf.index(("linux/amd64", image), ("unknown/unknown", attestation), ("linux/arm64", image))
    with pytest.raises(PlatformUnknown, match=r"a:1: no image for windows/386; there are: linux/amd64, linux/arm64$"):
        await choose(NAME, shelf, Platform.parse("windows/386"))


async def test_an_empty_index_has_no_image(shelf: Shelf):
    shelf.index()
    with pytest.raises(PlatformUnknown, match="there are: none"):
        await choose(NAME, shelf, None)


async def test_the_only_child_of_an_index_that_names_no_platform_is_taken(shelf: Shelf):
    image = shelf.image(config("linux/amd64"))
    shelf.index((None, image))
    found = await choose(NAME, shelf, None)
    assert (found.image.descriptor.digest, found.platform) == (image.digest, None)


async def test_indexes_may_lie_in_indexes_up_to_a_bound(shelf: Shelf):
    inner = shelf.image(config("linux/amd64"))
    for _ in range(MAX_DEPTH):
        inner = shelf.index(("linux/amd64", inner))
    assert len((await choose(NAME, shelf, Platform.parse("amd64"))).chain) == MAX_DEPTH + 1
    shelf.index(("linux/amd64", inner))
    with pytest.raises(ManifestInvalid, match="more than 4 deep"):
        await choose(NAME, shelf, Platform.parse("amd64"))


async def test_an_image_without_index_is_taken_as_it_is(shelf: Shelf):
    image = shelf.image(config("windows/arm64"))
    found = await choose(NAME, shelf, None)
    assert (found.image.descriptor, found.platform, len(found.chain)) == (image, None, 1)


async def test_an_image_without_index_is_checked_against_a_platform_that_was_asked_for(shelf: Shelf):
    shelf.image(config("linux/arm64"))
    assert (await choose(NAME, shelf, Platform.parse("arm64"))).platform == Platform("linux", "arm64")
    with pytest.raises(PlatformUnknown, match="no image for linux/amd64; there are: linux/arm64"):
        await choose(NAME, shelf, Platform.parse("amd64"))


async def test_a_config_that_cannot_be_read_is_named(shelf: Shelf):
    shelf.image(b"[]")
    with pytest.raises(ManifestInvalid, match=r"example\.com/a:1: image config invalid"):
        await choose(NAME, shelf, Platform.parse("amd64"))


async def test_an_artifact_runs_on_any_platform(shelf: Shelf):
    shelf.image(b"{}", "application/vnd.cncf.helm.config.v1+json")
    assert (await choose(NAME, shelf, Platform.parse("amd64"))).platform is None
