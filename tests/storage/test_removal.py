"""A repository is removed whole, and nothing that lies below its name."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocispec.digest import Digest
from ocispec.errors import BlobUnknown, BlobUploadUnknown, ManifestUnknown, NameUnknown, RegistryError, StorageError
from ocispec.reference import RepositoryName, Tag
from storage.engine import Engine
from storage.files import FilesEngine
from storage.memory import MemoryEngine
from storage.removal import Counts
from storage.store import Store
from tests.support.api import image, index
from tests.support.images import manifest_bytes, sha256

TEAM, APP = RepositoryName("team"), RepositoryName("team/app")
LATEST = Tag("latest")
CONFIG = b"{}"
IMAGE = manifest_bytes(image(sha256(CONFIG)))


async def once(data: bytes) -> AsyncIterator[bytes]:
    yield data


async def push(store: Store, name: RepositoryName, tag: Tag = LATEST) -> Digest:
    repository = store.repository(name)
    await repository.uploads.commit(await repository.uploads.begin(), Digest.of(CONFIG), once(CONFIG))
    return (await repository.manifests.put(tag, IMAGE, None))[0].digest


@pytest.fixture(params=["files", "memory"])
async def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Engine:
    made: Engine = FilesEngine(tmp_path) if request.param == "files" else MemoryEngine()
    await made.start()
    return made


async def names(store: Store) -> list[str]:
    return list((await store.catalog("", 100)).entries)


async def test_a_repository_goes_with_all_it_holds(engine: Engine) -> None:
    store = Store(engine)
    digest = await push(store, TEAM)
    repository = store.repository(TEAM)
    subject = {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": str(digest), "size": len(IMAGE)}
    await repository.manifests.put(Tag("signature"), manifest_bytes(index(subject=subject)), None)
    upload = await repository.uploads.begin()
    assert len(await repository.referrers.of(digest)) == 1
    assert await store.count(TEAM) == Counts(tags=2, manifests=2, blobs=1, uploads=1)
    await store.remove(TEAM)
    assert await names(store) == []
    for missing in (store.count(TEAM), store.remove(TEAM), repository.tags.page("", 1)):
        with pytest.raises(NameUnknown):
            await missing
    for gone in (repository.manifests.get(digest), repository.manifests.get(LATEST), repository.tags.link(LATEST)):
        with pytest.raises(ManifestUnknown):
            await gone
    with pytest.raises(BlobUnknown):
        await repository.blobs.size(Digest.of(CONFIG))
    with pytest.raises(BlobUploadUnknown):
        await repository.uploads.append(upload, once(b"more"))
    assert await repository.referrers.of(digest) == ()
    # The data stays for the garbage collector.
    assert await engine.children("docker/registry/v2/blobs/sha256")


async def test_folders_go_where_they_are_empty(tmp_path: Path) -> None:
    store, repositories = Store(FilesEngine(tmp_path)), tmp_path / "docker/registry/v2/repositories"
    await FilesEngine(tmp_path).start()
    for name in ("a/b/c", "a/b", "d"):
        await push(store, RepositoryName(name))
    await store.remove(RepositoryName("a/b"))
    assert [path.name for path in (repositories / "a/b").iterdir()] == ["c"]
    await store.remove(RepositoryName("a/b/c"))
    assert [path.name for path in repositories.iterdir()] == ["d"]
    await store.remove(RepositoryName("d"))
    assert list(repositories.iterdir()) == []
    await push(store, RepositoryName("a/b"))
    assert await names(store) == ["a/b"]


NESTED = ["a", "a/b", "a/b/c", "a/b-c", "a/b/c/d", "ab", "b"]


@given(st.sets(st.sampled_from(NESTED)), st.sampled_from(NESTED), st.booleans())
async def test_every_other_repository_stays(
    tmp_path_factory: pytest.TempPathFactory, there: set[str], unwanted: str, on_disk: bool
) -> None:
    engine: Engine = FilesEngine(tmp_path_factory.mktemp("root")) if on_disk else MemoryEngine()
    store = Store(engine)
    for name in there:
        await push(store, RepositoryName(name))
    if unwanted in there:
        await store.remove(RepositoryName(unwanted))
    else:
        with pytest.raises(NameUnknown):
            await store.remove(RepositoryName(unwanted))
    assert await names(store) == sorted(there - {unwanted})
    for name in there - {unwanted}:
        repository = store.repository(RepositoryName(name))
        assert (await repository.manifests.get(LATEST)).raw == IMAGE
        assert await repository.blobs.size(Digest.of(CONFIG)) == len(CONFIG)


class Ending(MemoryEngine):
    """Fails at one of its deletes, as if the process ended there."""

    fails_at = 0

    async def delete(self, path: str, *, durable: bool = True) -> None:
        self.fails_at -= 1
        if self.fails_at == 0:
            raise StorageError("the end")
        await super().delete(path, durable=durable)


@pytest.mark.parametrize("at", [1, 2, 3, 4])
async def test_a_removal_that_was_cut_short_is_completed_by_the_next(at: int) -> None:
    engine = Ending()
    store = Store(engine)
    digest = await push(store, TEAM)
    await store.repository(TEAM).uploads.begin()
    engine.fails_at = at
    with pytest.raises(StorageError):
        await store.remove(TEAM)
    # Whole, or not listed any more.
    assert await names(store) == (["team"] if at == 1 else [])
    if at == 1:
        assert (await store.repository(TEAM).manifests.get(digest)).raw == IMAGE
    if await engine.children("docker/registry/v2/repositories/team"):
        await store.remove(TEAM)
    assert await engine.children("docker/registry/v2/repositories") == []


async def test_pushes_into_a_repository_that_is_being_removed_succeed_or_are_told(tmp_path: Path) -> None:
    """What a push lacks then is an error of the specification's, never a fault."""
    store = Store(FilesEngine(tmp_path))
    await push(store, APP)

    async def pushing(number: int) -> None:
        for _ in range(15):
            with suppress(RegistryError):
                await push(store, TEAM, Tag(f"t{number}"))

    async def removing() -> None:
        for _ in range(20):
            try:
                await store.remove(TEAM)
            except NameUnknown:
                await asyncio.sleep(0)

    await asyncio.gather(pushing(1), pushing(2), removing())
    assert (await store.repository(APP).manifests.get(LATEST)).raw == IMAGE


async def test_a_tag_knows_since_when_it_stands(engine: Engine) -> None:
    store = Store(engine)
    digest = await push(store, TEAM)
    tags = store.repository(TEAM).tags
    first = await tags.link(LATEST)
    assert first.digest == digest
    await store.repository(TEAM).manifests.put(LATEST, manifest_bytes(index()), None)
    second = await tags.link(LATEST)
    assert second.digest != digest
    assert second.pushed >= first.pushed


async def test_a_link_that_goes_while_it_is_looked_at_is_no_tag() -> None:
    class Vanishing(MemoryEngine):
        async def stat(self, path: str) -> Any:
            await self.delete(path)
            return await super().stat(path)

    store = Store(Vanishing(), sparse_images=True)
    await store.repository(TEAM).manifests.put(LATEST, IMAGE, None)
    with pytest.raises(ManifestUnknown):
        await store.repository(TEAM).tags.link(LATEST)
