"""The management API: repositories deleted whole, tags with all that is known of them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from fastapi.routing import APIRoute
from hypothesis import given
from hypothesis import strategies as st
from starlette.routing import Match

from ocispec.errors import NameInvalid, StorageError
from ocispec.headers import next_link
from ocispec.reference import RepositoryName
from registry.api import management
from registry.auth.caller import Action
from registry.auth.wanted import Wanted, wanted
from registry.config import Settings
from registry.context import Scope, set_caller
from registry.details import MAX_DEPTH, MAX_IMAGES
from registry.events import Event, What
from storage.engine import Engine
from storage.files import FilesEngine
from storage.memory import MemoryEngine
from tests.support.api import DELETES, Answer, Api, image, index, serving
from tests.support.images import CONFIG, INDEX, LAYER, MANIFEST, sha256

V1 = "/_layerhouse/v1"


def place(name: str, rest: str = "") -> str:
    return f"{V1}/repositories/{name}{rest}"


async def push_for(api: Api, name: str, reference: str, architecture: str, *layers: bytes) -> dict[str, Any]:
    """Push an image for a platform, under a tag or its digest; returns its descriptor for an index."""
    config = json.dumps({"os": "linux", "architecture": architecture, "rootfs": {"diff_ids": []}}).encode()
    described = {await api.push_blob(name, layer): len(layer) for layer in layers}
    manifest = image(await api.push_blob(name, config), described)
    manifest["config"]["size"] = len(config)
    raw = json.dumps(manifest).encode()
    answer = await api.push_manifest(name, reference or sha256(raw), raw)
    assert answer.status == 201, answer
    return {"mediaType": MANIFEST, "digest": sha256(raw), "size": len(raw)}


async def test_a_repository_is_deleted_whole_and_those_below_it_stay(api: Api) -> None:
    for name in ("team", "team/app"):
        await api.push_image(name, "1", b"layer")
    upload = await api.begin("team")
    gone = await api.ask("DELETE", place("team"))
    assert (gone.status, gone.all("content-type")) == (204, [])
    assert (await api.get("/v2/_catalog")).json == {"repositories": ["team/app"]}
    for path in (place("team"), place("team", "/tags"), "/v2/team/tags/list"):
        answer = await api.get(path)
        assert (answer.status, answer.code) == (404, "NAME_UNKNOWN")
    assert (await api.get("/v2/team/manifests/1")).status == 404
    assert (await api.get("/v2/team/app/manifests/1")).status == 200
    assert (await api.get(f"/v2/team/app/blobs/{sha256(b'layer')}")).body == b"layer"
    # Who is still uploading into it is told so, and begins anew.
    assert (await api.ask("PATCH", upload, b"more")).code == "BLOB_UPLOAD_UNKNOWN"
    await api.push_image("team", "1", b"layer")
    assert (await api.get("/v2/team/manifests/1")).status == 200


async def test_deleting_what_is_not_there_is_an_error(api: Api) -> None:
    await api.push_image("team/app", "1")
    for name in ("team", "team/app/more", "nobody"):
        answer = await api.ask("DELETE", place(name))
        assert (answer.status, answer.code) == (404, "NAME_UNKNOWN")
    answer = await api.ask("DELETE", place("Team"))
    assert (answer.status, answer.code) == (400, "NAME_INVALID")
    assert (await api.get("/v2/team/app/manifests/1")).status == 200


@pytest.mark.parametrize(
    ("storage", "told"),
    [
        ({"delete": {"enabled": False}}, "deletes are disabled"),
        ({"delete": {"enabled": True}, "maintenance": {"readonly": {"enabled": True}}}, "read-only"),
    ],
)
async def test_the_guard_forbids_it(engine: Engine, storage: dict[str, Any], told: str) -> None:
    async with serving(engine) as api:
        await api.push_image("team/app", "1")
    async with serving(engine, Settings.model_validate({"storage": storage})) as api:
        answer = await api.ask("DELETE", place("team/app"))
        assert answer.status == 405
        assert told in answer.message
        assert (await api.get("/v2/team/app/manifests/1")).status == 200


async def test_a_delete_is_told_to_who_listens(api: Api) -> None:
    heard: list[Event] = []

    class Listening:
        async def happened(self, event: Event) -> None:
            heard.append(event)

    await api.push_image("team/app", "1")
    endpoints(api).state.events._listeners = (Listening(),)
    await api.ask("DELETE", place("team/app"))
    assert [(each.what, each.target.repository, each.target.digest, each.target.tag) for each in heard] == [
        (What.DELETE, "team/app", None, None)
    ]
    await api.ask("DELETE", place("team/app"))
    assert len(heard) == 1


def endpoints(api: Api) -> Any:
    """FastAPI's application, beneath what stands around it."""
    app = api.app
    while not hasattr(app, "state"):
        app = app._app
    return app


