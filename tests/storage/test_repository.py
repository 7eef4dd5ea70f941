"""Hosted repositories: uploads, blobs, manifests, tags and referrers, on every engine."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ocispec import mediatypes
from ocispec.digest import Digest
from ocispec.errors import (
    BlobUnknown,
    BlobUploadUnknown,
    DigestInvalid,
    ManifestBlobUnknown,
    ManifestInvalid,
    ManifestTooLarge,
    ManifestUnknown,
    NameUnknown,
    RangeInvalid,
    SizeInvalid,
    StorageError,
)
from ocispec.headers import ChunkRange
from ocispec.reference import RepositoryName, Tag
from storage import paths
from storage.engine import PIECE, Engine
from storage.files import FilesEngine
from storage.memory import MemoryEngine
from storage.repository import MAX_MANIFEST, Repository
from storage.store import Store

NAME = RepositoryName.parse("team/app")
OTHER = RepositoryName.parse("other")
DATA = hashlib.shake_256(b"layer").digest(3 * PIECE + 17)
DIGEST = Digest.of(DATA)


@pytest.fixture(params=["files", "memory"])
async def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Engine:
    made: Engine = FilesEngine(tmp_path / "root") if request.param == "files" else MemoryEngine()
    await made.start()
    return made


@pytest.fixture
def store(engine: Engine) -> Store:
    return Store(engine)


@pytest.fixture
def repository(store: Store) -> Repository:
    return store.repository(NAME)


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def breaking(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part
    raise ConnectionResetError("the client hung up")


async def push(repository: Repository, data: bytes, algorithm: str = "sha256") -> Digest:
    digest = Digest.of(data, algorithm)
    await repository.uploads.commit(await repository.uploads.begin(), digest, chunks(data))
    return digest


async def read(repository: Repository, digest: Digest) -> bytes:
    content = await repository.blobs.open(digest)
    try:
        return b"".join([piece async for piece in content.stream(0, content.size)])
    finally:
        await content.close()


def image(*layers: bytes, **members: object) -> bytes:
    def descriptor(data: bytes, kind: str) -> dict[str, object]:
        return {"mediaType": kind, "digest": str(Digest.of(data)), "size": len(data)}

    return json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": mediatypes.OCI_MANIFEST,
            "config": descriptor(b"{}", mediatypes.OCI_CONFIG),
            "layers": [descriptor(each, mediatypes.OCI_LAYER_GZIP) for each in layers],
            **members,
        }
    ).encode()


async def push_image(repository: Repository, tag: str, *layers: bytes, **members: object) -> Digest:
    for each in (b"{}", *layers):
        await push(repository, each)
    stored, _ = await repository.manifests.put(Tag(tag), image(*layers, **members), None)
    return stored.digest


def anyone(_name: RepositoryName) -> bool:
    """Who may read every repository."""
    return True


# Uploads


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
async def test_a_whole_blob_is_pushed_and_read(repository: Repository, algorithm: str) -> None:
    digest = await push(repository, DATA, algorithm)
    assert digest.algorithm == algorithm
    assert await repository.blobs.size(digest) == len(DATA)
    assert await read(repository, digest) == DATA


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(cuts=st.lists(st.integers(0, len(DATA)), max_size=5), asked=st.sampled_from(["sha256", "sha512"]))
async def test_a_blob_in_any_chunks_through_any_processes_has_its_digest(
    engine: Engine, cuts: list[int], asked: str
) -> None:
    stores = [Store(engine), Store(engine)]  # two workers share nothing but the engine
    upload = await stores[0].repository(NAME).uploads.begin(asked)
    edges = [0, *sorted(cuts), len(DATA)]
    for n, (start, end) in enumerate(itertools.pairwise(edges)):
        span = ChunkRange(start, end - 1) if end > start else None
        uploads = stores[n % 2].repository(NAME).uploads
        assert await uploads.append(upload, chunks(DATA[start:end]), span) == end
        assert await stores[1 - n % 2].repository(NAME).uploads.size(upload) == end
    digest = Digest.of(DATA, asked)
    await stores[1].repository(NAME).uploads.commit(upload, digest, chunks())
    assert await read(stores[0].repository(NAME), digest) == DATA


async def test_a_wrong_digest_leaves_nothing_behind(engine: Engine, repository: Repository) -> None:
    upload = await repository.uploads.begin()
    with pytest.raises(DigestInvalid, match=str(DIGEST)):
        await repository.uploads.commit(upload, DIGEST, chunks(DATA, b"!"))
    with pytest.raises(BlobUploadUnknown):
        await repository.uploads.size(upload)
    with pytest.raises(BlobUnknown):
        await repository.blobs.open(DIGEST)
    assert await engine.children(paths.BLOBS) == []


async def test_a_chunk_out_of_order_is_refused_and_tells_where_to_go_on(repository: Repository) -> None:
    upload = await repository.uploads.begin()
    await repository.uploads.append(upload, chunks(b"12345"))
    for span in (ChunkRange(6, 7), ChunkRange(0, 4)):
        with pytest.raises(RangeInvalid) as caught:
            await repository.uploads.append(upload, chunks(b"xx"), span)
        assert caught.value.headers["Range"] == "0-4"
        with pytest.raises(RangeInvalid):
            await repository.uploads.commit(upload, Digest.of(b"12345"), chunks(b"xx"), span)
    await repository.uploads.commit(upload, Digest.of(b"12345"), chunks())


@pytest.mark.parametrize("body", [b"123", b"12345", b""])
async def test_a_chunk_of_another_length_than_announced_is_taken_back(repository: Repository, body: bytes) -> None:
    upload = await repository.uploads.begin()
    await repository.uploads.append(upload, chunks(b"ab"))
    with pytest.raises(SizeInvalid):
        await repository.uploads.append(upload, chunks(body), ChunkRange(2, 5))
    assert await repository.uploads.size(upload) == 2
    await repository.uploads.commit(upload, Digest.of(b"abcdef"), chunks(b"cd", b"ef"), ChunkRange(2, 5))


async def test_a_chunk_that_never_ends_is_cut_off_where_its_range_ends(repository: Repository) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += PIECE
            yield b"x" * PIECE

    upload = await repository.uploads.begin()
    with pytest.raises(SizeInvalid):
        await repository.uploads.append(upload, endless(), ChunkRange(0, 9))
    assert sent <= 2 * PIECE
    assert await repository.uploads.size(upload) == 0


async def test_what_arrived_before_the_connection_broke_is_kept(repository: Repository) -> None:
    upload = await repository.uploads.begin()
    with pytest.raises(ConnectionResetError):
        await repository.uploads.append(upload, breaking(DATA[:PIECE], DATA[PIECE : PIECE + 5]))
    size = await repository.uploads.size(upload)
    assert size == PIECE + 5
    await repository.uploads.commit(upload, DIGEST, chunks(DATA[size:]))
    assert await read(repository, DIGEST) == DATA


async def test_a_chunk_that_broke_in_its_range_can_go_on_from_the_size_there_is(repository: Repository) -> None:
    upload = await repository.uploads.begin()
    with pytest.raises(ConnectionResetError):
        await repository.uploads.append(upload, breaking(DATA[:PIECE]), ChunkRange(0, len(DATA) - 1))
    rest = ChunkRange(PIECE, len(DATA) - 1)
    await repository.uploads.append(upload, chunks(DATA[PIECE:]), rest)
    await repository.uploads.commit(upload, DIGEST, chunks())


async def test_a_cancelled_chunk_leaves_an_upload_that_can_go_on(repository: Repository) -> None:
    upload = await repository.uploads.begin()
    arrived = asyncio.Event()

    async def stalling() -> AsyncIterator[bytes]:
        yield DATA[: 2 * PIECE]
        arrived.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(repository.uploads.append(upload, stalling()))
    await arrived.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    size = await repository.uploads.size(upload)
    await repository.uploads.commit(upload, DIGEST, chunks(DATA[size:]))


async def test_a_cancelled_upload_is_gone(repository: Repository) -> None:
    upload = await repository.uploads.begin()
    await repository.uploads.cancel(upload)
    for again in (repository.uploads.cancel(upload), repository.uploads.size(upload)):
        with pytest.raises(BlobUploadUnknown):
            await again
    with pytest.raises(BlobUploadUnknown):
        await repository.uploads.append(upload, chunks(b"x"))
    with pytest.raises(BlobUploadUnknown):
        await repository.uploads.commit(uuid4(), DIGEST, chunks(DATA))


async def test_a_write_that_failed_is_not_counted_and_the_hash_starts_over(engine: Engine) -> None:
    failing = FailingOnce(engine)
    repository = Store(failing).repository(NAME)  # type: ignore[arg-type]
    upload = await repository.uploads.begin()
    await repository.uploads.append(upload, chunks(DATA[:PIECE]))
    failing.fail = True
    with pytest.raises(StorageError, match="disk"):
        await repository.uploads.append(upload, chunks(DATA[PIECE:]))
    assert await repository.uploads.size(upload) == PIECE
    await repository.uploads.commit(upload, DIGEST, chunks(DATA[PIECE:]))
    assert await read(repository, DIGEST) == DATA


class FailingOnce:
    """An engine whose appender fails its next write, after the hash has seen half of the piece."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.fail = False

    def __getattr__(self, name: str) -> object:
        return getattr(self._engine, name)

    def append(self, path: str) -> object:
        outer, inner = self, self._engine.append(path)

        class Context:
            async def __aenter__(self) -> object:
                self.appender = await inner.__aenter__()
                return self

            async def __aexit__(self, *args: object) -> object:
                return await inner.__aexit__(*args)  # type: ignore[arg-type]

            def __getattr__(self, name: str) -> object:
                return getattr(self.appender, name)

            async def write(self, data: bytes, running: object = None) -> None:
                if outer.fail:
                    outer.fail = False
                    if running:
                        running.update(data[:10])  # type: ignore[attr-defined]
                    raise StorageError("disk broke")
                await self.appender.write(data, running)

        return Context()


