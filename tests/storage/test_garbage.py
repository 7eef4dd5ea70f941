"""What a collection takes and what it leaves, on every engine."""

from __future__ import annotations

from pathlib import Path

import pytest

from ocispec.digest import Digest
from ocispec.errors import StorageError
from ocispec.reference import RepositoryName, Tag
from storage import paths
from storage.collecting import Plan, Rules, mark, plan_removals, sweep
from storage.collecting.folders import side_by_side
from storage.collecting.references import References, reach
from tests.support.stores import Builder, described, image, index

R = RepositoryName("r")


@pytest.fixture(params=["files", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Builder:
    return Builder.on_files(tmp_path / "root") if request.param == "files" else Builder.in_memory()


async def planned(store: Builder, *, untagged: bool = False, force: bool = False) -> Plan:
    rules = Rules(store.before, untagged, force)
    return await plan_removals(store.engine, rules, await mark(store.engine, rules))


async def collect(store: Builder, *, untagged: bool = False, force: bool = False) -> Plan:
    plan = await planned(store, untagged=untagged, force=force)
    await sweep(store.engine, plan)
    return plan


async def blobs(store: Builder) -> set[str]:
    return {path.split("/")[-2] for path in await store.snapshot() if path.startswith(paths.BLOBS)}


async def holds(store: Builder, *digests: Digest) -> bool:
    return {each.hex for each in digests} <= await blobs(store)


async def test_what_nobody_names_goes_with_its_links_and_the_rest_stays(store: Builder) -> None:
    kept = await store.image("r", b"1", b"2", tag="t")
    other = await store.image("a/b", b"2", tag="t")
    before = await store.snapshot()
    await store.blob("r", b"junk")
    await store.content(b"more junk")
    plan = await collect(store)
    assert await store.snapshot() == before
    assert await holds(store, kept, other)
    assert [each.digest for each in plan.blobs] == sorted(Digest.of(each) for each in (b"junk", b"more junk"))
    assert (plan.size, plan.manifests, plan.young, plan.unreadable) == (13, 0, 0, ())


async def test_an_empty_store_is_no_fault(store: Builder) -> None:
    plan = await collect(store)
    assert (plan.marked, plan.blobs, plan.repositories) == (0, (), ())


async def test_a_link_goes_when_no_manifest_of_the_repository_names_its_blob(store: Builder) -> None:
    await store.image("a", b"shared", tag="t")
    await store.image("b", b"own", tag="t")
    shared = await store.blob("b", b"shared")
    await collect(store)
    assert paths.layer_link(RepositoryName("b"), shared) not in await store.snapshot()
    assert paths.layer_link(RepositoryName("a"), shared) in await store.snapshot()
    assert await holds(store, shared)


async def test_untagged_manifests_go_only_when_told_and_with_their_history(store: Builder) -> None:
    old = await store.image("r", b"old", tag="t")
    await store.image("r", b"new", tag="t")
    assert (await collect(store)).manifests == 0
    assert await holds(store, old)
    plan = await collect(store, untagged=True)
    assert plan.repositories[0].dead == {old: ("t",)}
    after = await store.snapshot()
    assert not any(old.hex in path for path in after)
    assert paths.tag_current_link(R, Tag("t")) in after


async def test_indexes_keep_their_children_at_any_depth(store: Builder) -> None:
    leaf = await store.image("r", b"leaf")
    inner = await store.index("r", leaf)
    outer = await store.index("r", inner, tag="t")
    before = await store.snapshot()
    await store.index("r", await store.image("r", b"dead"))
    await collect(store, untagged=True)
    assert await store.snapshot() == before
    assert await holds(store, leaf, inner, outer)


async def test_a_subject_keeps_its_referrers_and_theirs_and_takes_them_along(store: Builder) -> None:
    stays = await store.image("r", b"live", tag="t")
    sbom = await store.image("r", b"sbom", subject=described(stays))
    await store.referrer("r", stays, sbom)
    signature = await store.image("r", b"signature", subject=described(sbom))
    await store.referrer("r", sbom, signature)
    before = await store.snapshot()
    dead = await store.image("r", b"dead")
    theirs = await store.image("r", b"signature of the dead", subject=described(dead))
    await store.referrer("r", dead, theirs)
    await store.referrer("r", dead, Digest.of(b"deleted by another registry"))
    await collect(store, untagged=True)
    assert await store.snapshot() == before
    assert await holds(store, stays, sbom, signature)


async def test_a_tagged_referrer_keeps_its_subject(store: Builder) -> None:
    subject = await store.image("r", b"subject")
    await store.image("r", b"signature", subject=described(subject), tag="sha256-x.sig")
    before = await store.snapshot()
    await collect(store, untagged=True)
    assert await store.snapshot() == before


async def test_what_is_young_stays_with_all_it_needs(store: Builder) -> None:
    layer = await store.blob("r", b"layer of a push that is on its way", young=True)
    await store.content(b"data whose link comes next", young=True)
    child = await store.image("r", b"child whose index comes next", young=True)
    await store.referrer("r", child, Digest.of(b"a manifest that comes next"), young=True)
    before = await store.snapshot()
    plan = await collect(store, untagged=True)
    assert await store.snapshot() == before
    assert (plan.young, plan.blobs) == (1, ())
    assert await holds(store, layer, child)


async def test_uploads_are_left_to_their_own_purging(store: Builder) -> None:
    await store.upload("r", b"half of it")
    before = await store.snapshot()
    await collect(store, untagged=True)
    assert await store.snapshot() == before


async def test_a_repository_vanishes_when_nothing_is_left_of_it(store: Builder) -> None:
    await store.image("team/app", b"1")
    await store.image("team/app/part", b"2", tag="t")
    await store.image("alone/deep", b"3")
    plan = await collect(store, untagged=True)
    assert [each.name for each in plan.repositories if each.vanishes] == ["alone/deep", "team/app"]
    assert await store.engine.children(paths.REPOSITORIES) == ["team"]
    assert await store.engine.children(f"{paths.REPOSITORIES}/team/app") == ["part"]


async def test_a_repository_with_something_unknown_in_it_stays(store: Builder) -> None:
    await store.write(f"{paths.repository(R)}/_notes/readme", b"ours")
    before = await store.snapshot()
    plan = await collect(store, untagged=True)
    assert (plan.repositories, await store.snapshot()) == ((), before)


async def test_a_torn_tag_keeps_what_it_may_have_pointed_at(store: Builder) -> None:
    first, second = [await store.image("r", layer, tag="t") for layer in (b"1", b"2")]
    other = await store.image("r", b"3", tag="moved")
    await store.image("r", b"4", tag="moved")
    await store.write(paths.tag_current_link(R, Tag("t")), b"sha256:12")
    await collect(store, untagged=True)
    assert await holds(store, first, second)
    assert not await holds(store, other)


async def test_a_tag_folder_without_a_link_is_no_tag(store: Builder) -> None:
    digest = await store.image("r", b"1")
    await store.write(paths.tag_index_link(R, Tag("t"), digest), str(digest).encode())
    await collect(store, untagged=True)
    assert not await holds(store, digest)


@pytest.mark.parametrize("left", [b"", b"sha256:", b"x" * 5000])
async def test_torn_links_keep_what_they_are_named_after(store: Builder, left: bytes) -> None:
    digest = await store.image("r", b"1")
    await store.write(paths.revision_link(R, digest), left)
    await store.write(paths.layer_link(R, Digest.of(b"1")), left)
    before = await store.snapshot()
    await collect(store)
    assert await store.snapshot() == before


async def test_a_torn_link_of_a_blob_that_goes_goes(store: Builder) -> None:
    await store.image("r", b"1", tag="t")
    before = await store.snapshot()
    junk = await store.blob("r", b"junk")
    await store.write(paths.layer_link(R, junk), b"")
    await collect(store)
    assert await store.snapshot() == before


async def damaged(store: Builder, problem: str, tag: str | None = "t") -> Digest:
    """An image whose manifest cannot be read, beside one that can, and junk in both repositories."""
    digest = await store.image("r", b"needed", tag=tag)
    if problem == "gone":
        await store.engine.delete(paths.blob_data(digest))
    else:
        await store.write(paths.blob_data(digest), {"changed": b"{}", "long": b" " * (5 << 20)}[problem])
    await store.blob("r", b"perhaps needed")
    await store.blob("other", b"junk")
    return digest


@pytest.mark.parametrize("problem", ["gone", "changed", "long"])
async def test_a_manifest_that_cannot_be_read_keeps_all_of_its_repository(store: Builder, problem: str) -> None:
    digest = await damaged(store, problem)
    untagged = await store.image("r", b"untagged")
    plan = await collect(store, untagged=True)
    (unreadable,) = plan.unreadable
    assert (unreadable.repository, unreadable.digest) == ("r", digest)
    assert await holds(store, Digest.of(b"needed"), Digest.of(b"perhaps needed"), untagged)
    assert not await holds(store, Digest.of(b"junk"))


@pytest.mark.parametrize("problem", ["gone", "changed"])
async def test_forced_it_names_nothing_and_stays_itself(store: Builder, problem: str) -> None:
    digest = await damaged(store, problem)
    plan = await collect(store, untagged=True, force=True)
    assert len(plan.unreadable) == 1
    assert not await holds(store, Digest.of(b"needed"))
    assert paths.revision_link(R, digest) in await store.snapshot()


async def test_an_untagged_manifest_that_is_gone_needs_nothing(store: Builder) -> None:
    await damaged(store, "gone", tag=None)
    assert len((await planned(store)).unreadable) == 1
    plan = await collect(store, untagged=True)
    assert plan.unreadable == ()
    assert await store.snapshot() == {}


async def test_an_untagged_manifest_that_is_damaged_may_sign_something(store: Builder) -> None:
    await damaged(store, "changed", tag=None)
    assert len((await collect(store, untagged=True)).unreadable) == 1
    assert await holds(store, Digest.of(b"needed"))


@pytest.mark.parametrize(
    "manifest",
    [
        b'{"schemaVersion": 1, "fsLayers": [{"blobSum": "LAYER"}], "history": [{"v1Compatibility": "{\\"id\\": 1}"}]}',
        b'{"schemaVersion": 2, "mediaType": "application/vnd.example+json", "parts": ["LAYER"]}',
        b'{"schemaVersion": 2, "mediaType": "application/vnd.example+json", "annotations": {}, "parts": ["LAYER"]}',
        b'{"annotations": {}, "layers": [{"digest": "LAYER"}], "layers": []}',
        b'"annotations" LAYER',
    ],
)
async def test_a_manifest_of_an_unknown_kind_keeps_all_it_names(store: Builder, manifest: bytes) -> None:
    layer = await store.blob("r", b"layer")
    await store.manifest("r", manifest.replace(b"LAYER", str(layer).encode()), tag="t")
    before = await store.snapshot()
    plan = await collect(store, untagged=True)
    assert (await store.snapshot(), plan.unreadable) == (before, ())


async def test_an_unknown_kind_may_be_the_signature_of_whatever_it_names(store: Builder) -> None:
    subject = await store.image("r", b"1", tag="t")
    await store.manifest("r", b'{"annotations": {}, "signs": "%s"}' % str(subject).encode())
    before = await store.snapshot()
    await store.manifest("r", b'{"annotations": {}, "signs": "%s"}' % str(Digest.of(b"none")).encode())
    await collect(store, untagged=True)
    assert await store.snapshot() == before


async def test_what_only_an_annotation_names_is_not_kept(store: Builder) -> None:
    base = await store.image("r", b"base")
    await store.image("r", b"1", tag="t", annotations={"org.opencontainers.image.base.digest": str(base)})
    await collect(store, untagged=True)
    assert not await holds(store, base)


async def test_content_that_distribution_keeps_under_another_algorithm_stays(store: Builder) -> None:
    data = b"pushed under its sha512"
    canonical, alias = Digest.of(data), Digest.of(data, "sha512")
    await store.content(data)
    for each in (canonical, alias):
        await store.link("r", each, canonical)
    config = await store.blob("r", b"config")
    await store.manifest("r", image(config, [alias]), tag="t")
    before = await store.snapshot()
    await collect(store, untagged=True)
    assert await store.snapshot() == before


async def test_a_young_link_keeps_what_it_leads_to(store: Builder) -> None:
    data = b"pushed under its sha512"
    await store.content(data)
    await store.link("r", Digest.of(data, "sha512"), Digest.of(data), young=True)
    before = await store.snapshot()
    await collect(store)
    assert await store.snapshot() == before


async def test_content_under_sha512_is_kept_and_swept(store: Builder) -> None:
    kept = await store.content(b"kept", algorithm="sha512")
    await store.link("r", kept)
    await store.manifest("r", image(await store.blob("r", b"config"), [kept]), tag="t")
    before = await store.snapshot()
    await store.link("r", await store.content(b"junk", algorithm="sha512"))
    await collect(store)
    assert await store.snapshot() == before


async def test_a_child_that_the_repository_does_not_hold_keeps_its_bytes_alone(store: Builder) -> None:
    child = await store.image("elsewhere", b"1")
    await store.index("r", child, tag="t")
    await collect(store, untagged=True)
    assert await holds(store, child)
    assert not await holds(store, Digest.of(b"1"))


@pytest.mark.parametrize(
    "path",
    [
        f"{paths.REPOSITORIES}/Upper/_manifests/tags/t/current/link",
        f"{paths.manifests(R)}/revisions/blake3/{'0' * 64}/link",
    ],
)
async def test_what_nobody_can_tell_stops_everything(store: Builder, path: str) -> None:
    await store.write(path, b"")
    await store.content(b"junk")
    with pytest.raises(StorageError, match=r"Upper: holds _manifests|blake3: manifests under an algorithm"):
        await collect(store)
    assert await holds(store, Digest.of(b"junk"))


async def test_what_is_no_content_of_ours_is_passed_over(store: Builder) -> None:
    digest = Digest.of(b"1")
    await store.write(f"{paths.BLOBS}/sha256/00/{digest.hex}/data", b"1")
    await store.write(f"{paths.BLOBS}/sha256/notes", b"1")
    await store.write(f"{paths.BLOBS}/blake3/00/{'0' * 64}/data", b"1")
    await store.write(f"{paths.blob_data(Digest.of(b'2'))}.tmp", b"1")
    await store.write(f"{paths.REPOSITORIES}/.snapshot/_manifests/x", b"1")
    await store.image("r", b"1", tag="t")
    await store.write(f"{paths.repository(R)}/_layers/sha256/README", b"1")
    before = await store.snapshot()
    await collect(store)
    assert await store.snapshot() == before


async def test_folders_of_links_that_distribution_deleted_go(tmp_path: Path) -> None:
    store = Builder.on_files(tmp_path)
    await store.image("r", b"kept", tag="t")
    deleted = await store.image("r", b"deleted")
    for link in (paths.revision_link(R, deleted), paths.layer_link(R, Digest.of(b"deleted"))):
        (tmp_path / link).unlink()
    await collect(store)
    assert not [each for each in tmp_path.rglob("*") if each.name in (deleted.hex, Digest.of(b"deleted").hex)]


async def test_a_repository_of_empty_folders_vanishes(tmp_path: Path) -> None:
    store = Builder.on_files(tmp_path)
    (tmp_path / paths.repository(R) / "_uploads").mkdir(parents=True)
    (tmp_path / paths.manifests(R) / "tags").mkdir(parents=True)
    await collect(store)
    assert await store.engine.children(paths.REPOSITORIES) == []


def test_who_names_whom_may_go_in_circles() -> None:
    a, b, c = (Digest.of(each) for each in (b"a", b"b", b"c"))
    manifests = {a: References((b,)), b: References((a,), (c,)), c: References((c,), (c,))}
    assert reach([a], manifests) == {a, b}
    assert reach([c], manifests) == {a, b, c}


async def test_the_first_failure_ends_all_as_the_error_it_was() -> None:
    async def fail(number: int) -> None:
        raise StorageError(f"number {number}")

    with pytest.raises(StorageError, match="number 0"):
        await side_by_side(range(100), fail)


def test_an_index_names_its_subject_and_children() -> None:
    child, subject = Digest.of(b"child"), Digest.of(b"subject")
    raw = str(index([child], subject=described(subject))).replace("'", '"').encode()
    assert References.of(raw) == References((child, subject), (subject,))