@given(
    st.sets(st.sampled_from(["a", "a/b", "b", "b-c", "b/c", "c/b/a", "tags", "a/tags"])),
    st.integers(1, 4),
    st.sampled_from(["", "b", "a/", "no"]),
)
async def test_pages_of_repositories_join_to_all_that_hold_the_text(names: set[str], n: int, q: str) -> None:
    async with serving(MemoryEngine()) as api:
        for name in names:
            await api.push_manifest(name, "1", index())
        pages = await all_pages(api, f"{V1}/repositories?n={n}&q={q}")
        assert [name for page in pages for name in page["repositories"]] == sorted(each for each in names if q in each)
        assert all(len(page["repositories"]) == n for page in pages[:-1])


@given(st.sets(st.sampled_from(["a", "B", "_", "1", "1.0", "1-0", "latest", "v9"]), min_size=1), st.integers(1, 4))
async def test_pages_of_tags_join_to_all_tags(tags: set[str], n: int) -> None:
    async with serving(MemoryEngine()) as api:
        for tag in tags:
            await api.push_manifest("team/app", tag, index())
        pages = await all_pages(api, place("team/app", f"/tags?n={n}"))
        assert [each["tag"] for page in pages for each in page["tags"]] == sorted(tags)


async def all_pages(api: Api, target: str | None) -> list[Any]:
    pages = []
    while target:
        answer = await api.get(target)
        assert answer.status == 200, answer
        pages.append(answer.json)
        target = next_link(answer.headers["link"]) if "link" in answer.headers else None
    return pages


@pytest.mark.parametrize("path", ["/repositories", "/repositories/team/app/tags"])
@pytest.mark.parametrize("n", ["x", "-1", "1.5", "%D9%A3"])
async def test_a_wrong_page_size_is_refused(api: Api, path: str, n: str) -> None:
    await api.push_image("team/app", "1")
    answer = await api.get(f"{V1}{path}?n={n}")
    assert (answer.status, answer.code) == (400, "PAGINATION_NUMBER_INVALID")


async def test_an_image_is_told_with_all_that_is_known_of_it(api: Api) -> None:
    before = datetime.now(UTC) - timedelta(seconds=2)
    pushed = await push_for(api, "team/app", "1.0", "arm64", b"layer", b"another", b"layer")
    answer = await api.get(place("team/app", "/tags"))
    (tag,) = answer.json["tags"]
    assert answer.json["name"] == "team/app"
    assert before < datetime.fromisoformat(tag.pop("pushed")) < datetime.now(UTC) + timedelta(seconds=2)
    config = len('{"os": "linux", "architecture": "arm64", "rootfs": {"diff_ids": []}}')
    assert tag == {
        "tag": "1.0",
        "digest": pushed["digest"],
        "mediaType": MANIFEST,
        "artifactType": CONFIG,
        "size": config + len(b"layer") + len(b"another"),
        "platforms": ["linux/arm64"],
        "images": [],
    }


