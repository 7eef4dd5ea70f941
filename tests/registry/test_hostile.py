"""Requests that nobody honest sends: never a fault, and never a byte outside of the registry's folder."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from storage.files import FilesEngine
from tests.support import callers
from tests.support.api import DELETES, Api, serving
from tests.support.images import sha256
from tests.support.recording import RecordingEngine, faults

DIGEST = sha256(b"data")
UPLOAD = "00000000-0000-4000-8000-000000000000"
BESIDE = b"what lies beside the registry's folder"
# What ends a path, a string or a folder somewhere, written in every way.
ODD = [
    "..",
    ".",
    "%2e%2e",
    "%2E.",
    "%252e%252e",
    "..%2f..",
    "..%2f..%2f..%2f..%2f..%2f..%2fbeside",
    "..%5c..%5cbeside",
    "....//....//beside",
    "..;",
    "%u002e%u002e",
    "%ef%bc%8e%ef%bc%8e",
    "%2f",
    "%2f%2fetc%2fpasswd",
    "%5c..",
    "%00",
    "a%00b",
    "a%00/../../beside",
    "%0a",
    "a%0a",
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
    f"{{{UPLOAD}}}",
    f"urn:uuid:{UPLOAD}",
    f"sha256:{'../' * 21}x",
    "sha256:" + "%EF%BC%91" * 64,
    f"{DIGEST}%0a",
    DIGEST.upper(),
]
KNOWN = ["v2", "image", "blobs", "uploads", "manifests", "tags", "list", "referrers", "_catalog", "v1", DIGEST, UPLOAD]
KNOWN += ["hidden", "_layerhouse", "repositories", "docs", "version", "auth", "token"]
METHODS = ["GET", "HEAD", "PUT", "POST", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"]
HEADERS = ["range", "content-range", "if-none-match", "if-range", "accept", "content-type", "content-length", "cookie"]
HEADERS += ["host", "x-forwarded-for", "x-forwarded-host", "forwarded", "x-http-method-override", "authorization"]
VALUES = ["", "\xff", "bytes=0-" + "9" * 30, "9" * 5000, "0-0", "-", '"', "*", ",,,", "a/b;c=" + "d" * 5000]
VALUES += ["Basic", "Basic Og==", "Bearer ", "Bearer a.b.c", "Digest x", "DELETE", "127.0.0.1"]

segments = st.lists(
    st.sampled_from(ODD) | st.sampled_from(KNOWN) | st.text(st.characters(max_codepoint=255)), max_size=8
)
queries = st.lists(
    st.tuples(
        st.sampled_from(["digest", "mount", "from", "n", "last", "tag", "artifactType", "digest-algorithm", "ns", "q"]),
        st.sampled_from([*ODD, DIGEST, "v1", "0", "-1", "9" * 5000]),
    ),
    max_size=4,
)
headers = st.dictionaries(
    st.sampled_from(HEADERS),
    st.sampled_from(VALUES) | st.text(st.characters(min_codepoint=32, max_codepoint=255)),
    max_size=4,
)
bodies = st.sampled_from([b"", b"{}", b"\0" * 70_000, b"[" * 70_000, b'{"schemaVersion":2,"manifests":[]}'])
Sent = tuple[str, list[str], list[tuple[str, str]], dict[str, str], bytes]

RULES: Any = {
    "rules": [
        {"who": "anyone", "allow": "pull", "repositories": "image"},
        {"who": "user:alice", "allow": ["pull", "push"], "repositories": "team/**"},
        {"who": "user:olga", "allow": ["pull", "push", "delete", "admin"]},
    ]
}
WHO = {
    "whoever asks an open registry": {},
    "anonymous": {},
    "a user": callers.basic("alice", "1"),
    "an operator": callers.basic("olga", "2"),
}


@dataclass(frozen=True, slots=True)
class Besieged:
    """A registry in `folder`/root, where other things lie beside, with `caller` at its gate."""

    api: Api
    folder: Path
    engine: RecordingEngine
    caller: dict[str, str]

    def beside(self) -> dict[str, tuple[int, int, bytes]]:
        """What lies beside the registry's own folder, with mode and time of the last change."""
        found = [each for each in self.folder.rglob("*") if each.relative_to(self.folder).parts[0] != "root"]
        return {
            str(each): (each.stat().st_mode, each.stat().st_mtime_ns, each.read_bytes() if each.is_file() else b"")
            for each in found
        }


@pytest.fixture(params=WHO)
async def besieged(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Besieged]:
    (tmp_path / "beside").write_bytes(BESIDE)
    (tmp_path / "docker/registry").mkdir(parents=True)
    (tmp_path / "docker/registry/link").write_text(DIGEST)
    async with serving(FilesEngine(tmp_path / "root")) as api:
        await api.push_image("image", "v1", b"data")
        await api.push_image("hidden/image", "v1", b"hidden")
    passwords = callers.htpasswd(tmp_path / "htpasswd", alice="1", olga="2")
    ruled = callers.settings(passwords, RULES)
    engine = RecordingEngine(FilesEngine(tmp_path / "root"))
    async with serving(engine, DELETES if "open" in request.param else ruled) as api:
        yield Besieged(api, tmp_path, engine, WHO[request.param])


@given(st.tuples(st.sampled_from(METHODS), segments, queries, headers, bodies))
@example(("GET", ["v2", "..", "..", "blobs", DIGEST], [], {}, b""))
@example(("PUT", ["v2", "%2e%2e/%2e%2e/evil", "manifests", "v1"], [], {}, b"{}"))
@example(("PUT", ["v2", "image", "manifests", DIGEST], [("tag", "..%2f..%2fevil")], {}, b"{}"))
@example(("POST", ["v2", "image", "blobs", "uploads", ""], [("mount", DIGEST), ("from", "..")], {}, b""))
@example(("PATCH", ["v2", "image", "blobs", "uploads", "..%2f..%2f..%2fevil"], [], {}, b"x"))
@example(("DELETE", ["_layerhouse", "v1", "repositories", "..%2f..%2f..%2f.."], [], {}, b""))
@example(("DELETE", ["_layerhouse", "v1", "repositories", "%0a"], [], {}, b""))
@example(("GET", ["v2", "team%2f..%2fhidden%2fimage", "tags", "list"], [], {}, b""))
@settings(deadline=None, max_examples=150, suppress_health_check=list(HealthCheck))
async def test_nothing_a_client_sends_is_a_fault_or_leaves_the_folder(besieged: Besieged, sent: Sent) -> None:
    method, segments, queries, headers, body = sent
    query = "&".join(f"{name}={value}" for name, value in queries)
    before = besieged.beside()
    with faults() as found, besieged.engine.during():
        target = f"/{'/'.join(segments)}?{query}".replace("#", "%23")
        answer = await besieged.api.ask(method, target, body, besieged.caller | headers)
        assert besieged.engine.strays() == []
    assert answer.status < 500, answer
    assert found == []
    assert "x-evil" not in answer.headers
    assert BESIDE not in answer.body
    assert besieged.beside() == before
    root = besieged.folder / "root"
    assert {each.name for each in root.iterdir()} <= {"docker", ".layerhouse"}
    assert {each.name for each in (root / "docker").iterdir()} == {"registry"}


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with serving(FilesEngine(tmp_path / "root")) as found:
        await found.push_image("image", "v1", b"data")
        yield found


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
