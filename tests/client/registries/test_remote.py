"""A repository at a registry: what is verified, and how each failure reads."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import NoReturn

import pytest

from client.hosts.endpoint import Endpoint
from client.registries.api import Api, within
from client.registries.remote import MAX_MANIFEST, Remote
from client.registries.retrying import Patience
from client.session import Session
from client.wire.exchange import Request
from ocispec.descriptor import Descriptor
from ocispec.digest import Digest
from ocispec.errors import (
    BlobUnknown,
    ContentTruncated,
    Denied,
    DigestMismatch,
    HostUnreachable,
    LayerhouseError,
    ManifestInvalid,
    ManifestUnknown,
    NameUnknown,
    ResponseInvalid,
    TooManyRequests,
    Unauthorized,
    Unavailable,
    UnknownError,
)
from ocispec.reference import Reference, Tag
from tests.client.scripted import MANIFEST, Reply, ScriptedRegistry, Seen, scripted

Open = Callable[[str], Remote]
LATEST = Tag("latest")
PATH = "/v2/a/b/manifests/latest"


@pytest.fixture
async def remote(registry: ScriptedRegistry) -> AsyncIterator[Remote]:
    async with Session(patience=Patience(first=0.001)) as session:
        yield session.remote(Reference.parse(f"{registry.host}/a/b"))


async def test_a_manifest_comes_with_its_digest_and_raw_bytes(registry: ScriptedRegistry, remote: Remote):
    image = registry.publish("a/b", "latest", [b"layer"])
    digest, manifest = await remote.manifest(LATEST)
    assert (str(digest), len(manifest.layers)) == (image.digest, 1)
    assert digest.matches(manifest.raw)
    assert registry.seen[0].headers["accept"].startswith("application/vnd.oci.image.index.v1+json, ")
    assert await remote.manifest(digest) == (digest, manifest)
    assert await remote.head(LATEST) == digest


async def test_a_registry_that_does_not_state_a_digest_is_believed_its_bytes(
    registry: ScriptedRegistry, remote: Remote
):
    image = registry.publish("a/b", "latest", [b"layer"])
    told = registry.behaviours[PATH]
    assert isinstance(told, Reply)
    registry.behaviours[PATH] = Reply(200, told.body, {"Content-Type": "text/plain; charset=utf-8"})
    digest, manifest = await remote.manifest(LATEST)
    assert (str(digest), manifest.media_type) == (image.digest, MANIFEST)
    assert await remote.head(LATEST) is None


async def test_a_manifest_of_another_digest_is_refused(registry: ScriptedRegistry, remote: Remote):
    wanted = Digest.of(b"wanted")
    wrong = Reply(200, b"{}", {"Content-Type": MANIFEST, "Docker-Content-Digest": str(wanted)})
    registry.behaviours[PATH] = registry.behaviours[f"/v2/a/b/manifests/{wanted}"] = wrong
    for target in (LATEST, wanted):
        with pytest.raises(DigestMismatch, match=f"^{registry.host}/a/b:latest: .*expected {wanted}"):
            await remote.manifest(target)


@pytest.mark.parametrize(
    ("reply", "kind", "text"),
    [
        (Reply(404), ManifestUnknown, "manifest unknown to registry (status 404)"),
        (Reply(404, b"<html>"), ManifestUnknown, "manifest unknown to registry (status 404)"),
        (Reply(404, b'{"errors":[{"code":"NAME_UNKNOWN","message":"no\\ncat"}]}'), NameUnknown, "no cat (status 404)"),
        (Reply(403, b'{"errors":[{"code":"DENIED","message":"go away"}]}'), Denied, "go away (status 403)"),
        (Reply(429, b"[]"), TooManyRequests, "too many requests (status 429)"),
        (Reply(500, b"x" * 70_000), UnknownError, "unknown error (status 500)"),
        (Reply(404, b"x", promised=9), ManifestUnknown, "manifest unknown to registry (status 404)"),
        (Reply(200, b"x", {"Docker-Content-Digest": "sha256:x"}), ResponseInvalid, "Docker-Content-Digest: inv"),
        (Reply(200, b"x" * (MAX_MANIFEST + 1)), ResponseInvalid, f"the manifest is longer than {MAX_MANIFEST} bytes"),
        (Reply(200, b"{"), ManifestInvalid, "manifest invalid: not valid JSON"),
        (Reply(200, b'{"schemaVersion":1}'), ManifestInvalid, "schema 1 is not supported"),
        (Reply(200, b"{}", promised=9), ContentTruncated, "ended after 2 of 9 bytes"),
        (Reply(401), Unauthorized, "authentication required (status 401)"),
    ],
)  # fmt: skip
async def test_each_failure_is_one_line_with_the_image_in_front(
    registry: ScriptedRegistry, remote: Remote, reply: Reply, kind: type[LayerhouseError], text: str
):
    registry.behaviours[PATH] = reply
    with pytest.raises(kind) as raised:
        await remote.manifest(LATEST)
    assert raised.value.message.startswith(f"{registry.host}/a/b:latest: ")
    assert text in raised.value.message
    assert raised.value.message.isprintable()


async def test_a_registry_that_asks_to_wait_for_too_long_is_given_up_at_once(registry: ScriptedRegistry):
    registry.behaviours[PATH] = Reply(429, headers={"Retry-After": "42"})
    async with Session(patience=Patience(first=0.001, longest=41)) as session:
        with pytest.raises(TooManyRequests, match=f"; {registry.host} asks to wait 42 s, 41 s are granted$") as raised:
            await session.remote(Reference.parse(f"{registry.host}/a/b")).manifest(LATEST)
    assert raised.value.headers["retry-after"] == "42"
    assert len(registry.seen) == 1


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
async def test_what_may_pass_is_asked_for_again(registry: ScriptedRegistry, remote: Remote, status: int):
    registry.publish("a/b", "latest", [])
    known = registry.behaviours[PATH]
    registry.behaviours[PATH] = lambda _: known if len(registry.seen) % 3 == 0 else Reply(status)
    digest, _ = await remote.manifest(LATEST)
    assert await remote.head(LATEST) == digest
    assert [each.method for each in registry.seen] == ["GET"] * 3 + ["HEAD"] * 3


async def test_a_host_that_stays_away_is_asked_five_times(registry: ScriptedRegistry, remote: Remote):
    registry.behaviours[PATH] = Reply(503)
    with pytest.raises(Unavailable, match=r"latest: service unavailable \(status 503\)$"):
        await remote.manifest(LATEST)
    assert len(registry.seen) == 5


async def test_a_blob_streams(registry: ScriptedRegistry, remote: Remote):
    digest = Digest.parse(str(registry.blob("a/b", b"x" * 2_000_000)["digest"]))
    async with remote.blob(digest) as pieces:
        assert b"".join([piece async for piece in pieces]) == b"x" * 2_000_000


async def test_a_blob_that_breaks_off_says_where(registry: ScriptedRegistry, remote: Remote):
    digest = Digest.of(b"abcdef")
    registry.behaviours[f"/v2/a/b/blobs/{digest}"] = Reply(200, b"abc", promised=6)
    with pytest.raises(ContentTruncated) as raised:
        await remote.small_blob(Descriptor("x/y", digest, 6))
    assert raised.value.message.startswith(f"{registry.host}/a/b:latest: {digest}: ended after 3 of 6 bytes: ")
    assert registry.host in raised.value.message.partition("bytes")[2]


async def test_an_unknown_blob_is_named(registry: ScriptedRegistry, remote: Remote):
    digest = Digest.of(b"abcdef")
    registry.behaviours[f"/v2/a/b/blobs/{digest}"] = Reply(404)
    with pytest.raises(BlobUnknown, match=f"latest: {digest}: blob unknown to registry"):
        await remote.small_blob(Descriptor("x/y", digest, 6))


@pytest.mark.parametrize("content", [b"other", b"x" * (MAX_MANIFEST + 1)])
async def test_a_small_blob_is_verified_and_bounded(registry: ScriptedRegistry, remote: Remote, content: bytes):
    digest = Digest.of(b"abcdef")
    registry.behaviours[f"/v2/a/b/blobs/{digest}"] = Reply(200, content)
    with pytest.raises(DigestMismatch, match="does not hash to"):
        await remote.small_blob(Descriptor("x/y", digest, 6))


def with_tokens(registry: ScriptedRegistry, path: str, valid: list[str]) -> None:
    """Guards a path by Docker's token flow; `valid` grows by each token that was given."""
    guarded = registry.behaviours[path]
    challenge = f'Bearer realm="http://{registry.host}/token",service="s",scope="repository:a/b:pull"'

    def give(request: Seen) -> Reply:
        assert request.query == {"service": "s", "scope": "repository:a/b:pull"}
        valid.append(f"t{len(valid)}")
        return Reply(200, json.dumps({"token": valid[-1]}).encode())

    def answer(request: Seen) -> Reply:
        if valid and request.headers.get("authorization") == f"Bearer {valid[-1]}":
            assert isinstance(guarded, Reply)
            return guarded
        return Reply(401, headers={"WWW-Authenticate": challenge})

    registry.behaviours |= {path: answer, "/token": give}