async def test_an_index_is_told_by_platform_and_in_all(api: Api) -> None:
    amd = await push_for(api, "team/app", "", "amd64", b"shared", b"amd")
    arm = await push_for(api, "team/app", "", "arm64", b"shared", b"arm!")
    proof = await push_for(api, "team/app", "", "unknown", b"attestation")
    entries = [
        amd,
        {**arm, "platform": {"os": "linux", "architecture": "arm", "variant": "v6"}},
        {**proof, "platform": {"os": "unknown", "architecture": "unknown"}},
        amd,
    ]
    await api.push_manifest("team/app", "1.0", index(*entries, artifactType="application/vnd.of.mine"))
    (tag,) = (await api.get(place("team/app", "/tags"))).json["tags"]
    config = len('{"os": "linux", "architecture": "amd64", "rootfs": {"diff_ids": []}}')
    sizes = [config + len(b"sharedamd"), config + len(b"sharedarm!"), config + 2 + len(b"attestation")]
    assert (tag["mediaType"], tag["artifactType"]) == (INDEX, "application/vnd.of.mine")
    assert tag["platforms"] == ["linux/amd64", "linux/arm/v6"]
    assert tag["size"] == sum(sizes) - len(b"shared")
    shown = [(each["digest"], each.get("platform"), each["size"]) for each in tag["images"]]
    assert shown == [
        (amd["digest"], "linux/amd64", sizes[0]),
        (arm["digest"], "linux/arm/v6", sizes[1]),
        (proof["digest"], None, sizes[2]),
    ]


async def test_an_index_in_an_index_counts_once(api: Api) -> None:
    amd = await push_for(api, "a", "", "amd64", b"layer")
    raw = json.dumps(index(amd)).encode()
    inner = {"mediaType": INDEX, "digest": sha256(raw), "size": len(raw)}
    await api.push_manifest("a", sha256(raw), raw)
    await api.push_manifest("a", "1", index(inner, amd))
    (tag,) = (await api.get(place("a", "/tags"))).json["tags"]
    assert [each["mediaType"] for each in tag["images"]] == [INDEX, MANIFEST]
    assert tag["size"] == tag["images"][1]["size"]
    assert "size" not in tag["images"][0]


@pytest.mark.parametrize("depth", [MAX_DEPTH, MAX_DEPTH + 1])
async def test_indexes_are_followed_so_deep_and_no_deeper(api: Api, depth: int) -> None:
    child = await push_for(api, "a", "", "amd64", b"layer")
    for _ in range(depth - 1):
        raw = json.dumps(index(child)).encode()
        await api.push_manifest("a", sha256(raw), raw)
        child = {"mediaType": INDEX, "digest": sha256(raw), "size": len(raw)}
    await api.push_manifest("a", "1", index(child))
    (tag,) = (await api.get(place("a", "/tags"))).json["tags"]
    assert ("size" in tag) is (depth == MAX_DEPTH)


async def test_what_an_index_names_and_is_not_here_has_no_size(api: Api) -> None:
    here = await push_for(api, "a", "", "amd64", b"layer")
    absent = {"mediaType": MANIFEST, "digest": sha256(b"absent"), "size": 6, "platform": platform("arm64")}
    foreign = {"mediaType": LAYER, "digest": sha256(b"no image"), "size": 8}
    await api.push_manifest("a", "1", index(here, absent, foreign))
    (tag,) = (await api.get(place("a", "/tags"))).json["tags"]
    assert "size" not in tag
    assert tag["platforms"] == ["linux/amd64"]
    assert [(each.get("platform"), "size" in each) for each in tag["images"]] == [
        ("linux/amd64", True),
        ("linux/arm64", False),
    ]


def platform(architecture: str) -> dict[str, str]:
    return {"os": "linux", "architecture": architecture}


async def test_an_artifact_has_its_type_and_no_platform(api: Api) -> None:
    empty = await api.push_blob("a", b"{}")
    manifest = image(empty, artifactType="application/vnd.sbom")
    manifest["config"]["mediaType"] = "application/vnd.oci.empty.v1+json"
    await api.push_manifest("a", "sbom", manifest)
    (tag,) = (await api.get(place("a", "/tags"))).json["tags"]
    assert (tag["artifactType"], tag["platforms"], tag["size"]) == ("application/vnd.sbom", [], 2)


@pytest.mark.parametrize(
    "config",
    [b"no JSON", b"[]", b'{"os":"","architecture":""}', b'{"os":"linux","architecture":"amd64"}' + b" " * 70_000],
)
async def test_a_config_that_does_not_tell_the_platform_hides_nothing_else(api: Api, config: bytes) -> None:
    manifest = image(await api.push_blob("a", config))
    manifest["config"]["size"] = len(config)
    await api.push_manifest("a", "1", manifest)
    (tag,) = (await api.get(place("a", "/tags"))).json["tags"]
    assert (tag["platforms"], tag["size"]) == ([], len(config))


