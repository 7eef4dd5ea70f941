"""Copy: from one registry to another, byte for byte, with what refers to it, and without a disk."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from client.caching.cache import Cache
from client.progress import BlobSent, Event, Warned
from client.registries.referring import of
from client.session import Session
from client.transfers.copying import copy
from client.transfers.pulling import pull
from client.transfers.pushing import push
from ocispec.digest import Digest
from ocispec.errors import ContentTruncated, Denied, DigestMismatch, ManifestUnknown, PlatformUnknown, ResponseInvalid
from ocispec.reference import Reference
from tests.client.receiving import receiving
from tests.client.scripted import INDEX, MANIFEST, Reply, ScriptedRegistry
from tests.client.transfers.test_pulling import verify
from tests.client.transfers.test_pushing import SAMPLE, keep
from tests.support.images import Wire
from tests.support.processes import DistributionProcess, RegistryProcess

BIG = bytes(range(256)) * 8_000
EMPTY = "application/vnd.oci.empty.v1+json"


def refer(host: str, repo: str, subject: bytes, kind: str, text: str) -> bytes:
    """Pushes an artifact that refers to a manifest, and returns its own."""
    with Wire(host) as wire:
        wire.push_blob(repo, b"{}")
        wire.push_blob(repo, text.encode())
        config = {"mediaType": EMPTY, "digest": str(Digest.of(b"{}")), "size": 2}
        layer = {"mediaType": "text/plain", "digest": str(Digest.of(text.encode())), "size": len(text)}
        named = {"mediaType": json.loads(subject)["mediaType"], "digest": str(Digest.of(subject)), "size": len(subject)}
        members = {"artifactType": kind, "config": config, "layers": [layer], "subject": named}
        raw = json.dumps({"schemaVersion": 2, "mediaType": MANIFEST, **members}).encode()
        wire.ask("PUT", f"/v2/{repo}/manifests/{Digest.of(raw)}", raw, expect=201, Content_Type=MANIFEST)
    return raw


async def referrers(name: str) -> list[Digest]:
    async with Session() as session:
        return [each.digest for each in await of(session, Reference.parse(name))]


@pytest.fixture
async def filled(registry_server: Callable[..., RegistryProcess], cache: Cache) -> str:
    """A registry of ours with the sample as `a/b:1`."""
    host = registry_server().host
    await push(await keep(cache, f"{host}/a/b:1", dict(SAMPLE.contents), SAMPLE.index), cache=cache)
    return host


@pytest.mark.peer("docker-registry")
async def test_an_index_goes_from_ours_to_theirs_and_back_with_all_that_refers_to_it(
    filled: str,
    registry_server: Callable[..., RegistryProcess],
    distribution: Callable[[Path], DistributionProcess],
    tmp_path: Path,
):
    top = SAMPLE.contents[SAMPLE.index.digest]
    child = SAMPLE.contents[Digest.parse(json.loads(top)["manifests"][0]["digest"])]
    signature = refer(filled, "a/b", top, "example/signature", "signed")
    confirmed = refer(filled, "a/b", signature, "example/countersignature", "signed again")
    sbom = refer(filled, "a/b", child, "example/sbom", "made of")
    theirs, back = distribution(tmp_path / "theirs").host, registry_server().host
    for source, target in ((f"{filled}/a/b:1", f"{theirs}/c/d:2"), (f"{theirs}/c/d:2", f"{back}/e/f:3")):
        copied = await copy(source, target, all_platforms=True, with_referrers=True)
        assert copied.digest == SAMPLE.index.digest
        name = Reference.parse(target).name
        for subject, referrer in ((top, signature), (signature, confirmed), (child, sbom)):
            assert await referrers(f"{name}@{Digest.of(subject)}") == [Digest.of(referrer)]
    target = Cache(tmp_path / "target")
    await pull(f"{back}/e/f:3", all_platforms=True, cache=target)
    assert verify(target) == {str(each) for each in SAMPLE.contents}


async def test_a_referrer_that_is_listed_already_is_not_listed_twice(
    filled: str, distribution: Callable[[Path], DistributionProcess], tmp_path: Path
):
    top = SAMPLE.contents[SAMPLE.index.digest]
    first = refer(filled, "a/b", top, "example/one", "1")
    theirs = distribution(tmp_path / "theirs").host
    await copy(f"{filled}/a/b:1", f"{theirs}/c/d:2", all_platforms=True, with_referrers=True)
    second = refer(filled, "a/b", top, "example/two", "2")
    await copy(f"{filled}/a/b:1", f"{theirs}/c/d:2", all_platforms=True, with_referrers=True)
    assert sorted(await referrers(f"{theirs}/c/d:2")) == sorted([Digest.of(first), Digest.of(second)])


async def test_without_a_word_the_image_for_this_machine_goes_and_that_is_said(filled: str):
    heard: list[Event] = []
    copied = await copy(f"{filled}/a/b:1", f"{filled}/a/b:2", report=heard.append)
    assert copied.digest != SAMPLE.index.digest
    (warned,) = [each.message for each in heard if isinstance(each, Warned)]
    assert warned.endswith("alone, without the index that names it; --all-platforms copies all")
    with pytest.raises(PlatformUnknown, match="linux/s390x"):
        await copy(f"{filled}/a/b:1", f"{filled}/a/b:2", platform="linux/s390x")


async def test_within_a_registry_blobs_are_mounted(filled: str):
    heard: list[Event] = []
    copied = await copy(f"{filled}/a/b:1", f"{filled}/c/d:1", all_platforms=True, report=heard.append)
    assert {each.how for each in heard if isinstance(each, BlobSent)} == {"mounted"}
    assert copied.sent == 0
    heard.clear()
    await copy(f"{filled}/a/b:1", f"{filled}/a/b:2", all_platforms=True, report=heard.append)
    assert {each.how for each in heard if isinstance(each, BlobSent)} == {"exists"}


async def test_what_is_not_there_is_named(filled: str):
    with pytest.raises(ManifestUnknown, match=f"^{filled}/a/b:nope: "):
        await copy(f"{filled}/a/b:nope", f"{filled}/c/d:1")


async def test_a_source_that_breaks_is_asked_for_the_rest(registry: ScriptedRegistry):
    image = registry.publish("a/b", "1", [BIG])
    broken = [1_300_000, 1_900_000]

    def serve(request):
        first, _, _ = request.headers.get("range", "bytes=0-").removeprefix("bytes=").partition("-")
        start = int(first)
        end = broken.pop(0) if broken else len(BIG)
        headers = {"Content-Range": f"bytes {start}-{len(BIG) - 1}/{len(BIG)}"} if start else {}
        return Reply(206 if start else 200, BIG[start:end], headers, promised=len(BIG) - start)

    registry.behaviours[f"/v2/a/b/blobs/{image.layers[0]}"] = serve
    async with receiving() as target:
        await copy(f"{registry.host}/a/b:1", f"{target.host}/c/d:1", platform="linux/amd64")
        assert target.blobs[image.layers[0]] == BIG
        assert target.manifests["1"] == registry.behaviours["/v2/a/b/manifests/1"].body
    asked = [each.headers.get("range") for each in registry.seen if each.path.endswith(image.layers[0])]
    assert asked[0] is None
    assert len(asked) == 3


async def test_a_source_without_ranges_is_read_up_to_where_it_broke(registry: ScriptedRegistry):
    image = registry.publish("a/b", "1", [BIG])
    sizes = [1_500_000, len(BIG)]
    registry.behaviours[f"/v2/a/b/blobs/{image.layers[0]}"] = lambda _: Reply(
        200, BIG[: sizes.pop(0)], promised=len(BIG)
    )
    async with receiving() as target:
        await copy(f"{registry.host}/a/b:1", f"{target.host}/c/d:1", platform="linux/amd64")
        assert target.blobs[image.layers[0]] == BIG


async def test_wrong_bytes_abort_the_upload_and_leave_the_tag(registry: ScriptedRegistry):
    image = registry.publish("a/b", "1", [BIG])
    registry.behaviours[f"/v2/a/b/blobs/{image.layers[0]}"] = Reply(200, BIG[:-1] + b"!")
    async with receiving() as target:
        with pytest.raises(DigestMismatch, match=rf"^{target.host}/c/d:1: {image.layers[0]}: expected"):
            await copy(f"{registry.host}/a/b:1", f"{target.host}/c/d:1", platform="linux/amd64")
        assert (target.uploads, target.manifests) == ({}, {})
        assert image.layers[0] not in target.blobs


async def test_what_the_target_refuses_is_told_of_the_target_alone(registry: ScriptedRegistry):
    image = registry.publish("a/b", "1", [BIG])
    async with receiving() as target:
        target.always["PATCH"] = (403, "DENIED")
        with pytest.raises(Denied, match=rf"^{target.host}/c/d:1: {image.layers[0]}: as told \(status 403\)$"):
            await copy(f"{registry.host}/a/b:1", f"{target.host}/c/d:1", platform="linux/amd64")


async def test_a_source_that_stays_broken_is_named(registry: ScriptedRegistry):
    image = registry.publish("a/b", "1", [BIG])
    registry.behaviours[f"/v2/a/b/blobs/{image.layers[0]}"] = Reply(200, BIG[:100_000], promised=len(BIG))
    async with receiving() as target:
        with pytest.raises(ContentTruncated, match=rf"{registry.host}/a/b:1: {image.layers[0]}: ended after 100000 of"):
            await copy(f"{registry.host}/a/b:1", f"{target.host}/c/d:1", platform="linux/amd64")
        assert (target.uploads, target.manifests) == ({}, {})


async def test_referrers_without_end_are_refused(registry: ScriptedRegistry, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("client.transfers.copying.MAX_REFERRERS", 3)
    image = registry.publish("a/b", "1", [b"x"])
    entries = []
    for number in range(4):
        digest = registry.manifest(
            "a/b",
            f"r{number}",
            {
                "mediaType": MANIFEST,
                "config": {"mediaType": EMPTY, **registry.blob("a/b", b"{}")},
                "layers": [],
                "annotations": {"n": str(number)},
            },
        )
        size = len(registry.behaviours[f"/v2/a/b/manifests/{digest}"].body)
        entries.append({"mediaType": MANIFEST, "digest": digest, "size": size})
    index = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries})
    registry.behaviours[f"/v2/a/b/referrers/{image.digest}"] = Reply(200, index.encode())
    async with receiving() as target:
        with pytest.raises(ResponseInvalid, match="more than 3 manifests refer to it"):
            await copy(f"{registry.host}/a/b:1", f"{target.host}/c/d", platform="linux/amd64", with_referrers=True)