async def test_a_token_is_fetched_once_and_again_when_it_is_refused(registry: ScriptedRegistry, remote: Remote):
    registry.publish("a/b", "latest", [])
    valid: list[str] = []
    with_tokens(registry, PATH, valid)
    await remote.manifest(LATEST)
    await remote.manifest(LATEST)
    assert valid == ["t0"]
    valid.append("another, so that t0 has expired")
    await remote.manifest(LATEST)
    assert len(valid) == 3
    assert registry.paths().count("/token") == 2


async def test_a_registry_that_refuses_its_own_token_is_asked_no_third_time(registry: ScriptedRegistry, remote: Remote):
    challenge = f'Bearer realm="http://{registry.host}/token"'
    denied = b'{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}'
    registry.behaviours[PATH] = Reply(401, denied, {"WWW-Authenticate": challenge})
    registry.behaviours["/token"] = Reply(200, b'{"token":"t"}')
    with pytest.raises(
        Unauthorized,
        match=r"wants a login for repository:a/b:pull, and there are no credentials for it: pullclient login",
    ):
        await remote.manifest(LATEST)
    assert registry.paths() == [PATH, "/token", PATH]


@pytest.mark.parametrize(
    ("name", "plain", "address"),
    [
        ("node", False, "https://registry-1.docker.io/v2/library/node/manifests/latest"),
        ("localhost:5000/a", False, "http://localhost:5000/v2/a/manifests/latest"),
        ("127.8.0.1/a", False, "http://127.8.0.1/v2/a/manifests/latest"),
        ("[::1]:5000/a", False, "http://[::1]:5000/v2/a/manifests/latest"),
        ("127.0.0.1.example/a", False, "https://127.0.0.1.example/v2/a/manifests/latest"),
        ("example.com/a", True, "http://example.com/v2/a/manifests/latest"),
    ],
)
async def test_only_this_machine_is_spoken_to_in_plain_http(name: str, plain: bool, address: str):
    asked = []

    def send(request: object) -> object:
        asked.append(request.url)
        raise ResponseInvalid("enough")

    async with Session(plain_http=plain) as session:
        session.send = send
        with pytest.raises(ResponseInvalid):
            await session.remote(Reference.parse(name)).manifest(LATEST)
    assert asked == [address]


