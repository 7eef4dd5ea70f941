"""What one may not read of a mirror is not to be had by the name of another repository, which anybody may push to.

Upstream's registries take manifests that name blobs which they do not have: foreign layers, for one. Whoever names
there what is somebody else's secret must not get it from the mirror, which has it (as CVE-2024-39897 was).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random
from typing import Any

import pytest

from storage.files import FilesEngine
from tests.client.scripted import CONFIG, LAYER, MANIFEST, Reply, ScriptedRegistry, scripted
from tests.support.api import Api, Broken, serving
from tests.support.callers import basic, htpasswd, settings
from tests.support.images import sha256

SECRET = Random(3).randbytes(400_000)
SMALL = b"a small secret"
FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
ALICE, BOB = basic("alice", "1"), basic("bob", "2")
RULES: Any = {
    "rules": [
        {"who": "user:alice", "allow": "pull"},
        {"who": "user:bob", "allow": "pull", "repositories": "public/**"},
    ]
}


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedRegistry]:
    """Has the secrets in `secret/app`, and in `public/evil` nothing but a manifest that names them."""
    async with scripted() as registry:
        registry.publish("secret/app", "v1", [SECRET, SMALL])
        config = {"mediaType": CONFIG, **registry.blob("public/evil", b"{}")}
        named = [
            {"mediaType": kind, "digest": sha256(each), "size": len(each)}
            for kind, each in ((FOREIGN, SECRET), (LAYER, SMALL))
        ]
        registry.manifest("public/evil", "v1", {"mediaType": MANIFEST, "config": config, "layers": named})
        yield registry


@pytest.fixture
async def mirrors(tmp_path: Path, upstream: ScriptedRegistry) -> AsyncIterator[tuple[Api, Api]]:
    """Two processes of one mirror."""
    passwords = htpasswd(tmp_path / "htpasswd", alice="1", bob="2")
    storage = {"filesystem": {"rootdirectory": tmp_path / "root"}}
    given = settings(passwords, RULES, storage=storage, proxy={"remoteurl": f"http://{upstream.host}"})
    async with AsyncExitStack() as ending:
        first, second = [await ending.enter_async_context(serving(FilesEngine(tmp_path / "root"), given)) for _ in "12"]
        yield first, second


def blob(name: str, data: bytes) -> str:
    return f"/v2/{name}/blobs/{sha256(data)}"


async def steal(api: Api, data: bytes) -> bytes:
    """What bob gets who asks as often as he likes."""
    assert (await api.ask("GET", "/v2/public/evil/manifests/v1", headers=BOB)).status == 200
    got = b""
    for headers in (BOB, BOB | {"range": "bytes=0-99"}, BOB):
        try:
            answer = await api.ask("GET", blob("public/evil", data), headers=headers)
        except Broken as broken:
            got += b"".join(each.get("body", b"") for each in broken.args[0])
        else:
            got += answer.body if answer.status < 300 else b""
    return got


@pytest.mark.parametrize("data", [SECRET, SMALL], ids=["large", "small"])
@pytest.mark.parametrize("other", [0, 1], ids=["the same process", "another process"])
async def test_what_the_mirror_has_for_one_it_does_not_give_to_another(
    mirrors: tuple[Api, Api], data: bytes, other: int
) -> None:
    assert (await mirrors[0].ask("GET", "/v2/secret/app/manifests/v1", headers=ALICE)).status == 200
    assert (await mirrors[0].ask("GET", blob("secret/app", data), headers=ALICE)).body == data
    assert await steal(mirrors[other], data) == b""
    assert (await mirrors[other].ask("GET", blob("secret/app", data), headers=BOB)).status == 404


@pytest.mark.parametrize("other", [0, 1], ids=["the same process", "another process"])
async def test_nor_while_it_comes(mirrors: tuple[Api, Api], upstream: ScriptedRegistry, other: int) -> None:
    going, asked = asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        asked.set()
        await going.wait()

    upstream.behaviours[blob("secret/app", SECRET)] = Reply(200, SECRET, wait=wait)
    await mirrors[0].ask("GET", "/v2/secret/app/manifests/v1", headers=ALICE)
    reading = asyncio.create_task(mirrors[0].ask("GET", blob("secret/app", SECRET), headers=ALICE))
    await asked.wait()
    try:
        async with asyncio.timeout(10):
            assert await steal(mirrors[other], SECRET) == b""
    finally:
        going.set()
        assert (await reading).body == SECRET


async def test_what_upstream_has_in_both_is_given_to_both(mirrors: tuple[Api, Api], upstream: ScriptedRegistry) -> None:
    upstream.publish("public/app", "v1", [SECRET, SMALL])
    for name, who in (("secret/app", ALICE), ("public/app", BOB)):
        assert (await mirrors[0].ask("GET", f"/v2/{name}/manifests/v1", headers=who)).status == 200
        for data in (SECRET, SMALL):
            assert (await mirrors[0].ask("GET", blob(name, data), headers=who)).body == data
    assert len([each for each in upstream.blobs() if each == sha256(SECRET)]) == 1
