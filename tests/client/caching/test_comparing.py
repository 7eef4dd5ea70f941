"""Which layers images share, and what a pull moves."""

from __future__ import annotations

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.caching.cache import Cache, Variant
from client.caching.comparing import Branch, Comparison, Side, compare, side, size_of, tree
from client.session import Session
from client.transfers.pulling import pull
from ocispec.digest import Digest
from ocispec.errors import ManifestUnknown, PlatformUnknown
from ocispec.manifest import Manifest
from ocispec.mediatypes import OCI_CONFIG, OCI_LAYER, OCI_MANIFEST
from ocispec.platform import Platform
from tests.client.scripted import ScriptedRegistry

layers = st.lists(st.integers(0, 5), max_size=6)


def described(number: int, media_type: str = OCI_LAYER) -> dict[str, object]:
    digest = f"sha256:{hashlib.sha256(str(number).encode()).hexdigest()}"
    return {"mediaType": media_type, "digest": digest, "size": number + 1}


def variant(*numbers: int, config: int = 100, **members: object) -> Variant:
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": described(config, OCI_CONFIG),
        "layers": [{**described(each), **members} for each in numbers],
    }
    raw = json.dumps(manifest).encode()
    return Variant.of(Digest.of(raw), Manifest.parse(raw), None, None)


def compared(a: Variant, b: Variant) -> Comparison:
    return compare(Side("a", a, cached=True), Side("b", b, cached=True))


def sizes(found: Comparison) -> dict[str, list[int]]:
    lists = {"base": found.base, "elsewhere": found.elsewhere, "only_a": found.only_a, "only_b": found.only_b}
    return {name: [each.size for each in steps] for name, steps in lists.items()}


def test_layers_are_shared_up_to_the_first_difference_and_elsewhere_by_chance():
    found = compared(variant(0, 1, 2, 3), variant(0, 1, 9, 3))
    assert sizes(found) == {"base": [1, 2], "elsewhere": [4], "only_a": [3], "only_b": [10]}
    assert found.moved == 10
    assert found.parting
    assert found.parting.size == 10


def test_an_image_on_top_of_another_parts_where_that_ends():
    found = compared(variant(0, 1), variant(0, 1, 2))
    assert (found.parting.size if found.parting else None, found.moved) == (3, 3)
    assert compared(variant(0, 1, 2), variant(0, 1)).parting is None


def test_a_config_and_no_foreign_layer_moves():
    assert compared(variant(0, config=7), variant(0, config=8)).moved == 9
    foreign = variant(5, mediaType="application/vnd.docker.image.rootfs.foreign.diff.tar", urls=["https://a"])
    assert compared(variant(), foreign).moved == 0


@given(layers, layers)
def test_every_layer_of_both_stands_in_one_list_and_only_new_bytes_move(a: list[int], b: list[int]):
    found = compared(variant(*a), variant(*b))
    assert sorted(each.size - 1 for each in (*found.base, *found.elsewhere, *found.only_b)) == sorted(b)
    assert {each.size - 1 for each in found.only_a} == set(a[len(found.base) :]) - set(b)
    assert found.moved == sum(each + 1 for each in set(b) - set(a)) == size_of(found.only_b)
    assert compared(variant(*a), variant(*a)).moved == 0


def chains(branches: tuple[Branch, ...], below: tuple[str, ...] = ()) -> dict[int, tuple[str, ...]]:
    found: dict[int, tuple[str, ...]] = {}
    for each in branches:
        chain = (*below, *(str(layer.digest) for layer in each.layers))
        found |= dict.fromkeys(each.images, chain) | chains(each.branches, chain)
    return found


def all_branches(branches: tuple[Branch, ...]) -> list[Branch]:
    return [found for each in branches for found in (each, *all_branches(each.branches))]


@given(st.lists(layers, max_size=8))
def test_the_tree_holds_every_image_with_its_chain_and_no_branch_for_nothing(images: list[list[int]]):
    grown = tree([variant(*each) for each in images])
    wanted = {n: tuple(str(described(each)["digest"]) for each in numbers) for n, numbers in enumerate(images)}
    assert chains(grown) == wanted
    assert sum(each.count for each in grown) == len(images)
    for siblings in (grown, *(each.branches for each in all_branches(grown))):
        firsts = [each.layers[:1] for each in siblings]
        assert len(set(firsts)) == len(firsts)
    # A branch without an image of its own is one because several go on from it.
    assert all(each.images or len(each.branches) > 1 for each in all_branches(grown))


async def test_an_image_that_is_not_in_the_cache_is_asked_for_and_no_layer_of_it_comes(
    registry: ScriptedRegistry, cache: Cache
):
    one = registry.publish("a/b", "1", [b"base", b"one"])
    registry.publish("a/b", "2", [b"base", b"other"])
    await pull(f"{registry.host}/a/b:1", cache=cache)
    registry.seen.clear()
    async with Session() as session:
        a, b = [await side(session, cache, f"{registry.host}/a/b:{tag}", None) for tag in "12"]
    assert (a.cached, b.cached, str(a.image.digest)) == (True, False, one.digest)
    found = compare(a, b)
    assert found.moved == len(b"other")
    assert not {str(each.digest) for each in b.image.layers} & set(registry.blobs())
    assert found.to_json()["b"]["cached"] is False


async def test_a_platform_is_chosen_and_what_is_nowhere_is_told(registry: ScriptedRegistry, cache: Cache):
    registry.publish_index("a/b", "1", {"amd64": [b"x"], "arm64": [b"y"]})
    name = f"{registry.host}/a/b:1"
    async with Session() as session:
        found = await side(session, cache, name, Platform.parse("linux/arm64"))
        assert [each.digest for each in found.image.layers] == [Digest.of(b"y")]
        with pytest.raises(ManifestUnknown):
            await side(session, cache, f"{registry.host}/a/none", None)
        await pull(name, platform="linux/arm64", cache=cache)
        with pytest.raises(PlatformUnknown, match="no image for linux/386 in the cache; there are: linux/arm64"):
            await side(session, cache, name, Platform.parse("linux/386"))


async def test_a_config_that_is_none_hides_no_layer(registry: ScriptedRegistry, cache: Cache):
    config = {"mediaType": OCI_CONFIG, **registry.blob("a/b", b"[]")}
    registry.manifest("a/b", "1", {"mediaType": OCI_MANIFEST, "config": config, "layers": [described(1)]})
    chart = {"mediaType": "application/vnd.cncf.helm.config.v1+json", **registry.blob("a/b", b"{}")}
    registry.manifest("a/b", "2", {"mediaType": OCI_MANIFEST, "config": chart, "layers": [described(1)]})
    async with Session() as session:
        a, b = [await side(session, cache, f"{registry.host}/a/b:{tag}", None) for tag in "12"]
    assert [each.config for each in (a.image, b.image)] == [None, None]
    assert size_of(compare(a, b).base) == 2