async def test_docker_hubs_real_host_is_named_where_it_fails():
    def send(_: Request) -> NoReturn:
        raise HostUnreachable("no")

    async with Session(patience=Patience(attempts=1)) as session:
        session.send = send
        with pytest.raises(HostUnreachable, match=r"^docker\.io/library/node:latest at registry-1\.docker\.io: no$"):
            await session.remote(Reference.parse("node")).manifest(LATEST)


def test_a_place_is_named_once():
    def fail() -> None:
        with within("here"), within("here"):
            raise ResponseInvalid("it broke")

    with pytest.raises(ResponseInvalid, match=r"^here: it broke$"):
        fail()


@asynccontextmanager
async def beside(registry: ScriptedRegistry) -> AsyncIterator[tuple[ScriptedRegistry, Remote, list[str]]]:
    """Gives a mirror, the repository as it is reached through it, and what is warned of."""
    warned: list[str] = []
    patience = Patience(first=0.001)
    async with scripted() as mirror, Session(patience=patience, mirrors=(f"http://{mirror.host}",)) as session:
        session.report = lambda event: warned.append(event.message)
        yield mirror, session.remote(Reference.parse(f"{registry.host}/a/b")), warned


async def test_a_mirror_is_asked_first_and_alone_where_it_answers(registry: ScriptedRegistry):
    async with beside(registry) as (mirror, remote, warned):
        image = mirror.publish("a/b", "latest", [b"layer"])
        digest, _ = await remote.manifest(LATEST)
        assert str(digest) == image.digest
        assert (registry.seen, warned) == ([], [])


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        (Reply(404), "manifest unknown to registry (status 404)"),
        (Reply(500), "unknown error (status 500)"),
        (Reply(429, headers={"Retry-After": "999"}), "too many requests (status 429)"),
        (Reply(200, b"{}", {"Docker-Content-Digest": str(Digest.of(b"x"))}), f"expected {Digest.of(b'x')}, its"),
        (Reply(200, b"{}", promised=9), "ended after 2 of 9 bytes"),
        (Reply(401), "authentication required (status 401)"),
    ],
)
async def test_a_mirror_that_fails_in_any_way_is_left_at_once_and_warned_of(
    registry: ScriptedRegistry, reply: Reply, text: str
):
    image = registry.publish("a/b", "latest", [b"layer"])
    async with beside(registry) as (mirror, remote, warned):
        mirror.behaviours[PATH] = reply
        for _ in range(2):
            digest, _ = await remote.manifest(LATEST)
            assert str(digest) == image.digest
        assert len(mirror.seen) == 1
        assert len(warned) == 1
        assert warned[0].startswith(f"{registry.host}/a/b:latest at {mirror.host}: ")
        assert text in warned[0]
        assert warned[0].endswith("; going on with the next")