async def test_a_missing_config_hides_nothing_else(engine: Engine) -> None:
    sparse = Settings.model_validate({"layerhouse": {"sparseimages": True}})
    async with serving(engine, sparse) as api:
        await api.push_manifest("a", "1", image(sha256(b"{}")))
        (tag,) = (await api.get(place("a", "/tags"))).json["tags"]
        assert (tag["platforms"], tag["size"]) == ([], 2)


async def test_a_large_manifest_is_told_as_any_other(api: Api) -> None:
    await api.push_manifest("a", "1", index(annotations={"text": "x" * 100_000}))
    (tag,) = (await api.get(place("a", "/tags"))).json["tags"]
    assert tag["size"] == 0


async def test_a_damaged_manifest_shows_as_such_among_the_others(tmp_path: Path) -> None:
    async with serving(FilesEngine(tmp_path)) as api:
        bad = await api.push_image("team/app", "bad", b"layer")
        good = await api.push_image("team/app", "good", b"other layer")
        await api.push_image("team/app", "torn", b"third layer")
    hexadecimal = bad.partition(":")[2]
    (tmp_path / f"docker/registry/v2/blobs/sha256/{hexadecimal[:2]}/{hexadecimal}/data").write_bytes(b"rotten")
    (tmp_path / "docker/registry/v2/repositories/team/app/_manifests/tags/torn/current/link").write_bytes(b"")
    async with serving(FilesEngine(tmp_path)) as api:
        answer = await api.get(place("team/app", "/tags"))
        assert answer.status == 200
        first, second = answer.json["tags"]
        assert (first["tag"], first["digest"]) == ("bad", bad)
        assert "damaged" in first["error"]
        assert "size" not in first
        assert (second["tag"], second["digest"]) == ("good", good)
        assert "error" not in second


async def test_a_tag_that_goes_while_its_page_is_made_is_left_out() -> None:
    class Vanishing(MemoryEngine):
        async def stat(self, path: str) -> Any:
            if path.endswith("tags/b/current/link"):
                await self.delete(path)
            return await super().stat(path)

    async with serving(Vanishing()) as api:
        for tag in "abc":
            await api.push_manifest("a", tag, index())
        answer = await api.get(place("a", "/tags"))
        assert [each["tag"] for each in answer.json["tags"]] == ["a", "c"]


async def test_storage_that_fails_is_a_fault_of_ours_in_the_envelope() -> None:
    class Failing(MemoryEngine):
        async def stat(self, path: str) -> Any:
            raise StorageError(f"{path}: Input/output error")

    async with serving(Failing(), Settings.model_validate({"layerhouse": {"sparseimages": True}})) as api:
        await api.push_manifest("a", "1", index())
        answer = await api.get(place("a", "/tags"))
        assert (answer.status, answer.code) == (500, "UNKNOWN")
        assert "Input/output" not in answer.message


async def test_an_index_of_very_many_images_makes_no_page_large(api: Api) -> None:
    absent = [{"mediaType": MANIFEST, "digest": sha256(b"%d" % n), "size": 1} for n in range(MAX_IMAGES + 50)]
    await api.push_manifest("a", "1", index(*absent))
    (tag,) = (await api.get(place("a", "/tags"))).json["tags"]
    assert len(tag["images"]) == MAX_IMAGES


async def test_a_repository_tells_how_much_it_holds(api: Api) -> None:
    await api.push_image("team/app", "1", b"layer", b"another")
    await api.push_image("team/app", "2", b"layer")
    await api.begin("team/app")
    expected = {"name": "team/app", "tags": 2, "manifests": 2, "blobs": 3, "uploads": 1}
    assert (await api.get(place("team/app"))).json == expected


async def test_a_repository_may_be_called_as_its_list_of_tags(api: Api) -> None:
    await api.push_image("team", "1")
    await api.push_image("team/tags", "2")
    assert [each["tag"] for each in (await api.get(place("team", "/tags"))).json["tags"]] == ["1"]
    assert [each["tag"] for each in (await api.get(place("team/tags", "/tags"))).json["tags"]] == ["2"]
    assert (await api.get(place("team/tags", "/"))).json["name"] == "team/tags"
    assert (await api.get(place("team", "/"))).json["name"] == "team"
    assert (await api.ask("DELETE", place("team/tags"))).status == 204
    assert (await api.get("/v2/_catalog")).json == {"repositories": ["team"]}


