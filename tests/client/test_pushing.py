"""Push: only what the registry lacks goes there, and the tag comes last."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from client.cache import Cache
from client.pulling import pull
from client.pushing import push_in
from client.session import Session
from ocispec.descriptor import Descriptor
from ocispec.digest import Digest
from ocispec.errors import BlobUploadInvalid, CacheError, Denied, StorageError
from ocispec.reference import Reference
from registry.sample import build
from tests.client.scripted import MANIFEST, Reply, ScriptedRegistry, scripted
from tests.client.test_pulling import verify
from tests.support.processes import RegistryProcess

LARGE = bytes(range(256)) * 20_000


async def keep(cache: Cache, name: str, contents: dict[Digest, bytes], root: Descriptor) -> Reference:
    for digest, data in contents.items():
        await cache.layout.add(digest, data)
    await cache.layout.set_name(name, root)
    return Reference.parse(name)


async def push(cache: Cache, reference: Reference) -> None:
    async with Session() as session:
        await push_in(session, cache, reference)


async def test_what_was_pushed_is_pulled_byte_for_byte_from_a_real_registry(
    registry_server: Callable[..., RegistryProcess], cache: Cache, tmp_path: Path
):
    sample, host = build(), registry_server().host
    reference = await keep(cache, f"{host}/a/b:1", dict(sample.contents), sample.index)
    for _ in range(2):
        await push(cache, reference)
    target = Cache(tmp_path / "target")
    for platform in ("linux/amd64", "linux/arm64"):
        pulled = await pull(reference, platform=platform, cache=target)
        assert pulled.digest == sample.index.digest
    assert verify(target) == {str(each) for each in sample.contents}


def accepts_uploads(registry: ScriptedRegistry, digest: Digest, upload: str) -> None:
    registry.behaviours["/v2/a/b/blobs/uploads/"] = Reply(202, headers={"Location": upload})
    registry.behaviours[f"/v2/a/b/blobs/{digest}"] = Reply(404)


async def upload(registry: ScriptedRegistry, data: bytes) -> bool:
    async def content():
        yield data

    async with Session() as session:
        remote = session.remote(Reference.parse(f"{registry.host}/a/b:1"), "pull", "push")
        return await remote.upload(Descriptor("x/y", Digest.of(data), len(data)), content)


@pytest.mark.parametrize(("place", "query"), [("up/1", {}), ("/v2/a/b/blobs/uploads/1?state=x", {"state": "x"})])
async def test_a_blob_goes_where_the_registry_says(registry: ScriptedRegistry, place: str, query: dict[str, str]):
    digest = Digest.of(LARGE)
    accepts_uploads(registry, digest, place)
    registry.behaviours["/v2/a/b/blobs/uploads/up/1"] = registry.behaviours["/v2/a/b/blobs/uploads/1"] = Reply(201)
    assert await upload(registry, LARGE)
    assert registry.seen[-1].query == {**query, "digest": str(digest)}
    assert registry.seen[-1].headers["content-length"] == str(len(LARGE))


async def test_a_blob_that_the_registry_has_is_not_sent(registry: ScriptedRegistry):
    registry.blob("a/b", LARGE)
    assert not await upload(registry, LARGE)
    assert [each.method for each in registry.seen] == ["HEAD"]


async def test_an_upload_to_another_host_carries_no_token(registry: ScriptedRegistry):
    digest = Digest.of(LARGE)
    async with scripted() as elsewhere:
        accepts_uploads(registry, digest, f"http://{elsewhere.host}/store")
        challenge = f'Bearer realm="http://{registry.host}/token"'
        start = registry.behaviours["/v2/a/b/blobs/uploads/"]
        registry.behaviours["/token"] = Reply(200, b'{"token":"secret"}')
        registry.behaviours["/v2/a/b/blobs/uploads/"] = lambda request: (
            start if "authorization" in request.headers else Reply(401, headers={"WWW-Authenticate": challenge})
        )
        elsewhere.behaviours["/store"] = Reply(201)
        assert await upload(registry, LARGE)
        (request,) = elsewhere.seen
    assert "authorization" not in request.headers
    asked = next(each for each in registry.seen if each.path == "/token")
    assert asked.query == {"scope": "repository:a/b:pull,push"}


async def test_a_refused_upload_is_one_line_with_image_and_digest(registry: ScriptedRegistry):
    digest = Digest.of(LARGE)
    accepts_uploads(registry, digest, "/up")
    registry.behaviours["/up"] = Reply(400, b'{"errors":[{"code":"BLOB_UPLOAD_INVALID","message":"not so"}]}')
    with pytest.raises(BlobUploadInvalid, match=rf"^{registry.host}/a/b:1: {digest}: not so \(status 400\)$"):
        await upload(registry, LARGE)


async def test_an_image_that_may_not_be_stored_is_named(registry: ScriptedRegistry, cache: Cache):
    raw = b'{"schemaVersion":2,"mediaType":"%s","manifests":[]}' % b"application/vnd.oci.image.index.v1+json"
    root = Descriptor("application/vnd.oci.image.index.v1+json", Digest.of(raw), len(raw))
    reference = await keep(cache, f"{registry.host}/a/b:1", {root.digest: raw}, root)
    registry.behaviours["/v2/a/b/manifests/1"] = Reply(403, b'{"errors":[{"code":"DENIED","message":"read only"}]}')
    with pytest.raises(Denied, match=r"a/b:1: read only \(status 403\)"):
        await push(cache, reference)
    assert registry.seen[-1].headers["content-type"] == root.media_type


async def test_what_the_cache_does_not_have_is_said(registry: ScriptedRegistry, cache: Cache):
    with pytest.raises(CacheError, match="is not in the cache"):
        await push(cache, Reference.parse("a.example/x"))
    await cache.layout.set_name("a.example/x:latest", Descriptor(MANIFEST, Digest.of(b"x"), 1))
    with pytest.raises(StorageError):
        await push(cache, Reference.parse("a.example/x"))
    assert registry.seen == []
