"""Mirrors of several upstreams on real sockets: how they are asked, and who may."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from ocispec.reference import RepositoryName, Tag
from registry.config import Settings
from registry.mirror.mirror import Mirror
from storage.files import FilesEngine
from storage.store import Store
from tests.client.scripted import Reply, ScriptedRegistry, Seen, scripted
from tests.support.api import Api, serving
from tests.support.authority import Authority
from tests.support.callers import basic, htpasswd
from tests.support.images import sha256

LAYER = b"a layer of the image"


def credentials(user: str, password: str) -> str:
    return basic(user, password)["authorization"]


@pytest.fixture
async def hub() -> AsyncIterator[ScriptedRegistry]:
    async with scripted() as registry:
        registry.publish("library/alpine", "latest", [LAYER])
        registry.publish("org/app", "1", [LAYER])
        yield registry


@pytest.fixture
async def ghcr() -> AsyncIterator[ScriptedRegistry]:
    async with scripted() as registry:
        registry.publish("org/app", "1", [LAYER, b"of ghcr"])
        yield registry


@pytest.fixture
async def mirror(tmp_path: Path, hub: ScriptedRegistry, ghcr: ScriptedRegistry) -> AsyncIterator[Callable[..., Any]]:
    """Starts one mirror of both, on the same images each time."""
    async with AsyncExitStack() as ending:

        async def start(settings: dict[str, Any] | None = None, **members: Any) -> Api:
            upstreams = [
                {"name": "docker.io", "url": f"http://{hub.host}"},
                {"name": "ghcr.io", "url": f"http://{ghcr.host}", "refuse": "secret/**"},
            ]
            mirrored = {"upstreams": upstreams, "default": "docker.io", "hosted": "team/**", **members}
            given = {"storage": {"filesystem": {"rootdirectory": tmp_path}, "delete": {"enabled": True}}}
            given |= settings or {}
            given["layerhouse"] = {**given.get("layerhouse", {}), "mirror": mirrored}
            found = Settings.model_validate(given)
            return await ending.enter_async_context(serving(FilesEngine(tmp_path), found))

        yield start


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("library/alpine", ""),
        ("alpine", ""),
        ("library/alpine", "?ns=docker.io"),
        ("docker.io/library/alpine", ""),
        ("docker.io/alpine", ""),
    ],
)
async def test_docker_hub_is_asked_in_five_ways(mirror: Any, hub: ScriptedRegistry, path: str, query: str) -> None:
    api = await mirror()
    answer = await api.get(f"/v2/{path}/manifests/latest{query}")
    assert answer.status == 200
    assert answer.headers.get("oci-namespace") == ("docker.io" if query else None)
    blob = await api.get(f"/v2/{path}/blobs/{sha256(LAYER)}{query}")
    assert blob.body == LAYER
    assert hub.paths() == ["/v2/library/alpine/manifests/latest", f"/v2/library/alpine/blobs/{sha256(LAYER)}"]
    assert (await api.get("/v2/_catalog")).json["repositories"] == ["docker.io/library/alpine"]


async def test_two_upstreams_keep_apart_what_they_call_the_same(mirror: Any) -> None:
    api = await mirror()
    one = await api.get("/v2/org/app/manifests/1?ns=docker.io")
    other = await api.get("/v2/org/app/manifests/1?ns=ghcr.io")
    assert (one.status, other.status) == (200, 200)
    assert one.body != other.body
    assert (await api.get("/v2/ghcr.io/org/app/manifests/1")).body == other.body


@pytest.mark.parametrize(
    "target",
    [
        "/v2/org/app/manifests/1?ns=quay.io",
        "/v2/org/app/manifests/1?ns=127.0.0.1:1",
        "/v2/org/app/tags/list?ns=quay.io",
        "/v2/?ns=quay.io",
        "/v2/docker.io/manifests/latest",
        "/v2/ghcr.io/secret/app/manifests/1",
        "/v2/secret/app/manifests/1?ns=ghcr.io",
    ],
)
async def test_what_is_not_mirrored_is_unknown_and_nobody_is_asked(
    mirror: Any, hub: ScriptedRegistry, ghcr: ScriptedRegistry, target: str
) -> None:
    answer = await (await mirror()).get(target)
    assert (answer.status, answer.code) == (404, "NAME_UNKNOWN")
    assert answer.headers.get("oci-namespace") == ("ghcr.io" if "ns=ghcr.io" in target else None)
    assert (hub.seen, ghcr.seen) == ([], [])


async def test_the_base_and_what_is_no_repository_is_answered_as_ever(mirror: Any) -> None:
    api = await mirror()
    assert (await api.get("/v2/?ns=docker.io")).headers["oci-namespace"] == "docker.io"
    assert (await api.get("/v2/")).status == 200
    assert (await api.get("/_layerhouse/v1/version")).status == 200
    unknown = await api.get("/v2/alpine/manifests/none?ns=docker.io")
    assert (unknown.code, unknown.headers["oci-namespace"]) == ("MANIFEST_UNKNOWN", "docker.io")


async def test_push_and_mirror_live_in_one_instance(mirror: Any, hub: ScriptedRegistry) -> None:
    api = await mirror()
    digest = await api.push_image("team/app", "1", LAYER)
    assert (await api.get("/v2/team/app/manifests/1")).headers["docker-content-digest"] == digest
    assert (await api.get("/v2/team/app/manifests/none")).status == 404
    assert hub.seen == []
    assert (await api.get("/v2/alpine/manifests/latest")).status == 200
    refused = [
        await api.ask("POST", "/v2/alpine/blobs/uploads/"),
        await api.ask("POST", "/v2/library/alpine/blobs/uploads/?ns=docker.io"),
        await api.ask("PUT", "/v2/docker.io/library/alpine/manifests/latest", b"{}"),
        await api.ask("DELETE", "/v2/ghcr.io/org/app/manifests/1"),
        await api.ask("DELETE", "/_layerhouse/v1/repositories/docker.io/library/alpine"),
    ]
    assert {(each.status, each.code) for each in refused} == {(405, "UNSUPPORTED")}
    assert (await api.ask("DELETE", f"/v2/team/app/manifests/{digest}")).status == 202


async def test_hosted_images_keep_the_rules_of_pushes(mirror: Any) -> None:
    api = await mirror()
    missing = {"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": sha256(b"nowhere"), "size": 1}
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {**missing, "mediaType": "application/vnd.oci.image.config.v1+json"},
        "layers": [missing],
    }
    answer = await api.push_manifest("team/app", "1", manifest)
    assert (answer.status, answer.code) == (404, "MANIFEST_BLOB_UNKNOWN")


async def test_lists_lead_on_under_the_name_that_a_repository_has_here(mirror: Any, hub: ScriptedRegistry) -> None:
    hub.behaviours["/v2/library/alpine/tags/list"] = Reply(200, b'{"name": "x", "tags": ["b", "a"]}')
    answer = await (await mirror()).get("/v2/alpine/tags/list?n=1")
    assert answer.json == {"name": "docker.io/library/alpine", "tags": ["a"]}
    assert answer.headers["link"] == '</v2/docker.io/library/alpine/tags/list?n=1&last=a>; rel="next"'


async def test_a_private_image_is_only_for_those_whom_the_rules_allow(
    mirror: Any, hub: ScriptedRegistry, tmp_path: Path
) -> None:
    passwords = htpasswd(tmp_path / "htpasswd", alice="secret", bob="other")
    rules = [
        {"who": "user:alice", "allow": "pull", "repositories": "docker.io/org/**"},
        {"who": "anyone", "allow": "pull", "repositories": "docker.io/library/*"},
    ]
    settings = {
        "auth": {"htpasswd": {"realm": "r", "path": str(passwords)}},
        "layerhouse": {"access": {"rules": rules}},
    }
    api = await mirror(settings)
    alice, bob = credentials("alice", "secret"), credentials("bob", "other")
    for asked in (
        "/v2/org/app/manifests/1",
        "/v2/org/app/manifests/1?ns=docker.io",
        "/v2/docker.io/org/app/manifests/1",
    ):
        assert (await api.get(asked)).status == 401
        assert (await api.get(asked, authorization=bob)).status == 404
        assert (await api.get(asked, authorization=alice)).status == 200
    blob = f"/v2/org/app/blobs/{sha256(LAYER)}"
    assert (await api.get(blob, authorization=alice)).body == LAYER
    assert (await api.get(blob, authorization=bob)).status == 404
    # The same bytes by way of what bob may read, which upstream says it has not.
    hub.behaviours.pop(f"/v2/library/alpine/blobs/{sha256(LAYER)}")
    assert (await api.get(f"/v2/library/alpine/blobs/{sha256(LAYER)}", authorization=bob)).status == 404
    assert (await api.get("/v2/alpine/manifests/latest")).status == 200


async def test_an_authorization_that_nobody_asked_for_is_ignored_and_goes_nowhere(
    mirror: Any, hub: ScriptedRegistry
) -> None:
    api = await mirror()
    for value in ("Bearer of-docker-hub", credentials("me", "mine"), "nonsense"):
        assert (await api.get("/v2/library/alpine/manifests/latest", authorization=value)).status == 200
    assert not any("authorization" in each.headers for each in hub.seen)


@pytest.mark.parametrize("way", ["username", "dockerconfig"])
async def test_credentials_go_to_their_upstream_and_never_over_a_redirect(
    tmp_path: Path, hub: ScriptedRegistry, ghcr: ScriptedRegistry, way: str
) -> None:
    """`ghcr` plays the place where the blobs of `hub` lie, and a token server that is none of hub's site."""
    (tmp_path / "config.json").write_text(f'{{"auths": {{"{hub.host}": {{"auth": "bWU6bWluZQ=="}}}}}}')
    known = {"username": "me", "password": "mine"} if way == "username" else {"dockerconfig": tmp_path / "config.json"}
    path = f"/v2/org/app/blobs/{sha256(LAYER)}"
    ghcr.behaviours["/there"] = Reply(200, LAYER)
    for each in (path, "/v2/org/app/manifests/1"):
        whole = hub.behaviours[each]
        if each == path:
            whole = Reply(307, headers={"Location": f"http://{ghcr.host}/there"})
        hub.behaviours[each] = _guarded(whole)
    upstream = {"name": "docker.io", "url": f"http://{hub.host}", **known}
    mirrored = {"mirror": {"upstreams": [upstream]}}
    given = {"storage": {"filesystem": {"rootdirectory": tmp_path / "root"}}, "layerhouse": mirrored}
    async with serving(FilesEngine(tmp_path / "root"), Settings.model_validate(given)) as api:
        assert (await api.get("/v2/docker.io/org/app/manifests/1")).status == 200
        assert (await api.get(f"/v2/docker.io/org/app/blobs/{sha256(LAYER)}")).body == LAYER
        challenge = {"WWW-Authenticate": f'Bearer realm="http://localhost:{ghcr.host.split(":")[1]}/token",service="s"'}
        hub.behaviours["/v2/org/app/manifests/2"] = Reply(401, headers=challenge)
        assert (await api.get("/v2/docker.io/org/app/manifests/2")).status == 404
    assert credentials("me", "mine") in [each.headers.get("authorization") for each in hub.seen]
    assert ghcr.paths()
    assert not any("authorization" in each.headers for each in ghcr.seen)