async def test_the_version_is_told(api: Api) -> None:
    assert (await api.get(f"{V1}/version")).json == {
        "name": "layerhouse",
        "version": version("layerhouse"),
        "api": "v1",
    }


@pytest.mark.parametrize(
    "path", ["/version", "/repositories", "/repositories/a", "/repositories/a/", "/repositories/a/tags"]
)
async def test_head_is_answered_as_get(api: Api, path: str) -> None:
    await api.push_image("a", "1")
    got, headed = await api.get(V1 + path), await api.ask("HEAD", V1 + path)
    assert headed.status == got.status == 200
    assert headed.headers["content-length"] == got.headers["content-length"]


@pytest.mark.parametrize(("method", "allow"), [("POST", "DELETE, GET, HEAD"), ("PUT", "DELETE, GET, HEAD")])
async def test_other_methods_are_told_which_there_are(api: Api, method: str, allow: str) -> None:
    answer = await api.ask(method, place("a"))
    assert (answer.status, answer.headers["allow"]) == (405, allow)


class OfATeam:
    """May read and delete in his team's repositories, and read the common ones."""

    name = "somebody"
    kind = "user"

    def may(self, action: Action, repository: RepositoryName) -> bool:
        return repository.startswith("team/") or (action is Action.PULL and repository.startswith("common/"))


@asynccontextmanager
async def as_somebody(api: Api) -> AsyncIterator[Api]:
    served = api.app

    async def known(scope: Scope, receive: Any, send: Any) -> None:
        set_caller(scope, OfATeam())
        await served(scope, receive, send)

    yield Api(known)


async def test_what_a_caller_may_not_read_is_not_there_and_what_he_may_not_delete_is_denied(engine: Engine) -> None:
    async with serving(engine, DELETES) as everybody, as_somebody(everybody) as api:
        for name in ("common/base", "secret/app", "team/app"):
            await everybody.push_image(name, "1")
        assert (await api.get(f"{V1}/repositories")).json == {"repositories": ["common/base", "team/app"]}
        assert (await api.get(f"{V1}/repositories?q=app")).json == {"repositories": ["team/app"]}
        statuses: dict[str, list[Answer]] = {}
        for name in ("common/base", "secret/app", "nowhere/app"):
            asked = [("GET", ""), ("GET", "/"), ("GET", "/tags"), ("DELETE", "")]
            statuses[name] = [await api.ask(method, place(name, rest)) for method, rest in asked]
        assert [each.status for each in statuses["common/base"]] == [200, 200, 200, 403]
        assert statuses["common/base"][-1].code == "DENIED"
        assert [each.code for each in statuses["secret/app"]] == ["NAME_UNKNOWN"] * 4
        assert [each.status for each in statuses["secret/app"]] == [each.status for each in statuses["nowhere/app"]]
        assert (await api.ask("DELETE", place("team/app"))).status == 204
        assert (await everybody.get("/v2/_catalog")).json == {"repositories": ["common/base", "secret/app"]}


SEGMENTS = st.lists(st.sampled_from(["", "a", "b1", "tags", "_catalog", "repositories", "v1"]), max_size=5)


@given(SEGMENTS, st.sampled_from(["GET", "HEAD", "DELETE"]))
def test_the_gate_asks_about_the_repository_that_a_handler_uses(parts: list[str], method: str) -> None:
    path = "/".join([V1, "repositories", *parts])
    routes = [each for each in management.router.routes if isinstance(each, APIRoute)]
    matched = (each.matches({"type": "http", "method": method, "path": path}) for each in routes)
    name = next((child["path_params"].get("name") for match, child in matched if match is Match.FULL), None)
    if name is None:
        return
    try:
        found = wanted(method, path)
    except NameInvalid:
        with pytest.raises(NameInvalid):
            RepositoryName.parse(name)
    else:
        assert found == Wanted(Action.DELETE if method == "DELETE" else Action.PULL, RepositoryName(name))
