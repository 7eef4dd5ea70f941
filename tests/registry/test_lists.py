"""Lists of tags, repositories and referrers: complete, in order, page by page."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocispec.headers import next_link
from registry.config import Settings
from storage.engine import Engine
from storage.files import FilesEngine
from storage.memory import MemoryEngine
from tests.support.api import Api, image, index, serving
from tests.support.images import MANIFEST, sha256

# Where "a" is a repository and a folder of others, and separators sort before and after the slash.
NAMES = ["a", "a-b", "a/b", "a.b", "a_b", "a/b/c", "a/b-c", "a0", "ab", "b/a", "a--b/a", "a/a/a/a", "0", "z"]
TAGS = ["a", "B", "_", "1", "1.0", "1-0", "a.b", "a-b", "A", "latest", "Z", "v10", "v9"]


@given(st.sets(st.sampled_from(NAMES)), st.integers(1, 5), st.booleans())
@settings(deadline=None, max_examples=60)
async def test_pages_of_the_catalogue_join_to_all_repositories(
    tmp_path_factory: pytest.TempPathFactory, names: set[str], n: int, on_disk: bool
) -> None:
    async with serving(_engine(tmp_path_factory, on_disk)) as api:
        for name in names:
            await api.push_manifest(name, "v1", index())
        assert await _pages(api, "/v2/_catalog", "repositories", n) == sorted(names)


@given(st.sets(st.sampled_from(TAGS), min_size=1), st.integers(1, 5), st.booleans())
@settings(deadline=None, max_examples=60)
async def test_pages_of_tags_join_to_all_tags(
    tmp_path_factory: pytest.TempPathFactory, tags: set[str], n: int, on_disk: bool
) -> None:
    async with serving(_engine(tmp_path_factory, on_disk)) as api:
        for tag in tags:
            await api.push_manifest("some/image", tag, index())
        assert await _pages(api, "/v2/some/image/tags/list", "tags", n) == sorted(tags)


@pytest.mark.parametrize("listed", ["repositories", "tags"])
async def test_pages_hold_all_that_stays_while_clients_push_and_delete(engine: Engine, listed: str) -> None:
    names = [f"{'a-' * (n % 3)}{n:03}" for n in range(120)]
    lasting, passing = names[::2], names[1::6]
    path = "/v2/_catalog" if listed == "repositories" else "/v2/image/tags/list"
    done = asyncio.Event()

    async def push(name: str) -> None:
        repository, tag = (name, "v1") if listed == "repositories" else ("image", name)
        assert (await api.push_manifest(repository, tag, index())).status == 201

    async def delete(name: str) -> None:
        where = f"_layerhouse/v1/repositories/{name}" if listed == "repositories" else f"v2/image/manifests/{name}"
        assert (await api.ask("DELETE", f"/{where}")).status in (202, 204)

    async def churn() -> None:
        while not done.is_set():
            for change in (push, delete):
                for name in passing:
                    await change(name)

    async with serving(engine) as api, asyncio.TaskGroup() as tasks:
        for name in lasting:
            await push(name)
        tasks.create_task(churn())
        for n in (7, 50):
            found = await _pages(api, path, listed, n)
            assert found == sorted(set(found))
            assert set(lasting) <= set(found) <= set(names)
        done.set()


@given(st.sampled_from(["", *NAMES, "a/", "a/b/", "/", "A", "zz", "..", "a\n", "é"]))
@settings(deadline=None)
async def test_the_catalogue_goes_on_behind_any_name(last: str) -> None:
    async with serving(MemoryEngine()) as api:
        for name in NAMES:
            await api.push_manifest(name, "v1", index())
        answer = await api.get(f"/v2/_catalog?{urlencode({'last': last})}")
        assert answer.json["repositories"] == sorted(name for name in NAMES if name > last)


@pytest.fixture(params=["/v2/_catalog", "/v2/a/tags/list"])
def listing(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def filled(engine: Engine) -> Any:
    limited = Settings.model_validate({"catalog": {"maxentries": 3}, "tags": {"maxtags": 3}})
    async with serving(engine, limited) as api:
        for name in "abcde":
            await api.push_manifest(name, "v1", index())
            await api.push_manifest("a", name, index())
        yield api


async def test_a_page_without_entries_has_no_next(filled: Api, listing: str) -> None:
    answer = await filled.get(f"{listing}?n=0")
    assert (answer.status, _entries(answer.json)) == (200, [])
    assert "link" not in answer.headers


@pytest.mark.parametrize("n", ["-1", "abc", "1.5", "", "٣", "1e3", "0x1", "+1", "%20"])
async def test_a_page_size_that_is_none_is_refused(filled: Api, listing: str, n: str) -> None:
    answer = await filled.get(f"{listing}?{urlencode({'n': n})}")
    assert (answer.status, answer.code) == (400, "PAGINATION_NUMBER_INVALID")


@pytest.mark.parametrize("query", ["n=4", "n=1000000", f"n={'9' * 5000}", "", "x=y"])
async def test_a_page_is_never_longer_than_the_operator_allows(filled: Api, listing: str, query: str) -> None:
    answer = await filled.get(f"{listing}?{query}")
    assert len(_entries(answer.json)) == 3
    assert next_link(answer.headers["link"]) == f"{listing}?n=3&last=c"


@pytest.mark.parametrize("n", ["2", "002", f"{'0' * 30}2"])
async def test_the_last_page_has_no_next(filled: Api, listing: str, n: str) -> None:
    answer = await filled.get(f"{listing}?n={n}&last=c")
    shown = ["d", "e"]
    assert (_entries(answer.json)[:2], len(_entries(answer.json))) == (shown, 2)
    assert ("link" in answer.headers) == ("tags" in listing)


@pytest.mark.parametrize("last", ["bb", "zzz", "no such thing", "../../etc", "%00"])
async def test_a_page_may_begin_behind_a_name_that_is_not_there(filled: Api, listing: str, last: str) -> None:
    answer = await filled.get(f"{listing}?last={last}")
    assert answer.status == 200
    assert (
        _entries(answer.json) == [name for name in ["a", "b", "c", "d", "e", "v1"] if name > last][:3] or "_" in listing
    )


async def test_a_repository_with_uploads_alone_is_none(api: Api) -> None:
    await api.push_blob("blobs/only", b"data")
    await api.begin("begun")
    assert (await api.get("/v2/_catalog")).json == {"repositories": []}
    for name in ("blobs/only", "begun"):
        assert (await api.get(f"/v2/{name}/tags/list")).status == 404


async def test_a_repository_pushed_by_digest_alone_has_no_tags_and_is_listed(api: Api) -> None:
    raw = b'{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}'
    await api.push_manifest("image", sha256(raw), raw)
    assert (await api.get("/v2/image/tags/list")).json == {"name": "image", "tags": []}
    assert (await api.get("/v2/_catalog")).json == {"repositories": ["image"]}


async def test_the_repositories_of_an_empty_registry_are_an_empty_list(api: Api) -> None:
    assert (await api.get("/v2/_catalog")).json == {"repositories": []}


async def test_a_manifest_may_refer_to_one_that_comes_later(api: Api) -> None:
    subject = image(await api.push_blob("image", b"{}"))
    digest = await _push_referrer(api, sha256(b"later"))
    found = await api.get(f"/v2/image/referrers/{sha256(b'later')}")
    assert [each["digest"] for each in found.json["manifests"]] == [digest]
    assert (await api.push_manifest("image", "v1", subject)).status == 201


async def test_a_referrer_that_is_deleted_is_no_longer_listed(api: Api) -> None:
    subject = await api.push_image("image", "v1")
    digest = await _push_referrer(api, subject)
    await api.ask("DELETE", f"/v2/image/manifests/{digest}")
    assert (await api.get(f"/v2/image/referrers/{subject}")).json["manifests"] == []
    assert await _push_referrer(api, subject) == digest
    assert len((await api.get(f"/v2/image/referrers/{subject}")).json["manifests"]) == 1


@pytest.mark.parametrize("filtered", ["application/x.none", "", "application/x.bom"])
async def test_a_filter_is_applied_and_said_so(api: Api, filtered: str) -> None:
    subject = await api.push_image("image", "v1")
    await _push_referrer(api, subject)
    answer = await api.get(f"/v2/image/referrers/{subject}?artifactType={filtered}")
    assert len(answer.json["manifests"]) == (1 if filtered.endswith("bom") else 0)
    assert answer.headers["oci-filters-applied"] == "artifactType"


@pytest.mark.parametrize("digest", ["latest", "sha256:no", "md5:0"])
async def test_referrers_of_no_digest_are_refused(api: Api, digest: str) -> None:
    answer = await api.get(f"/v2/image/referrers/{digest}")
    assert (answer.status, answer.code) == (400, "DIGEST_INVALID")


async def test_referrers_are_found_again_when_their_index_was_deleted(tmp_path: Path) -> None:
    async with serving(FilesEngine(tmp_path)) as api:
        subject = await api.push_image("image", "v1")
        await _push_referrer(api, subject)
        before = (await api.get(f"/v2/image/referrers/{subject}")).json
    (folder,) = tmp_path.rglob("_referrers")
    shutil.rmtree(folder)
    async with serving(FilesEngine(tmp_path)) as api:
        assert (await api.get(f"/v2/image/referrers/{subject}")).json == before
    assert folder.is_dir()


async def _push_referrer(api: Api, subject: str) -> str:
    named = {"mediaType": MANIFEST, "digest": subject, "size": 300}
    answer = await api.push_manifest("image", "bom", index(artifactType="application/x.bom", subject=named))
    return answer.headers["docker-content-digest"]


def _engine(folders: pytest.TempPathFactory, on_disk: bool) -> Engine:
    return FilesEngine(folders.mktemp("root")) if on_disk else MemoryEngine()


def _entries(listed: dict[str, Any]) -> list[str]:
    found: list[str] = listed["tags"] if "tags" in listed else listed["repositories"]
    return found


async def _pages(api: Api, path: str, key: str, n: int) -> list[str]:
    """All entries, page by page as a client follows the links."""
    found: list[str] = []
    following: str | None = f"{path}?n={n}"
    while following:
        answer = await api.get(following)
        assert answer.status == 200
        assert len(answer.json[key]) <= n
        found += answer.json[key]
        following = next_link(answer.headers["link"]) if "link" in answer.headers else None
    return found