async def test_stale_uploads_are_purged_and_young_ones_are_not(store: Store, repository: Repository) -> None:
    upload = await repository.uploads.begin()
    await repository.uploads.append(upload, chunks(b"1"))
    assert [each async for each in store.purge_uploads(before=0)] == []
    for dry_run in (True, False):
        assert await repository.uploads.size(upload) == 1
        found = [each async for each in store.purge_uploads(before=2**40, dry_run=dry_run)]
        assert found == [f"{NAME}/{upload}"]
    with pytest.raises(BlobUploadUnknown):
        await repository.uploads.size(upload)


# Blobs


async def test_a_blob_belongs_to_the_repositories_that_link_it(store: Store, repository: Repository) -> None:
    await push(repository, DATA)
    other = store.repository(OTHER)
    with pytest.raises(BlobUnknown):
        await other.blobs.size(DIGEST)
    assert await other.blobs.mount(DIGEST, NAME, anyone)
    assert await read(other, DIGEST) == DATA
    await repository.blobs.delete(DIGEST)
    with pytest.raises(BlobUnknown):
        await repository.blobs.open(DIGEST)
    with pytest.raises(BlobUnknown):
        await repository.blobs.delete(DIGEST)
    assert await read(other, DIGEST) == DATA


async def test_mounting_what_the_source_does_not_hold_is_no_mount(store: Store, repository: Repository) -> None:
    other = store.repository(OTHER)
    assert not await other.blobs.mount(DIGEST, NAME, anyone)
    assert not await other.blobs.mount(DIGEST, None, anyone)
    await push(repository, DATA)
    await repository.blobs.delete(DIGEST)
    assert not await other.blobs.mount(DIGEST, NAME, anyone)
    assert not await other.blobs.mount(DIGEST, None, anyone), "a blob that nobody holds any more is not handed out"


