"""What names need, in a cache that may be damaged in any way."""

from __future__ import annotations

import asyncio
import json

from client.caching.cache import Cache
from client.caching.census import census, reached
from ocispec import mediatypes
from ocispec.descriptor import Descriptor
from ocispec.digest import Digest
from ocispec.errors import ManifestInvalid, PathUnknown, StorageError
from tests.client.filled import image, index, put, spoil

NAME, OTHER = "a.example/x:1", "a.example/y:1"


async def test_an_index_needs_its_images_and_their_blobs(cache: Cache):
    children = [await image(cache, [b"base", each.encode()], architecture=each) for each in ("amd64", "arm64")]
    top = await index(cache, NAME, children)
    taken = await census(cache.layout, await cache.layout.entries())
    held = {each.digest async for each in cache.layout.blobs()}
    assert set(taken.needs) == held
    assert taken.names(top.digest) == taken.names(Digest.of(b"base")) == [NAME]
    assert taken.names(Digest.of(b"nobody's")) == []
    assert not taken.unread
    assert not any(each.optional for each in taken.needs.values())


async def test_what_several_names_need_is_theirs(cache: Cache):
    await image(cache, [b"base", b"1"], name=NAME)
    await image(cache, [b"base", b"2"], name=OTHER)
    taken = await census(cache.layout, await cache.layout.entries())
    assert taken.names(Digest.of(b"base")) == [NAME, OTHER]
    assert taken.names(Digest.of(b"2")) == [OTHER]


async def test_images_that_were_not_pulled_and_foreign_layers_may_be_missing(cache: Cache):
    absent = Descriptor(mediatypes.OCI_MANIFEST, Digest.of(b"absent"), 6)
    foreign = Descriptor("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", Digest.of(b"f"), 1, urls=("x",))
    manifest = {
        "schemaVersion": 2,
        "config": (await put(cache, b"{}", mediatypes.OCI_CONFIG)).to_json(),
        "layers": [foreign.to_json()],
    }
    await index(cache, NAME, [absent, await put(cache, json.dumps(manifest).encode(), mediatypes.OCI_MANIFEST)])
    taken = await census(cache.layout, await cache.layout.entries())
    assert {digest for digest, each in taken.needs.items() if each.optional} == {absent.digest, foreign.digest}
    assert not taken.unread


async def test_an_image_that_is_in_quarantine_was_pulled(cache: Cache):
    child = await image(cache, [b"x"])
    await index(cache, NAME, [child])
    spoil(cache, child.digest)
    await cache.layout.check(child.digest, lambda _: None)
    taken = await census(cache.layout, await cache.layout.entries())
    assert not taken.needs[child.digest].optional
    assert [each.descriptor.digest for _, each in taken.unread] == [child.digest]


async def test_a_manifest_that_cannot_be_read_is_told_and_hides_no_other(cache: Cache):
    gone, bad = [await image(cache, [each], name=f"a.example/{each.decode()}:1") for each in (b"gone", b"bad")]
    strange = await put(cache, b"[]", mediatypes.OCI_MANIFEST)
    await cache.layout.set_name("a.example/strange:1", strange)
    await image(cache, [b"x"], name=NAME)
    cache.layout.path(gone.digest).unlink()
    spoil(cache, bad.digest)
    taken = await census(cache.layout, await cache.layout.entries())
    kinds = {each.descriptor.digest: type(each.problem) for _, each in taken.unread}
    assert kinds == {gone.digest: PathUnknown, bad.digest: StorageError, strange.digest: ManifestInvalid}
    assert taken.names(Digest.of(b"x")) == [NAME]


async def test_content_of_another_kind_needs_itself_alone(cache: Cache):
    blob = await put(cache, b"anything", "text/plain")
    await cache.layout.set_name(NAME, blob)
    taken = await census(cache.layout, await cache.layout.entries())
    assert list(taken.needs) == [blob.digest]
    assert not taken.unread


async def test_indexes_that_name_the_same_again_and_again_are_read_once(cache: Cache):
    child = await image(cache, [b"x"])
    for _ in range(30):  # each twice the one before: 2**30 ways down
        child = await index(cache, NAME, [child, child])
    found = [each async for each in reached(cache.layout, child)]
    assert len(found) == 31
    async with asyncio.timeout(60):
        assert len((await cache.images())[0].variants) == 1