async def test_a_mirror_that_is_down_is_not_asked_again_for_anything(registry: ScriptedRegistry):
    registry.publish("a/b", "latest", [b"layer"])
    async with scripted() as gone:
        pass
    async with Session(patience=Patience(first=0.001), mirrors=(f"http://{gone.host}",)) as session:
        warned: list[str] = []
        session.report = lambda event: warned.append(event.message)
        remote = session.remote(Reference.parse(f"{registry.host}/a/b"))
        digest, _ = await remote.manifest(LATEST)
        await remote.manifest(digest)
        assert len(warned) == 1
        assert f"{gone.host} cannot be reached: connection refused" in warned[0]


async def test_where_all_fail_the_registrys_own_error_is_the_one(registry: ScriptedRegistry):
    async with beside(registry) as (_, remote, warned):
        with pytest.raises(ManifestUnknown, match=f"^{registry.host}/a/b:latest: manifest unknown"):
            await remote.manifest(LATEST)
        assert len(warned) == 1


async def test_of_two_ways_to_a_registry_the_first_that_leads_there_has_the_last_word(registry: ScriptedRegistry):
    async with scripted() as gone:
        pass
    reference = Reference.parse(f"{registry.host}/a/b")
    async with Session(patience=Patience(first=0.001)) as session:
        warned: list[str] = []

        def remote(*hosts: str) -> Remote:
            ways = [
                session._api(Endpoint(f"http://{each}/v2", each, reference.repository, registry.host)) for each in hosts
            ]

            async def connect() -> list[Api]:
                return ways

            return Remote(reference, connect, session.patience, warned.append)

        with pytest.raises(ManifestUnknown):
            await remote(registry.host, gone.host).manifest(LATEST)
        assert warned == []
        with pytest.raises(ManifestUnknown):
            await remote(gone.host, registry.host).manifest(LATEST)
        assert len(warned) == 1