async def test_mounting_without_a_source_searches_the_repositories(store: Store, repository: Repository) -> None:
    await push(repository, DATA)
    other = store.repository(OTHER)
    assert await other.blobs.mount(DIGEST, None, anyone)
    assert await read(other, DIGEST) == DATA


@pytest.mark.parametrize("torn", [b"", b"sha2", b"sha256:", b"sha256:zz"])
async def test_a_torn_link_counts_as_absent_and_a_push_repairs_it(
    engine: Engine, repository: Repository, torn: bytes
) -> None:
    digest = await push_image(repository, "v1", DATA)
    for path in (
        paths.layer_link(NAME, DIGEST),
        paths.revision_link(NAME, digest),
        paths.tag_current_link(NAME, Tag("v1")),
    ):
        await engine.write(path, torn)
    with pytest.raises(BlobUnknown):
        await repository.blobs.size(DIGEST)
    with pytest.raises(ManifestUnknown):
        await repository.manifests.get(Tag("v1"))
    with pytest.raises(ManifestUnknown):
        await repository.manifests.get(digest)
    assert (await repository.tags.page("", 10)).entries == ()
    assert await push_image(repository, "v1", DATA) == digest
    assert (await repository.manifests.get(Tag("v1"))).digest == digest


async def test_a_push_repairs_data_that_was_lost_or_damaged(engine: Engine, repository: Repository) -> None:
    await push(repository, DATA)
    await engine.delete(paths.blob_data(DIGEST))
    with pytest.raises(BlobUnknown):
        await repository.blobs.open(DIGEST)
    await engine.write(paths.blob_data(DIGEST), b"damaged")
    await push(repository, DATA)
    assert await read(repository, DIGEST) == DATA


