"""A mirror before an upstream on a real socket that does what the test tells it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random
from typing import Any

import pytest

from ocispec.digest import Digest
from ocispec.reference import RepositoryName
from registry.config import ConfigError, Settings
from registry.config.proxy import Proxy
from registry.mirror.mirror import Mirror
from registry.mirror.upstream import Upstream
from storage import paths
from storage.files import FilesEngine
from tests.client.scripted import Reply, ScriptedRegistry, Seen, scripted
from tests.support.api import Answer, Api, Broken, serving
from tests.support.images import sha256

NAME = "diamol/ch03-web-ping"
LARGE = Random(1).randbytes(300_000)
SMALL = b"a small layer"


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedRegistry]:
    async with scripted() as registry:
        yield registry


@pytest.fixture
async def mirror(tmp_path: Path, upstream: ScriptedRegistry) -> AsyncIterator[Callable[..., Any]]:
    """Starts a mirror of `upstream`, on the same images each time; members of `proxy` may be given."""
    async with AsyncExitStack() as ending:

        async def start(**members: str) -> Api:
            proxy = {"remoteurl": f"http://{upstream.host}", **members}
            storage = {"filesystem": {"rootdirectory": tmp_path}, "delete": {"enabled": True}}
            settings = Settings.model_validate({"proxy": proxy, "storage": storage})
            return await ending.enter_async_context(serving(FilesEngine(tmp_path), settings))

        yield start


def blob(data: bytes) -> str:
    return f"/v2/{NAME}/blobs/{sha256(data)}"


def tag(name: str = "latest") -> str:
    return f"/v2/{NAME}/manifests/{name}"


def kept(root: Path) -> list[str]:
    """Digests of the blobs that are in the tree."""
    return sorted(f"sha256:{path.parent.name}" for path in root.glob("docker/registry/v2/blobs/*/*/*/data"))


async def test_an_image_comes_from_upstream_once(mirror: Any, upstream: ScriptedRegistry, tmp_path: Path) -> None:
    image = upstream.publish(NAME, "latest", [LARGE, SMALL])
    api = await mirror()
    for _ in range(2):
        manifest = await api.get(tag())
        assert (manifest.status, sha256(manifest.body)) == (200, image.digest)
        assert [(await api.get(blob(layer))).body for layer in (LARGE, SMALL)] == [LARGE, SMALL]
    assert upstream.paths() == [tag(), blob(LARGE), blob(SMALL)]
    assert upstream.paths("HEAD") == [tag()], "the sizes of blobs stand in the manifest"
    assert sorted(upstream.blobs()) == [each for each in kept(tmp_path) if each != image.digest]


async def test_many_readers_share_one_fetch(mirror: Any, upstream: ScriptedRegistry) -> None:
    upstream.publish(NAME, "latest", [LARGE])
    api = await mirror()
    answers = await asyncio.gather(*[api.get(blob(LARGE)) for _ in range(50)])
    assert {(answer.status, answer.body) for answer in answers} == {(200, LARGE)}
    assert upstream.blobs() == [sha256(LARGE)]


async def test_ranges_of_a_blob_that_is_not_here_yet(mirror: Any, upstream: ScriptedRegistry) -> None:
    upstream.publish(NAME, "latest", [LARGE])
    api = await mirror()
    whole = len(LARGE)
    spans = [(0, 99), (1000, 200_000), (whole - 50, whole - 1)]
    answers = await asyncio.gather(*[api.get(blob(LARGE), range=f"bytes={a}-{b}") for a, b in spans])
    assert [answer.status for answer in answers] == [206] * 3
    assert [answer.body for answer in answers] == [LARGE[a : b + 1] for a, b in spans]
    assert upstream.blobs() == [sha256(LARGE)]


async def test_the_head_of_a_blob_fetches_nothing(mirror: Any, upstream: ScriptedRegistry, tmp_path: Path) -> None:
    upstream.publish(NAME, "latest", [LARGE])
    api = await mirror()
    answer = await api.ask("HEAD", blob(LARGE))
    assert (answer.status, answer.headers["content-length"]) == (200, str(len(LARGE)))
    assert (upstream.paths(), kept(tmp_path)) == ([], [])


async def test_a_reader_that_leaves_does_not_stop_the_fetch(
    mirror: Any, upstream: ScriptedRegistry, tmp_path: Path
) -> None:
    upstream.publish(NAME, "latest", [LARGE])
    going = asyncio.Event()
    upstream.behaviours[blob(LARGE)] = Reply(200, LARGE, wait=going.wait)
    api = await mirror()
    await api.get(tag())
    leaving = asyncio.create_task(api.get(blob(LARGE)))
    while not upstream.blobs():
        await asyncio.sleep(0.001)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    going.set()
    while sha256(LARGE) not in kept(tmp_path):
        await asyncio.sleep(0.001)
    assert (await api.get(blob(LARGE))).body == LARGE
    assert upstream.blobs() == [sha256(LARGE)]


async def test_wrong_bytes_break_the_connection_and_are_not_kept(
    mirror: Any, upstream: ScriptedRegistry, tmp_path: Path
) -> None:
    upstream.publish(NAME, "latest", [LARGE, SMALL])
    wrong = LARGE[:-1] + bytes([LARGE[-1] ^ 1])
    upstream.behaviours[blob(LARGE)] = Reply(200, wrong)
    upstream.behaviours[blob(SMALL)] = Reply(200, SMALL[::-1])
    api = await mirror()
    with pytest.raises((Broken, BaseException)) as met:
        await api.get(blob(LARGE))
    assert not isinstance(met.value, AssertionError)
    assert (await api.get(blob(SMALL))).status == 503
    assert kept(tmp_path) == []
    upstream.behaviours[blob(LARGE)] = Reply(200, LARGE)
    assert (await api.get(blob(LARGE))).body == LARGE


async def test_what_broke_goes_on_where_it_broke(mirror: Any, upstream: ScriptedRegistry) -> None:
    upstream.publish(NAME, "latest", [LARGE])

    def cut_once(seen: Seen) -> Reply:
        if "range" not in seen.headers:
            return Reply(200, LARGE[:100_000], promised=len(LARGE))
        first = int(seen.headers["range"].removeprefix("bytes=").split("-")[0])
        return Reply(206, LARGE[first:], {"Content-Range": f"bytes {first}-{len(LARGE) - 1}/{len(LARGE)}"})

    upstream.behaviours[blob(LARGE)] = cut_once
    api = await mirror()
    assert (await api.get(blob(LARGE))).body == LARGE
    ranges = [seen.headers.get("range") for seen in upstream.seen if seen.method == "GET"]
    assert ranges == [None, f"bytes=100000-{len(LARGE) - 1}"]


async def test_a_tag_that_moved_is_followed_and_one_that_is_gone_is_gone(
    mirror: Any, upstream: ScriptedRegistry
) -> None:
    upstream.publish(NAME, "latest", [SMALL])
    api = await mirror()
    assert (await api.get(tag())).status == 200
    moved = upstream.publish(NAME, "latest", [LARGE])
    assert (await api.get(tag())).headers["docker-content-digest"] == moved.digest
    del upstream.behaviours[tag()]
    answer = await api.get(tag())
    assert (answer.status, answer.code) == (404, "MANIFEST_UNKNOWN")


@pytest.mark.parametrize("trouble", [401, 403, 429, 500, 503], ids=str)
async def test_what_is_here_is_served_while_upstream_is_in_trouble(
    mirror: Any, upstream: ScriptedRegistry, trouble: int
) -> None:
    image = upstream.publish(NAME, "latest", [SMALL])
    api = await mirror()
    await api.get(tag())
    await api.get(blob(SMALL))
    upstream.behaviours[tag()] = Reply(trouble)
    upstream.behaviours[f"/v2/{NAME}/tags/list"] = Reply(trouble)
    answer = await api.get(tag())
    assert (answer.status, answer.headers["docker-content-digest"]) == (200, image.digest)
    assert (await api.get(blob(SMALL))).body == SMALL
    assert (await api.get(f"/v2/{NAME}/tags/list")).json["tags"] == ["latest"]


@pytest.mark.parametrize(
    ("trouble", "status", "code"),
    [
        (401, 404, "NAME_UNKNOWN"),
        (404, 404, "MANIFEST_UNKNOWN"),
        (429, 429, "TOOMANYREQUESTS"),
        (500, 503, "UNAVAILABLE"),
    ],
)
async def test_what_is_not_here_is_refused_as_upstream_does(
    mirror: Any, upstream: ScriptedRegistry, trouble: int, status: int, code: str
) -> None:
    waits = {"Retry-After": "1"} if trouble == 429 else {}
    upstream.behaviours[tag()] = Reply(trouble, headers={**waits, "WWW-Authenticate": 'Basic realm="there"'})
    api = await mirror()
    answer = await api.get(tag())
    assert (answer.status, answer.code) == (status, code)
    assert "www-authenticate" not in answer.headers, "nobody here logs in there"
    assert answer.headers.get("retry-after") == waits.get("Retry-After")


async def test_a_mirror_takes_no_pushes_and_no_deletes(mirror: Any, upstream: ScriptedRegistry) -> None:
    upstream.publish(NAME, "latest", [SMALL])
    api = await mirror()
    await api.get(tag())
    refused: list[Answer] = [
        await api.ask("POST", f"/v2/{NAME}/blobs/uploads/"),
        await api.ask("PUT", tag(), b"{}"),
        await api.ask("DELETE", tag()),
    ]
    assert {(answer.status, answer.code) for answer in refused} == {(405, "UNSUPPORTED")}
    assert upstream.host in refused[0].message
    assert (await api.get(tag())).status == 200


async def test_it_logs_in_as_it_is_told_and_as_nobody_else(
    mirror: Any, upstream: ScriptedRegistry, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    known = "Basic dXNlcjpwYXNz"  # user:pass
    image = upstream.publish(NAME, "latest", [SMALL])
    whole = upstream.behaviours[tag()]

    def guarded(seen: Seen) -> Reply:
        refused = Reply(401, headers={"WWW-Authenticate": 'Basic realm="there"'})
        return whole if seen.headers.get("authorization") == known and isinstance(whole, Reply) else refused

    upstream.behaviours[tag()] = guarded
    (tmp_path / "config.json").write_text(f'{{"auths": {{"{upstream.host}": {{"auth": "dXNlcjpwYXNz"}}}}}}')
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    assert (await (await mirror()).get(tag())).status == 404, "this machine's logins are not the mirror's"
    api = await mirror(username="user", password="pass")
    asked = await api.get(tag(), authorization="Bearer of-the-client")
    assert asked.headers["docker-content-digest"] == image.digest
    assert "Bearer of-the-client" not in [seen.headers.get("authorization") for seen in upstream.seen]


async def test_tags_and_referrers_are_upstreams(mirror: Any, upstream: ScriptedRegistry) -> None:
    subject = upstream.publish(NAME, "latest", [SMALL])
    tags = b'{"name": "x", "tags": ["b", "a", "latest", "not a tag"]}'
    upstream.behaviours[f"/v2/{NAME}/tags/list"] = Reply(200, tags)
    entry = f'{{"mediaType": "application/x", "digest": "{subject.digest}", "size": 3}}'
    index = f'{{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [{entry}]}}'
    upstream.behaviours[f"/v2/{NAME}/referrers/{subject.digest}"] = Reply(200, index.encode())
    api = await mirror()
    assert (await api.get(f"/v2/{NAME}/tags/list?n=2")).json["tags"] == ["a", "b"]
    assert (await api.get(f"/v2/{NAME}/tags/list?last=b")).json["tags"] == ["latest"]
    (found,) = (await api.get(f"/v2/{NAME}/referrers/{subject.digest}")).json["manifests"]
    assert found["digest"] == subject.digest


async def test_what_was_fetched_outlives_the_mirror(mirror: Any, upstream: ScriptedRegistry, tmp_path: Path) -> None:
    upstream.publish(NAME, "latest", [LARGE])
    api = await mirror()
    await api.get(tag())
    await api.get(blob(LARGE))
    private = Settings.model_validate({"storage": {"filesystem": {"rootdirectory": tmp_path}}})
    async with serving(FilesEngine(tmp_path), private) as hosted:
        assert (await hosted.get(tag())).status == 200
        assert (await hosted.get(blob(LARGE))).body == LARGE


@pytest.mark.parametrize(
    "proxy",
    [
        {"remoteurl": "registry.example"},
        {"remoteurl": "ftp://registry.example"},
        {"remoteurl": "https://user:secret@registry.example"},
        {"remoteurl": "https://registry.example", "username": "only"},
    ],
)
def test_an_upstream_that_cannot_be_is_refused(proxy: dict[str, str]) -> None:
    with pytest.raises(ConfigError) as met:
        Upstream(Proxy.model_validate(proxy))
    assert met.value.message.startswith("proxy")
    assert "secret" not in met.value.message


async def test_a_mirror_lets_expire_what_its_ttl_says(
    mirror: Any, upstream: ScriptedRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("registry.mirror.removing.GRACE", 0.0)
    upstream.publish(NAME, "latest", [SMALL])
    upstream.behaviours["/v2/"] = Reply(401, headers={"WWW-Authenticate": 'Basic realm="there"'})
    api = await mirror(ttl="200ms")
    await api.get(tag())
    while kept(tmp_path):
        await asyncio.sleep(0.01)


@pytest.mark.parametrize(("times", "status"), [(1, 200), (9, 503)])
async def test_a_blob_that_is_evicted_as_soon_as_it_has_come_is_fetched_again(
    mirror: Any, upstream: ScriptedRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, times: int, status: int
) -> None:
    linked, left = Mirror._link, times

    async def evicted(self: Mirror, name: RepositoryName, digest: Digest) -> None:
        nonlocal left
        await linked(self, name, digest)
        left -= 1
        if left >= 0:
            await FilesEngine(tmp_path).delete(paths.layer(name, digest))
            await FilesEngine(tmp_path).delete(paths.blob_data(digest))

    monkeypatch.setattr(Mirror, "_link", evicted)
    upstream.publish(NAME, "latest", [SMALL])
    answer = await (await mirror()).get(blob(SMALL))
    assert answer.status == status
    assert answer.body == SMALL or "the mirror's cap is too small" in answer.message
