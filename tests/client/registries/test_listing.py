"""What a registry has: tags, repositories, referrers, page by page; and deleting, said plainly where it is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from client.caching.cache import Cache
from client.registries import listing
from client.registries.deleting import delete_in
from client.registries.listing import CATALOG
from client.registries.referring import enter, of, tag_of
from client.session import Session
from client.transfers.pushing import push
from ocispec.descriptor import Descriptor
from ocispec.digest import Digest
from ocispec.errors import Denied, ManifestUnknown, NameUnknown, ResponseInvalid, Unsupported
from ocispec.reference import Reference, Tag
from tests.client.scripted import INDEX, MANIFEST, Reply, ScriptedRegistry
from tests.client.transfers.test_pushing import SAMPLE, keep
from tests.support.processes import DistributionProcess, RegistryProcess, pullclient, run

ONE = Digest.of(b"1")
LIST = "/v2/a/b/tags/list"


async def tags(host: str) -> list[str]:
    async with Session() as session:
        api = (await session.remote(Reference.parse(f"{host}/a/b")).endpoints())[-1]
        return [each async for each in listing.tags(api)]


async def catalog(host: str) -> list[str]:
    async with Session() as session:
        return [each async for each in listing.catalog(await session.api(host, CATALOG))]


async def delete(name: str) -> None:
    async with Session() as session:
        await delete_in(session, Reference.parse(name))


async def referrers(name: str, kind: str | None = None) -> list[Descriptor]:
    async with Session() as session:
        return list(await of(session, Reference.parse(name), kind))


def page(names: list[str], after: str = "") -> Reply:
    link = {"Link": f'<{after}>; rel="next"'} if after else {}
    return Reply(200, json.dumps({"name": "a/b", "tags": names}).encode(), link)


async def test_pages_are_followed_to_the_end(registry: ScriptedRegistry):
    answers = {"": page(["a", "b"], "list?n=2&last=b"), "b": page(["c"], f"{LIST}?n=2&last=c"), "c": page([])}
    registry.behaviours[LIST] = lambda request: answers[request.query.get("last", "")]
    assert await tags(registry.host) == ["a", "b", "c"]
    assert registry.seen[0].query == {"n": "1000"}


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (page(["a"], f"{LIST}?n=1&last=a"), "the list has no end: after 2 pages it leads to"),
        (page(["a"], "http://other.example/v2/a/b/tags/list"), "the list leads to another host: 'http://other"),
        (Reply(200, b"{}", {"Link": "next please"}), "invalid Link"),
        (Reply(200, b"[]"), "the registry's list cannot be read: list: expected an object"),
        (Reply(200, b'{"tags":[1]}'), r"cannot be read: tags\[0\]: expected a string"),
        (Reply(200, b"<html>"), "cannot be read: not valid JSON"),
        (Reply(200, b" " * (listing.MAX_PAGE + 1)), "a page of the list is longer than 4194304 bytes"),
    ],
)
async def test_lists_that_go_wrong_are_refused(registry: ScriptedRegistry, reply: Reply, message: str):
    registry.behaviours[LIST] = reply
    with pytest.raises(ResponseInvalid, match=message):
        await tags(registry.host)


async def test_pages_have_a_bound(registry: ScriptedRegistry, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(listing, "MAX_PAGES", 3)
    registry.behaviours[LIST] = lambda request: page(["a"], f"{LIST}?last={request.query.get('last', '')}x")
    with pytest.raises(ResponseInvalid, match="no end: after 3 pages"):
        await tags(registry.host)


async def test_a_link_that_is_no_next_and_no_names_end_a_list(registry: ScriptedRegistry):
    registry.behaviours[LIST] = Reply(200, b'{"tags":null}', {"Link": f'<{LIST}?last=z>; rel="prev"'})
    assert await tags(registry.host) == []


async def test_a_repository_that_is_not_there_is_said(registry: ScriptedRegistry):
    registry.behaviours[LIST] = Reply(404)
    with pytest.raises(NameUnknown, match=r"\(status 404\)"):
        await tags(registry.host)


@pytest.mark.peer("docker-registry")
async def test_real_registries_tell_what_they_have_and_let_it_go(
    registry_server: Callable[..., RegistryProcess],
    distribution: Callable[[Path], DistributionProcess],
    cache: Cache,
    tmp_path: Path,
):
    ours = registry_server().host
    for host in (ours, distribution(tmp_path / "theirs").host):
        name = await keep(cache, f"{host}/a/b:1", dict(SAMPLE.contents), SAMPLE.index)
        for tag in ("1", "2", "ten"):
            await push(name, f"{host}/a/b:{tag}", cache=cache)
        assert sorted(await tags(host)) == ["1", "2", "ten"]
        assert await catalog(host) == ["a/b"]
        assert await referrers(f"{host}/a/b:1") == []
        await delete(f"{host}/a/b@{SAMPLE.index.digest}")
        with pytest.raises(ManifestUnknown):
            await delete(f"{host}/a/b@{SAMPLE.index.digest}")


async def test_a_tag_is_deleted_and_the_others_stay(registry_server: Callable[..., RegistryProcess], cache: Cache):
    host = registry_server().host
    name = await keep(cache, f"{host}/a/b:1", dict(SAMPLE.contents), SAMPLE.index)
    for tag in ("1", "2"):
        await push(name, f"{host}/a/b:{tag}", cache=cache)
    await delete(f"{host}/a/b:1")
    assert await tags(host) == ["2"]


@pytest.mark.peer("docker-registry")
async def test_a_registry_that_deletes_no_tags_leads_to_the_digest(
    distribution: Callable[[Path], DistributionProcess], cache: Cache, tmp_path: Path
):
    host = distribution(tmp_path / "theirs").host
    await push(await keep(cache, f"{host}/a/b:1", dict(SAMPLE.contents), SAMPLE.index), cache=cache)
    with pytest.raises(Unsupported, match=rf"not tags alone; .*: pullclient delete {host}/a/b@{SAMPLE.index.digest}$"):
        await delete(f"{host}/a/b:1")


async def test_a_registry_that_deletes_nothing_says_so(registry: ScriptedRegistry, registry_server, cache: Cache):
    host = registry_server(env={"REGISTRY_STORAGE_DELETE_ENABLED": "false"}).host
    await push(await keep(cache, f"{host}/a/b:1", dict(SAMPLE.contents), SAMPLE.index), cache=cache)
    with pytest.raises(Unsupported, match=rf"^{host}/a/b@{SAMPLE.index.digest}: the registry does not let it be del"):
        await delete(f"{host}/a/b@{SAMPLE.index.digest}")
    registry.behaviours["/v2/a/b/manifests/1"] = lambda each: Reply(405 if each.method == "DELETE" else 404)
    with pytest.raises(Unsupported, match=r"does not let it be deleted: .*status 405"):
        await delete(f"{registry.host}/a/b:1")
    registry.behaviours["/v2/a/b/manifests/1"] = Reply(403)
    with pytest.raises(Denied):
        await delete(f"{registry.host}/a/b:1")


class TestReferrers:
    def entry(self, content: bytes, kind: str) -> dict[str, object]:
        described = Descriptor(MANIFEST, Digest.of(content), len(content), artifact_type=kind)
        return described.to_json()

    def index(self, *entries: dict[str, object]) -> bytes:
        return json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}).encode()

    async def test_they_come_page_by_page_and_are_filtered_here_too(self, registry: ScriptedRegistry):
        digest = registry.publish("a/b", "1", [b"x"]).digest
        path = f"/v2/a/b/referrers/{digest}"
        pages = {
            "": Reply(200, self.index(self.entry(b"1", "x/sbom")), {"Link": f'<{path}?page=2>; rel="next"'}),
            "2": Reply(200, self.index(self.entry(b"2", "x/sig"), self.entry(b"1", "x/sbom"))),
        }
        registry.behaviours[path] = lambda request: pages[request.query.get("page", "")]
        name = f"{registry.host}/a/b:1"
        assert [each.digest for each in await referrers(name)] == [Digest.of(b"1"), Digest.of(b"2")]
        assert [each.digest for each in await referrers(name, "x/sig")] == [Digest.of(b"2")]
        assert registry.seen[-2].query == {"artifactType": "x/sig"}

    @pytest.mark.parametrize("status", [404, 405])
    async def test_a_registry_without_them_keeps_an_index_under_a_tag(self, registry: ScriptedRegistry, status: int):
        digest = registry.publish("a/b", "1", [b"x"]).digest
        registry.behaviours[f"/v2/a/b/referrers/{digest}"] = Reply(status)
        assert await referrers(f"{registry.host}/a/b@{digest}") == []
        registry.behaviours[f"/v2/a/b/manifests/{digest.replace(':', '-')}"] = Reply(
            200, self.index(self.entry(b"1", "x/sbom"))
        )
        (found,) = await referrers(f"{registry.host}/a/b@{digest}")
        assert found.artifact_type == "x/sbom"

    @pytest.mark.parametrize(
        ("reply", "message"),
        [
            (Reply(200, b"no"), "the referrers are no index: manifest invalid"),
            (Reply(200, b" " * (listing.MAX_PAGE + 1)), "the index of referrers is longer than"),
        ],
    )
    async def test_an_index_that_is_none_is_refused(self, registry: ScriptedRegistry, reply: Reply, message: str):
        registry.behaviours[f"/v2/a/b/referrers/{ONE}"] = Reply(404)
        registry.behaviours[f"/v2/a/b/manifests/{tag_of(ONE)}"] = reply
        with pytest.raises(ResponseInvalid, match=message):
            await referrers(f"{registry.host}/a/b@{ONE}")

    async def test_an_image_is_no_index_of_referrers(self, registry: ScriptedRegistry):
        registry.publish("a/b", "1", [b"x"])
        registry.behaviours[f"/v2/a/b/referrers/{ONE}"] = registry.behaviours["/v2/a/b/manifests/1"]
        with pytest.raises(ResponseInvalid, match="no index, but application/vnd"):
            await referrers(f"{registry.host}/a/b@{ONE}")

    async def test_what_else_is_refused_is_told(self, registry: ScriptedRegistry):
        registry.behaviours[f"/v2/a/b/referrers/{ONE}"] = Reply(403)
        with pytest.raises(Denied):
            await referrers(f"{registry.host}/a/b@{ONE}")

    async def test_a_registry_that_does_not_say_the_digest_is_asked_for_the_manifest(self, registry: ScriptedRegistry):
        digest = registry.publish("a/b", "1", [b"x"]).digest
        whole = registry.behaviours["/v2/a/b/manifests/1"]
        registry.behaviours["/v2/a/b/manifests/1"] = Reply(200, whole.body, {"Content-Type": MANIFEST})
        registry.behaviours[f"/v2/a/b/referrers/{digest}"] = Reply(200, self.index())
        assert await referrers(f"{registry.host}/a/b:1") == []

    async def test_an_entry_is_added_once_and_what_else_the_index_tells_stays(self, registry: ScriptedRegistry):
        path = f"/v2/a/b/manifests/{tag_of(ONE)}"
        stored = [self.index(self.entry(b"1", "x/sbom")).replace(b"{", b'{"annotations":{"k":"v"},', 1)]

        def answer(request):
            if request.method == "PUT":
                stored.append(request.body)
                return Reply(201)
            return Reply(200, stored[-1])

        registry.behaviours[path] = answer
        added = Descriptor(MANIFEST, Digest.of(b"2"), 1, artifact_type="x/sig", annotations={"n": "m"})
        async with Session() as session:
            api = await session.remote(Reference.parse(f"{registry.host}/a/b"), "push").pushing()
            for _ in range(2):
                await enter(api, ONE, added)
        assert len(stored) == 2
        members = json.loads(stored[-1])
        assert members["annotations"] == {"k": "v"}
        assert members["manifests"] == [self.entry(b"1", "x/sbom"), added.to_json()]

    def test_the_tag_of_a_long_digest_is_cut(self):
        digest = Digest.of(b"x", "sha512")
        assert tag_of(digest) == Tag(f"sha512-{digest.hex[:64]}")


@pytest.mark.peer("skopeo")
def test_the_commands_print_what_there_is(registry_server: Callable[..., RegistryProcess], tmp_path: Path):
    host = registry_server().host
    layout = tmp_path / "layout"
    layout.mkdir()
    (layout / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    empty = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": []}).encode()
    (layout / "blobs" / "sha256").mkdir(parents=True)
    (layout / "blobs" / "sha256" / Digest.of(empty).hex).write_bytes(empty)
    entry = {"mediaType": INDEX, "digest": str(Digest.of(empty)), "size": len(empty)}
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    assert pullclient("push", "--quiet", str(layout), f"{host}/a/b:1") == str(Digest.of(empty))
    assert pullclient("copy", f"{host}/a/b:1", f"{host}/c:2", "--all-platforms").endswith("0 B sent")
    last = json.loads(pullclient("copy", f"{host}/a/b:1", f"{host}/c:3", "--all-platforms", "--json").splitlines()[-1])
    assert (last["event"], last["reference"]) == ("pushed", f"{host}/c:3")
    assert pullclient("tags", f"{host}/c").split() == ["2", "3"]
    assert json.loads(pullclient("tags", "--json", f"{host}/c")) == ["2", "3"]
    assert pullclient("catalog", host).split() == ["a/b", "c"]
    assert json.loads(run("skopeo", "list-tags", "--tls-verify=false", f"docker://{host}/c"))["Tags"] == ["2", "3"]
    assert pullclient("delete", f"{host}/c:3") == f"deleted {host}/c:3"
    assert json.loads(pullclient("referrers", "--json", f"{host}/c:2")) == []
    assert pullclient("referrers", f"{host}/c:2") == ""
    file = tmp_path / "images.lock"
    assert pullclient("lock", str(file), f"{host}/c:2").startswith(f"{host}/c:2@{Digest.of(empty)}  new\n")
    assert pullclient("lock", str(file)).endswith("1 image asked for, 1 unchanged")
    assert json.loads(pullclient("lock", "--json", str(file)))[0]["before"] == str(Digest.of(empty))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("tags", "localhost:1/a:1"), "'localhost:1/a:1' names an image: expected its repository, localhost:1/a"),
        (("delete", "localhost:1/a"), "names neither a tag nor a digest: say which, localhost:1/a:TAG or localh"),
        (("catalog", "a/b"), "'a/b' is no registry"),
        (("push", "x", "UPPER"), "invalid repository name 'UPPER'"),
        (("push", "x", "--platform", "linux/arm64", "--all-platforms"), "exclude each other"),
        (("copy", "x", "y", "--quiet", "--json"), "exclude each other"),
    ],
)
def test_what_is_wrong_on_the_command_line_is_said(words: tuple[str, ...], message: str):
    with pytest.raises(RuntimeError, match=r"ended with 2\n") as raised:
        pullclient(*words)
    assert message in " ".join(str(raised.value).split())