# Manifests and tags


async def test_an_image_is_pushed_and_pulled_by_tag_and_digest(repository: Repository) -> None:
    digest = await push_image(repository, "v1", DATA)
    for reference in (Tag("v1"), digest):
        stored = await repository.manifests.get(reference)
        assert (stored.raw, stored.digest) == (image(DATA), digest)
        assert stored.media_type == mediatypes.OCI_MANIFEST
    with pytest.raises(ManifestUnknown):
        await repository.manifests.get(Tag("v2"))


async def test_missing_blobs_are_named_each(repository: Repository) -> None:
    await push(repository, b"{}")
    with pytest.raises(ManifestBlobUnknown) as caught:
        await repository.manifests.put(Tag("v1"), image(b"one", b"two"), None)
    missing = [str(Digest.of(each)) for each in (b"one", b"two")]
    assert caught.value.detail == [{"digest": each} for each in missing]
    assert all(each in caught.value.message for each in missing)
    with pytest.raises(ManifestUnknown):
        await repository.manifests.get(Tag("v1"))


async def test_a_store_for_sparse_images_takes_them(engine: Engine) -> None:
    repository = Store(engine, sparse_images=True).repository(NAME)
    stored, _ = await repository.manifests.put(Tag("v1"), image(b"never pushed"), None)
    assert (await repository.manifests.get(stored.digest)).digest == stored.digest


async def test_an_index_may_name_children_that_are_not_there(repository: Repository) -> None:
    child = {"mediaType": mediatypes.OCI_MANIFEST, "digest": str(DIGEST), "size": 5}
    raw = json.dumps({"schemaVersion": 2, "mediaType": mediatypes.OCI_INDEX, "manifests": [child]}).encode()
    stored, _ = await repository.manifests.put(Tag("multi"), raw, mediatypes.OCI_INDEX)
    assert (await repository.manifests.get(stored.digest)).raw == raw


