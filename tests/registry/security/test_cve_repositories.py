"""Attacks on other registries, by CVE, tried here: who gets at, or rid of, what he may not, or takes all memory."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from registry.auth import watched
from registry.config import Settings
from storage import listings, smallfiles
from storage.engine import Engine
from storage.files import FilesEngine
from storage.memory import MemoryEngine
from tests.support.api import Answer, Api, image, serving
from tests.support.callers import basic, htpasswd, settings
from tests.support.images import MANIFEST, sha256
from tests.support.stores import Builder

ALICE, BOB, OLGA = basic("alice", "1"), basic("bob", "2"), basic("olga", "3")
NOBODY: dict[str, str] = {}
EVERYTHING = ["pull", "push", "delete", "admin"]
RULES: Any = {
    "rules": [
        {"who": "user:olga", "allow": EVERYTHING},
        {"who": "anyone", "allow": "pull", "repositories": "public/*"},
        {"who": "user:bob", "allow": ["pull", "push"], "repositories": "mine"},
        {"who": "user:alice", "allow": "pull", "repositories": "secret/*"},
    ]
}
SHARED, SECRET = b"in public/app", b"in secret/app"


@pytest.fixture
async def filled() -> Engine:
    engine = MemoryEngine()
    async with serving(engine) as api:
        await api.push_image("public/app", "v1", SHARED)
        await api.push_image("secret/app", "v1", SECRET)
        await api.push_image("secret/app", "latest", SECRET)
        await api.push_image("mine", "v1", b"mine")
    return engine


@pytest.fixture
def passwords(tmp_path: Path) -> Path:
    return htpasswd(tmp_path / "htpasswd", alice="1", bob="2", olga="3")


async def status(api: Api, method: str, target: str, headers: dict[str, str] = NOBODY) -> int:
    return (await api.ask(method, target, headers=headers)).status


# CVE-2024-39897: a blob of one repository was mounted into another by who may not read the first (zot).


@pytest.mark.parametrize("source", ["&from=secret/app", "&from=secret%2Fapp", "", "&from="])
async def test_cve_2024_39897_a_blob_that_one_may_not_read_is_mounted_from_nowhere(
    filled: Engine, passwords: Path, source: str
) -> None:
    wanted, target = sha256(SECRET), f"/v2/mine/blobs/{sha256(SECRET)}"
    async with serving(filled, settings(passwords, RULES)) as api:
        answer = await api.ask("POST", f"/v2/mine/blobs/uploads/?mount={wanted}{source}", headers=BOB)
        assert answer.status == (400 if source == "&from=" else 202)
        assert await status(api, "GET", target, BOB) == await status(api, "HEAD", target, BOB) == 404
        # And not by a manifest that names it either.
        bytes_ = json.dumps(image(sha256(b"{}"), {wanted: len(SECRET)})).encode()
        put = await api.ask("PUT", "/v2/mine/manifests/stolen", bytes_, BOB | {"content-type": MANIFEST})
        assert (put.status, put.code) == (404, "MANIFEST_BLOB_UNKNOWN")


@pytest.mark.parametrize("source", ["&from=public/app", ""])
async def test_cve_2024_39897_what_one_may_read_is_mounted(filled: Engine, passwords: Path, source: str) -> None:
    async with serving(filled, settings(passwords, RULES)) as api:
        answer = await api.ask("POST", f"/v2/mine/blobs/uploads/?mount={sha256(SHARED)}{source}", headers=BOB)
        assert answer.status == 201
        assert (await api.ask("GET", answer.headers["location"], headers=BOB)).body == SHARED


@pytest.mark.parametrize("source", ["&from=secret/app", ""])
async def test_cve_2024_39897_without_rules_whoever_is_known_may_mount_and_nobody_else(
    filled: Engine, passwords: Path, source: str
) -> None:
    target = f"/v2/mine/blobs/uploads/?mount={sha256(SECRET)}{source}"
    async with serving(filled, settings(passwords)) as api:
        assert await status(api, "POST", target) == 401
        assert await status(api, "POST", target, basic("bob", "1")) == 401
        assert await status(api, "POST", target, BOB) == 201


# CVE-2026-41888: DELETE of a tag went through although deletes were disabled (Distribution).


@pytest.mark.parametrize("credentials", [None, OLGA], ids=["open", "by an operator"])
@pytest.mark.parametrize(
    "target",
    [
        "/v2/mine/manifests/v1",
        "/v2/mine/manifests/{manifest}",
        f"/v2/mine/blobs/{sha256(b'mine')}",
        "/_layerhouse/v1/repositories/mine",
        "/_layerhouse/v1/repositories/public/app",
    ],
)
@pytest.mark.parametrize(
    "storage", [{"delete": {"enabled": False}}, {}, {"maintenance": {"readonly": {"enabled": True}}}]
)
async def test_cve_2026_41888_nothing_is_deleted_where_deletes_are_off(
    filled: Engine, passwords: Path, credentials: dict[str, str] | None, target: str, storage: dict[str, Any]
) -> None:
    given = (
        settings(passwords, RULES, storage=storage) if credentials else Settings.model_validate({"storage": storage})
    )
    async with serving(filled, given) as api:
        tag = await api.ask("GET", "/v2/mine/manifests/v1", headers=credentials)
        target = target.format(manifest=tag.headers["docker-content-digest"])
        refused = await api.ask("DELETE", target, headers=credentials)
        assert (refused.status, refused.code) == (405, "UNSUPPORTED")
        for name in ("x-http-method-override", "x-http-method", "x-method-override"):
            await api.ask("POST", target, headers={**(credentials or {}), name: "DELETE"})
            await api.ask("GET", f"{target}?_method=DELETE", headers={**(credentials or {}), name: "DELETE"})
        assert (await api.ask("GET", "/v2/mine/manifests/v1", headers=credentials)).body == tag.body
        assert await status(api, "GET", f"/v2/mine/blobs/{sha256(b'mine')}", credentials or NOBODY) == 200
        assert await status(api, "GET", "/v2/public/app/tags/list", credentials or NOBODY) == 200


# CVE-2023-2253: memory for as many names as `n` asked for was taken (Distribution).


@pytest.mark.parametrize("n", ["6", "2147483647", "9223372036854775808", "9" * 4000, "00000000000000000000000000099"])
@pytest.mark.parametrize("path", ["/v2/_catalog", "/_layerhouse/v1/repositories", "/v2/r0/tags/list"])
async def test_cve_2023_2253_a_page_is_never_longer_than_the_operator_lets_it(path: str, n: str) -> None:
    builder = Builder.in_memory()
    for number in range(8):
        await builder.image(f"r{number}", b"x", tag="v1")
        await builder.tag("r0", f"t{number}", await builder.content(b"{}"))
    limits = {"catalog": {"maxentries": 5}, "tags": {"maxtags": 5}}
    async with serving(builder.engine, Settings.model_validate(limits)) as api:
        await api.get(path)
        tracemalloc.start()
        try:
            answer = await api.get(f"{path}?n={n}")
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert answer.status == 200
    assert peak < 4 << 20
    if not path.startswith("/_layerhouse"):
        (names,) = [each for each in answer.json.values() if isinstance(each, list)]
        assert len(names) == 5
        assert "n=5" in answer.headers["link"]


# CVE-2026-35172: what was deleted could still be had, because another process remembered it (Distribution).


@pytest.fixture
async def two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Api, Api]]:
    """Two workers that remember all that they ever remember, at once and not only after some seconds."""
    monkeypatch.setattr(smallfiles, "_AT_REST", -1.0)
    monkeypatch.setattr(listings, "_WORTHWHILE", 0)
    monkeypatch.setattr(listings, "_SMALL", 0)
    async with AsyncExitStack() as ending:
        engines = [FilesEngine(tmp_path / "root") for _ in range(2)]
        for each in engines:
            each._listings = listings.Listings(at_rest=-1.0)
        first, second = [await ending.enter_async_context(serving(each)) for each in engines]
        yield first, second


LARGE = b"l" * 100_000
REACHED = {
    "manifests/v1": 200,
    "manifests/{manifest}": 200,
    f"blobs/{sha256(b'small')}": 200,
    f"blobs/{sha256(LARGE)}": 200,
    "tags/list": 200,
    "referrers/{manifest}": 200,
}


@pytest.mark.parametrize(
    ("deleted", "gone"),
    [
        ("/v2/image/manifests/v1", {"manifests/v1": 404}),
        ("/v2/image/manifests/{manifest}", {"manifests/v1": 404, "manifests/{manifest}": 404}),
        (f"/v2/image/blobs/{sha256(b'small')}", {f"blobs/{sha256(b'small')}": 404}),
        (f"/v2/image/blobs/{sha256(LARGE)}", {f"blobs/{sha256(LARGE)}": 404}),
        ("/_layerhouse/v1/repositories/image", dict.fromkeys(REACHED, 404) | {"referrers/{manifest}": 200}),
    ],
)
async def test_cve_2026_35172_what_one_worker_deleted_no_other_serves(
    two: tuple[Api, Api], deleted: str, gone: dict[str, int]
) -> None:
    one, other = two
    manifest = await one.push_image("image", "v1", b"small", LARGE)
    await one.push_image("image", "sign", b"small", subject={"mediaType": MANIFEST, "digest": manifest, "size": 2})

    async def seen() -> dict[str, list[Answer]]:
        known = {"if-none-match": "*"}
        return {
            each: [
                await other.ask(method, f"/v2/image/{each.format(manifest=manifest)}", headers=headers)
                for method, headers in (
                    ("GET", NOBODY),
                    ("HEAD", NOBODY),
                    ("GET", known),
                    ("GET", {"range": "bytes=0-1"}),
                )
            ]
            for each in REACHED
        }

    for _ in range(3):  # until every cache of the other worker is warm
        before = await seen()
    assert {each: answers[0].status for each, answers in before.items()} == REACHED
    assert (await one.ask("DELETE", deleted.format(manifest=manifest))).status in (202, 204)
    after = await seen()
    for each, expected in (REACHED | gone).items():
        answers = after[each]
        if expected == 404:
            assert [answer.status for answer in answers] == [404] * 4, each
        else:
            assert answers[0].status == expected, each
    if deleted.startswith("/_layerhouse"):
        assert after["referrers/{manifest}"][0].json["manifests"] == []
        assert (await other.get("/v2/_catalog")).json["repositories"] == []
    for digest in (sha256(b"small"), sha256(LARGE)):
        mounted = await other.ask("POST", f"/v2/thief/blobs/uploads/?mount={digest}&from=image")
        assert mounted.status == (202 if f"blobs/{digest}" in gone else 201)


async def test_cve_2026_35172_whoever_lost_his_password_or_his_right_is_out_at_once_in_every_worker(
    tmp_path: Path, passwords: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watched, "_LOOK_SECONDS", 0.0)
    rules = tmp_path / "rules.yml"
    rules.write_text("rules: [{who: 'user:alice', allow: pull}, {who: 'user:bob', allow: pull}]")
    async with AsyncExitStack() as ending:
        given = settings(passwords, {"file": str(rules)})
        workers = [await ending.enter_async_context(serving(FilesEngine(tmp_path / "root"), given)) for _ in range(2)]
        await Builder.on_files(tmp_path / "root").image("app", b"x", tag="v1")
        for each in workers * 2:
            assert [await status(each, "GET", "/v2/app/manifests/v1", who) for who in (ALICE, BOB)] == [200, 200]
        htpasswd(passwords, bob="2")
        for each in workers:
            assert [await status(each, "GET", "/v2/app/manifests/v1", who) for who in (ALICE, BOB)] == [401, 200]
        rules.write_text("rules: [{who: 'user:alice', allow: pull}]")
        for each in workers:
            assert await status(each, "GET", "/v2/app/manifests/v1", BOB) == 404
