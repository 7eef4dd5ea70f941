"""Every blob hashed again, whatever happened to it; and what is broken fetched again."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from client.caching.cache import Cache
from client.caching.verifying import Flaw, Kind, Progress, Verification, mend
from client.session import Session
from client.transfers.pulling import pull
from ocispec import mediatypes
from ocispec.descriptor import REF_NAME, Descriptor
from ocispec.digest import Digest
from ocispec.errors import LayerhouseError, StorageError
from tests.client.filled import image, index, put, spoil
from tests.client.scripted import Reply, ScriptedRegistry

NAME, OTHER = "a.example/x:1", "a.example/y:1"


def told(flaws: list[Flaw]) -> list[tuple[Kind, Digest, tuple[str, ...]]]:
    return [(each.kind, each.wanted.digest, each.names) for each in flaws]


async def mended(cache: Cache, names: list[str] | None = None) -> tuple[list[Flaw], list[LayerhouseError | None]]:
    outcomes: list[LayerhouseError | None] = []
    verification = Verification(cache.layout, names)
    flaws = await verification.flaws()
    async with Session(jobs=2) as session:
        left = await mend(session, cache.layout, verification, flaws, lambda _, error: outcomes.append(error))
    return left, outcomes


async def test_a_sound_cache_has_no_flaws_and_progress_is_told(cache: Cache):
    await image(cache, [b"x" * 10, b"y"], name=NAME)
    heard: list[Progress] = []
    verification = Verification(cache.layout, told=heard.append)
    assert await verification.flaws() == []
    assert verification.blobs == 4
    assert heard[-1] == Progress(4, 4, verification.size, verification.size)
    assert await verification.flaws() == []
    assert verification.blobs == 4  # good ones are not hashed again


async def test_no_cache_has_no_flaws(cache: Cache):
    assert await Verification(cache.layout).flaws() == []


async def test_each_flaw_is_told_with_the_images_that_need_the_blob(cache: Cache):
    await image(cache, [b"base", b"1", b"gone"], name=NAME)
    await image(cache, [b"base", b"2"], name=OTHER)
    for each in (b"base", b"nobody's"):
        await put(cache, each)
        spoil(cache, Digest.of(each))
    cache.layout.path(Digest.of(b"gone")).unlink()
    found = told(await Verification(cache.layout).flaws())
    assert set(found) == {
        (Kind.DAMAGED, Digest.of(b"base"), (NAME, OTHER)),
        (Kind.DAMAGED, Digest.of(b"nobody's"), ()),
        (Kind.MISSING, Digest.of(b"gone"), (NAME,)),
    }
    assert not cache.layout.path(Digest.of(b"base")).exists()
    again = told(await Verification(cache.layout, [OTHER]).flaws())
    assert again == [(Kind.MISSING, Digest.of(b"base"), (OTHER,))]


async def test_only_what_was_asked_for_is_hashed(cache: Cache):
    await image(cache, [b"base", b"1"], name=NAME)
    await image(cache, [b"base", b"2"], name=OTHER)
    spoil(cache, Digest.of(b"2"))
    verification = Verification(cache.layout, [NAME])
    assert await verification.flaws() == []
    assert verification.blobs == 4


async def test_a_manifest_is_named_before_what_it_names(cache: Cache):
    child = await image(cache, [b"x"])
    top = await index(cache, NAME, [child])
    for each in (Digest.of(b"x"), child.digest, top.digest):
        spoil(cache, each)
    kinds = [each.wanted.media_type for each in await Verification(cache.layout).flaws()]
    # Below an index that is damaged nothing is known.
    assert kinds == [mediatypes.OCI_INDEX, mediatypes.OCTET_STREAM, mediatypes.OCTET_STREAM]


async def test_right_bytes_that_are_no_manifest_cannot_be_mended(cache: Cache):
    strange = await put(cache, b"[]", mediatypes.OCI_MANIFEST)
    await cache.layout.set_name(NAME, strange)
    (flaw,) = await Verification(cache.layout).flaws()
    assert (flaw.kind, flaw.mendable) == (Kind.INVALID, False)
    assert "expected an object" in flaw.cause
    left, outcomes = await mended(cache)
    assert told(left) == told([flaw])
    assert outcomes == []


async def test_an_index_without_any_image_is_empty(cache: Cache):
    absent = Descriptor(mediatypes.OCI_MANIFEST, Digest.of(b"absent"), 6)
    top = await index(cache, NAME, [absent])
    await index(cache, OTHER, [absent, await image(cache, [b"x"])])
    assert told(await Verification(cache.layout).flaws()) == [(Kind.EMPTY, top.digest, (NAME,))]


async def test_what_cannot_be_read_is_told_and_the_rest_is_checked(cache: Cache, monkeypatch: pytest.MonkeyPatch):
    await image(cache, [b"x", b"y"], name=NAME)
    check = cache.layout.check

    async def refused(digest: Digest, hashed: object) -> bool:
        if digest == Digest.of(b"x"):
            raise StorageError("x: Permission denied")
        return await check(digest, hashed)

    monkeypatch.setattr(cache.layout, "check", refused)
    (flaw,) = await Verification(cache.layout).flaws()
    assert (flaw.kind, flaw.cause, flaw.to_json()["kind"]) == (Kind.UNREADABLE, "x: Permission denied", "unreadable")


async def test_a_blob_that_is_pruned_meanwhile_is_no_flaw(cache: Cache):
    for n in range(40):
        await put(cache, b"lone %d" % n)

    def prune(_progress: Progress) -> None:
        for each in (cache.root / "blobs" / "sha256").iterdir():
            each.unlink()

    assert await Verification(cache.layout, told=prune).flaws() == []


async def test_a_verification_that_is_cancelled_ends_and_leaves_good_blobs(cache: Cache):
    await image(cache, [b"x" * 100_000], name=NAME)
    verifying = asyncio.create_task(Verification(cache.layout, told=lambda _: verifying.cancel() and None).flaws())
    with pytest.raises(asyncio.CancelledError):
        await verifying
    assert await Verification(cache.layout).flaws() == []


@pytest.mark.parametrize("quarantined", [True, False])
async def test_everything_that_is_broken_comes_again(registry: ScriptedRegistry, cache: Cache, quarantined: bool):
    digest, children = registry.publish_index("a/b", "1", {"amd64": [b"base", b"app"], "arm64": [b"arm"]})
    name = f"{registry.host}/a/b:1"
    await pull(name, platform="linux/amd64", cache=cache)
    child = Digest.parse(children["amd64"].digest)
    for each in (Digest.parse(digest), child, Digest.of(b"base")):
        spoil(cache, each)
    cache.layout.path(Digest.of(b"app")).unlink()
    if quarantined:  # an earlier call found it, and this one knows it from there
        await Verification(cache.layout).flaws()
    registry.seen.clear()
    left, outcomes = await mended(cache)
    assert left == []
    assert outcomes == [None] * 4
    assert (await cache.inspect(name)).variants[0].digest == child
    assert await Verification(cache.layout).flaws() == []
    assert len(registry.blobs()) == 2  # what was good did not come again


async def test_a_blob_is_fetched_through_any_name_that_needs_it(registry: ScriptedRegistry, cache: Cache):
    for repository in ("a/a", "b/b"):
        registry.publish(repository, "1", [b"base"])
        await pull(f"{registry.host}/{repository}:1", cache=cache)
    spoil(cache, Digest.of(b"base"))
    del registry.behaviours[f"/v2/a/a/blobs/{Digest.of(b'base')}"]
    assert await mended(cache) == ([], [None])


async def test_what_cannot_be_had_again_is_told_and_the_rest_is_mended(registry: ScriptedRegistry, cache: Cache):
    registry.publish("a/b", "1", [b"gone", b"wrong", b"good"])
    name = f"{registry.host}/a/b:1"
    await pull(name, cache=cache)
    for each in (b"gone", b"wrong", b"good"):
        spoil(cache, Digest.of(each))
    gone, wrong = (f"/v2/a/b/blobs/{Digest.of(each)}" for each in (b"gone", b"wrong"))
    del registry.behaviours[gone]
    registry.behaviours[wrong] = Reply(200, b"gnorw")
    left, outcomes = await mended(cache)
    assert {each.wanted.digest for each in left} == {Digest.of(b"gone"), Digest.of(b"wrong")}
    messages = [each.message for each in outcomes if each]
    assert len(messages) == 2
    assert all(each.startswith(name) for each in messages)


async def test_damage_that_nobody_needs_is_settled_by_quarantine(cache: Cache):
    await put(cache, b"x")
    spoil(cache, Digest.of(b"x"))
    assert await mended(cache) == ([], [])


async def test_a_name_that_tells_no_registry_cannot_be_mended(cache: Cache, tmp_path: Path):
    child = await image(cache, [b"x"])
    entries = [{**child.to_json(), "annotations": {REF_NAME: each}} for each in ("short", "UP+PER")]
    (cache.root / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": entries}))
    spoil(cache, Digest.of(b"x"))
    left, outcomes = await mended(cache)
    assert told(left) == [(Kind.MISSING, Digest.of(b"x"), ("short", "UP+PER"))]
    assert [each.message for each in outcomes if each] == [
        f"{Digest.of(b'x')}: no name of an image tells where it can be had"
    ]