@pytest.mark.parametrize(
    ("raw", "error"),
    [(b"{", ManifestInvalid), (b"[]", ManifestInvalid), (b" " * (MAX_MANIFEST + 1), ManifestTooLarge)],
)
async def test_what_is_no_manifest_is_refused(repository: Repository, raw: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        await repository.manifests.put(Tag("v1"), raw, mediatypes.OCI_MANIFEST)


async def test_a_manifest_under_another_digest_is_refused(repository: Repository) -> None:
    await push(repository, b"{}")
    with pytest.raises(DigestInvalid):
        await repository.manifests.put(DIGEST, image(), None)


async def test_a_manifest_goes_under_many_tags_and_sha512(repository: Repository) -> None:
    await push(repository, b"{}")
    digest = Digest.of(image(), "sha512")
    tags = [Tag(f"t{n}") for n in range(10)]
    stored, subject = await repository.manifests.put(digest, image(), None, tags)
    assert (stored.digest, subject) == (digest, None)
    for tag in tags:
        assert (await repository.manifests.get(tag)).digest == digest


async def test_deleting_a_manifest_deletes_the_tags_that_point_at_it(repository: Repository) -> None:
    first = await push_image(repository, "v1")
    await repository.manifests.put(Tag("also"), image(), None)
    second = await push_image(repository, "v2", DATA)
    await repository.manifests.delete(first)
    assert (await repository.tags.page("", 10)).entries == ("v2",)
    for gone in (first, Tag("v1"), Tag("also")):
        with pytest.raises(ManifestUnknown):
            await repository.manifests.get(gone)
    with pytest.raises(ManifestUnknown):
        await repository.manifests.delete(first)
    assert (await repository.manifests.get(Tag("v2"))).digest == second


async def test_deleting_a_tag_leaves_its_manifest(repository: Repository) -> None:
    digest = await push_image(repository, "v1")
    await repository.tags.delete(Tag("v1"))
    assert (await repository.manifests.get(digest)).digest == digest
    with pytest.raises(ManifestUnknown):
        await repository.tags.delete(Tag("v1"))


async def test_what_another_process_deletes_is_gone_here_at_once(engine: Engine) -> None:
    here, there = Store(engine).repository(NAME), Store(engine).repository(NAME)
    digest = await push_image(here, "v1")
    assert (await here.manifests.get(digest)).digest == digest
    await there.manifests.delete(digest)
    for gone in (digest, Tag("v1")):
        with pytest.raises(ManifestUnknown):
            await here.manifests.get(gone)


async def test_a_manifest_damaged_on_disk_is_never_served(engine: Engine) -> None:
    digest = await push_image(Store(engine).repository(NAME), "v1")
    await engine.write(paths.blob_data(digest), image().replace(b"2", b"3", 1))
    with pytest.raises(ManifestUnknown, match="damaged"):
        await Store(engine).repository(NAME).manifests.get(Tag("v1"))


async def test_tags_of_a_repository_that_does_not_exist_are_unknown(repository: Repository) -> None:
    with pytest.raises(NameUnknown):
        await repository.tags.page("", 10)
    digest = await push_image(repository, "v1")
    await repository.tags.delete(Tag("v1"))
    assert (await repository.tags.page("", 10)).entries == ()
    assert (await repository.manifests.get(digest)).digest == digest


# Lists

TAGS = st.sets(st.from_regex(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,3}", fullmatch=True), min_size=1, max_size=15)
NAMES = st.sets(st.from_regex(r"[ab]([.-]?[ab])?(/[ab]([.-]?[ab])?){0,2}", fullmatch=True), max_size=12)


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(tags=TAGS, size=st.integers(1, 7))
async def test_pages_of_tags_equal_the_set(tags: set[str], size: int) -> None:
    repository = Store(MemoryEngine()).repository(NAME)
    await push(repository, b"{}")
    digest = Digest.of(image())
    await repository.manifests.put(digest, image(), None, [Tag(each) for each in tags])
    found: list[str] = []
    while (page := await repository.tags.page(found[-1] if found else "", size)).entries:
        found += page.entries
        assert page.more == (len(found) < len(tags))
    assert found == sorted(tags)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(names=NAMES, size=st.integers(1, 5), start=st.sampled_from(["", "a", "a-a", "a/", "a/b", "zz", "a.b/a"]))
async def test_pages_of_the_catalogue_equal_the_set(names: set[str], size: int, start: str) -> None:
    store = Store(MemoryEngine())
    for name in names:
        await push_image(store.repository(RepositoryName.parse(name)), "v1")
    found: list[str] = []
    while (page := await store.catalog(found[-1] if found else start, size)).entries:
        found += page.entries
    assert found == sorted(each for each in names if each > start)


# Referrers


async def test_referrers_name_what_points_at_a_manifest(repository: Repository) -> None:
    subject = await push_image(repository, "v1", DATA)
    pointer = {"mediaType": mediatypes.OCI_MANIFEST, "digest": str(subject), "size": 1}
    signature = image(subject=pointer, artifactType="application/x.signature", annotations={"k": "v"})
    stored, named = await repository.manifests.put(Tag("sig"), signature, None)
    assert named == subject
    (found,) = await repository.referrers.of(subject)
    assert (found.digest, found.artifact_type, found.annotations) == (
        stored.digest,
        "application/x.signature",
        {"k": "v"},
    )
    assert found.size == len(signature)
    await repository.manifests.delete(stored.digest)
    assert await repository.referrers.of(subject) == ()


async def test_referrers_of_nothing_are_none(repository: Repository) -> None:
    assert await repository.referrers.of(DIGEST) == ()


async def test_the_index_of_referrers_is_rebuilt_from_the_manifests(tmp_path: Path) -> None:
    engine = FilesEngine(tmp_path)
    repository = Store(engine).repository(NAME)
    pointer = {"mediaType": mediatypes.OCI_MANIFEST, "digest": str(DIGEST), "size": 1}
    await push(repository, b"{}")
    stored, _ = await repository.manifests.put(Tag("sig"), image(subject=pointer), None)
    before = await repository.referrers.of(DIGEST)
    folder = tmp_path / paths.repository(NAME) / "_referrers"
    shutil.rmtree(folder)
    assert await Store(engine).repository(NAME).referrers.of(DIGEST) == before
    next(folder.rglob("descriptor")).write_bytes(b"{torn")
    assert await Store(engine).repository(NAME).referrers.of(DIGEST) == before
    assert before[0].digest == stored.digest
