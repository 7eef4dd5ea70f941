"""Requests that nobody honest sends: never a fault, and never a byte outside of the registry's folder."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from storage.files import FilesEngine
from tests.support.api import Api, serving
from tests.support.images import sha256

DIGEST = sha256(b"data")
UPLOAD = "00000000-0000-4000-8000-000000000000"
# What ends a path, a string or a folder somewhere, written in every way.
ODD = [
    "..",
    ".",
    "%2e%2e",
    "%2E.",
    "%252e%252e",
    "..%2f..",
    "%2f",
    "%5c..",
    "%00",
    "a%00b",
    "%0a",
    "%0d%0aX-Evil:%20yes",
    "%ff%fe",
    "%c0%ae%c0%ae",
    "%ed%a0%80",
    "%E2%80%AE",
    "%",
    "%zz",
    "",
    " ",
    "~",
    "$HOME",
    "a" * 4096,
    "a/" * 300,
    "_layers",
    "_manifests",
    "_uploads",
    "link",
    "data",
    "CON",
]
KNOWN = ["v2", "image", "blobs", "uploads", "manifests", "tags", "list", "referrers", "_catalog", "v1", DIGEST, UPLOAD]
METHODS = ["GET", "HEAD", "PUT", "POST", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"]

segments = st.lists(
    st.sampled_from(ODD) | st.sampled_from(KNOWN) | st.text(st.characters(max_codepoint=255)), max_size=8
)
queries = st.lists(
    st.tuples(
        st.sampled_from(["digest", "mount", "from", "n", "last", "tag", "artifactType", "digest-algorithm", "ns", "x"]),
        st.sampled_from([*ODD, DIGEST, "v1", "0", "-1", "9" * 5000]),
    ),
    max_size=4,
)
headers = st.dictionaries(
    st.sampled_from(
        ["range", "content-range", "if-none-match", "if-range", "accept", "content-type", "content-length", "cookie"]
    ),
    st.sampled_from(["", "\xff", "bytes=0-" + "9" * 30, "9" * 5000, "0-0", "-", '"', "*", ",,,", "a/b;c=" + "d" * 5000])
    | st.text(st.characters(min_codepoint=32, max_codepoint=255)),
    max_size=4,
)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hostile")


@pytest.fixture
async def api(shared: Path) -> AsyncIterator[Api]:
    async with serving(FilesEngine(shared / "root")) as found:
        await found.push_image("image", "v1", b"data")
        yield found


@given(st.tuples(st.sampled_from(METHODS), segments, queries, headers, st.sampled_from([b"", b"{}", b"\0" * 70_000])))
@example(("GET", ["v2", "..", "..", "blobs", DIGEST], [], {}, b""))
@example(("PUT", ["v2", "%2e%2e/%2e%2e/evil", "manifests", "v1"], [], {}, b"{}"))
@example(("PUT", ["v2", "image", "manifests", DIGEST], [("tag", "..%2f..%2fevil")], {}, b"{}"))
@example(("POST", ["v2", "image", "blobs", "uploads", ""], [("mount", DIGEST), ("from", "..")], {}, b""))
@example(("PATCH", ["v2", "image", "blobs", "uploads", "..%2f..%2f..%2fevil"], [], {}, b"x"))
@settings(deadline=None, max_examples=400, suppress_health_check=list(HealthCheck))
async def test_nothing_a_client_sends_is_a_fault_or_leaves_the_folder(
    api: Api, shared: Path, sent: tuple[str, list[str], list[tuple[str, str]], dict[str, str], bytes]
) -> None:
    method, segments, queries, headers, body = sent
    query = "&".join(f"{name}={value}" for name, value in queries)
    answer = await api.ask(method, f"/{'/'.join(segments)}?{query}".replace("#", "%23"), body, headers)
    assert answer.status < 500, answer
    assert "x-evil" not in answer.headers
    assert [each.name for each in shared.iterdir()] == ["root"]
    assert {each.name for each in (shared / "root").iterdir()} <= {"docker", ".layerhouse"}
    assert {each.name for each in (shared / "root/docker").iterdir()} == {"registry"}


@given(st.text(st.characters(max_codepoint=255), max_size=40), st.sampled_from(["manifests/v1", f"blobs/{DIGEST}"]))
@settings(deadline=None, suppress_health_check=list(HealthCheck))
async def test_only_a_repository_by_its_own_name_is_served(api: Api, name: str, path: str) -> None:
    answer = await api.ask("GET", f"/v2/{name.replace('?', '')}/{path}")
    assert answer.status in (400, 404)


@pytest.mark.parametrize("name", ["a" * 255, "/".join(["a"] * 128), "a/" + "b" * 253])
async def test_the_longest_names_work_like_all_others(api: Api, name: str) -> None:
    tag = "t" * 128
    digest = await api.push_image(name, tag, b"data")
    assert (await api.get(f"/v2/{name}/manifests/{tag}")).headers["docker-content-digest"] == digest
    assert (await api.get(f"/v2/{name}/tags/list")).json["tags"] == [tag]
    assert name in (await api.get("/v2/_catalog")).json["repositories"]


@pytest.mark.parametrize(
    "name",
    ["blobs", "blobs/uploads", "manifests", "tags/list", "v2", "uploads", "referrers", "a/blobs/uploads", "link"],
)
async def test_a_repository_may_be_called_like_a_part_of_an_address(api: Api, name: str) -> None:
    digest = await api.push_image(name, "v1", b"data")
    assert (await api.get(f"/v2/{name}/manifests/v1")).headers["docker-content-digest"] == digest
    assert (await api.get(f"/v2/{name}/blobs/{DIGEST}")).body == b"data"
    assert (await api.get(f"/v2/{name}/tags/list")).json == {"name": name, "tags": ["v1"]}
    assert (await api.get(f"/v2/{name}/referrers/{digest}")).status == 200
    location = await api.begin(name)
    assert location.startswith(f"/v2/{name}/blobs/uploads/")
    assert (await api.get(location)).status == 204
    assert (await api.ask("DELETE", location)).status == 204
    assert (await api.ask("DELETE", f"/v2/{name}/blobs/{DIGEST}")).status == 202
    assert (await api.ask("DELETE", f"/v2/{name}/manifests/{digest}")).status == 202