def _guarded(whole: Any) -> Callable[[Seen], Reply]:
    def behave(seen: Seen) -> Reply:
        refused = Reply(401, headers={"WWW-Authenticate": 'Basic realm="there"'})
        return whole if seen.headers.get("authorization") == credentials("me", "mine") else refused

    return behave


@pytest.mark.peer("openssl")
async def test_an_upstream_is_trusted_by_its_own_authority_alone(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    authority.make("server", "server")
    async with scripted(authority.server()) as upstream:
        upstream.publish("org/app", "1", [LAYER])
        for given, status in (({"ca": authority.certificate}, 200), ({}, 503)):
            root = tmp_path / str(status)
            registry = {"name": "near", "url": f"https://{upstream.host}", **given}
            settings = Settings.model_validate(
                {
                    "storage": {"filesystem": {"rootdirectory": root}},
                    "layerhouse": {"mirror": {"upstreams": [registry]}},
                }
            )
            async with serving(FilesEngine(root), settings) as api:
                answer = await api.get("/v2/near/org/app/manifests/1")
                assert answer.status == status
    assert upstream.paths() == ["/v2/org/app/manifests/1"]


async def test_a_chain_of_mirrors_works_and_a_loop_is_refused(
    mirror: Any, hub: ScriptedRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    """The upstream `hub` stands for another mirror: what it would hand on comes back with its `Via`."""
    api = await mirror()
    assert (await api.get("/v2/alpine/manifests/latest", via="1.1 another, 1.0 nginx:80, x")).status == 200
    via = hub.seen[-1].headers["via"]
    assert via.startswith("1.1 another, 1.1 nginx:80, 1.1 layerhouse-")
    hub.behaviours["/v2/library/alpine/manifests/failing"] = Reply(502)
    assert (await api.get("/v2/alpine/manifests/failing", via="1.1 another")).status == 503
    assert hub.paths().count("/v2/library/alpine/manifests/failing") == 1, "the mirror in front tries again itself"
    seen = len(hub.seen)
    with caplog.at_level(logging.ERROR, "registry"):
        for _ in range(3):
            answer = await api.get("/v2/alpine/manifests/other", via=via)
            assert (answer.status, answer.code) == (503, "UNAVAILABLE")
            assert "leads back" in answer.message
    assert len([each for each in caplog.records if "leads back" in each.message]) == 1
    assert len(hub.seen) == seen
    await api.push_image("team/app", "1", LAYER)
    assert (await api.get("/v2/team/app/manifests/1", via=via)).status == 200, "what is hosted here is no loop"
    again = await mirror()
    assert (await again.get("/v2/alpine/manifests/latest", via=via)).status == 503, "also after a restart"


async def test_metrics_tell_what_was_here_and_what_upstream_grants(tmp_path: Path, hub: ScriptedRegistry) -> None:
    plain = hub.behaviours["/v2/library/alpine/manifests/latest"]
    granted = {"ratelimit-limit": "100;w=21600", "ratelimit-remaining": "76;w=21600"}
    hub.behaviours["/v2/library/alpine/manifests/latest"] = Reply(200, plain.body, {**plain.headers, **granted})
    mirrored = {"mirror": {"upstreams": [{"name": "docker.io", "url": f"http://{hub.host}"}]}}
    settings = Settings.model_validate({"storage": {"filesystem": {"rootdirectory": tmp_path}}, "layerhouse": mirrored})
    engine = FilesEngine(tmp_path)
    mirror = Mirror(settings, engine)
    running = asyncio.create_task(mirror.run())
    manifests = Store(engine, dressed=mirror.dressed).repository(RepositoryName("docker.io/library/alpine")).manifests
    for _ in range(3):
        stored = await manifests.get(Tag("latest"))
    families = {each.name: {labels: value for _, labels, value in each.samples} for each in await mirror.families()}
    kind, upstream = (("type", "manifest"),), (("upstream", "docker.io"),)
    size = len(stored.raw)
    assert families["registry_proxy_requests"][kind] == 3
    assert families["registry_proxy_hits"][kind] == 2
    assert families["registry_proxy_misses"][kind] == 1
    assert families["registry_proxy_pulled_bytes"][kind] == size
    assert families["registry_proxy_pushed_bytes"][kind] == 3 * size
    assert families["registry_mirror_ratelimit_limit"][upstream] == 100
    assert families["registry_mirror_ratelimit_remaining"][upstream] == 76
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
