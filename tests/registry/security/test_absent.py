"""What one may not read is answered as if it were not there: in every byte, and in what the registry does for it.

Time is not measured, it is counted: two requests for which the engine is asked the same take as long.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from storage.memory import MemoryEngine
from tests.registry.auth.test_matrix import routes
from tests.support.api import Api, serving
from tests.support.callers import basic, htpasswd, settings
from tests.support.images import MANIFEST, sha256
from tests.support.recording import RecordingEngine

BOB = basic("bob", "2")
RULES: Any = {
    "rules": [
        {"who": "user:bob", "allow": ["pull", "push", "delete"], "repositories": "mine/**"},
        {"who": "anyone", "allow": "pull", "repositories": "public/*"},
    ]
}
WHO = {"anonymous": {}, "bob": BOB}
HERE, NOT_HERE = "secret/app", "absent/app"  # names of one length: it is told in every answer
SECRET, PUBLIC = b"of secret/app alone", b"of public/app"
UPLOAD = "00000000-0000-4000-8000-000000000000"
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f-]{22}")
Told = tuple[int, tuple[tuple[str, str], ...], bytes, list[tuple[str, str]]]


class Observed:
    """A registry that is asked as `who`."""

    def __init__(self, api: Api, engine: RecordingEngine) -> None:
        self.api, self.engine = api, engine

    async def told(self, method: str, target: str, headers: dict[str, str], body: bytes = b"", name: str = "") -> Told:
        """What is answered, and what was done for it, with what differs from name to name left out."""
        with self.engine.during() as calls:
            answer = await self.api.ask(method, target, body, headers)
        fields = tuple((key, plain(value, name)) for key, value in answer.fields)
        done = [(kind, plain(path, name)) for kind, path in calls]
        return answer.status, fields, plain(answer.body.decode("latin-1"), name).encode("latin-1"), done


def plain(text: str, name: str) -> str:
    return _UUID.sub("UUID", text.replace(name, "NAME") if name else text)


@pytest.fixture
async def two(tmp_path: Path) -> AsyncIterator[tuple[Observed, Observed]]:
    """The same registry with something secret in it, and without."""
    passwords = htpasswd(tmp_path / "htpasswd", bob="2")
    async with AsyncExitStack() as ending:
        found = []
        for is_there in (True, False):
            engine = RecordingEngine(MemoryEngine())
            async with serving(engine) as api:
                await api.push_image("public/app", "v1", PUBLIC)
                await api.push_image("mine/app", "v1", b"mine")
                if is_there:
                    digest = await api.push_image(HERE, "v1", SECRET)
                    subject = {"mediaType": MANIFEST, "digest": digest, "size": 1}
                    await api.push_image(HERE, "signed", SECRET, subject=subject)
            found.append(
                Observed(await ending.enter_async_context(serving(engine, settings(passwords, RULES))), engine)
            )
        yield found[0], found[1]


REFERENCES = ["v1", "signed", "none", ".none", "sha256:x", sha256(SECRET), sha256(b"none"), UPLOAD]
FIELDS: list[dict[str, str]] = [{}, {"if-none-match": "*"}, {"range": "bytes=0-1"}, {"accept": "text/html"}]
PLACES = sorted({(method, path) for method, path in routes() if "NAME" in path})


@pytest.mark.parametrize("who", WHO)
@pytest.mark.parametrize(("method", "path"), PLACES, ids=lambda text: text)
async def test_what_is_there_is_told_from_what_is_not_by_nothing(
    two: tuple[Observed, Observed], method: str, path: str, who: str
) -> None:
    here, _ = two
    for reference in REFERENCES if "REFERENCE" in path else [""]:
        for fields in FIELDS:
            for query in ("", "?n=1&last=a&digest=x&tag=v1&artifactType=a"):
                told = [
                    await here.told(method, f"{path}{query}".replace("REFERENCE", reference).replace("NAME", name),
                                    WHO[who] | fields, b"{}" if method == "PUT" else b"", name)
                    for name in (HERE, NOT_HERE)
                ]  # fmt: skip
                assert told[0] == told[1]
                # Of referrers, nobody has none: the specification wants an empty list.
                assert told[0][0] in {400, 401, 403, 404, 405, 416} | ({200} if "referrers" in path else set())
                assert told[0][3] == [], "nothing is even looked at"


LISTS = [
    "/v2/_catalog",
    "/v2/_catalog?n=1",
    "/v2/_catalog?n=2&last=secret",
    "/v2/_catalog?last=secret/app",
    "/v2/_catalog?last=public/app",
    "/_layerhouse/v1/repositories",
    "/_layerhouse/v1/repositories?q=secret",
    "/_layerhouse/v1/repositories?n=1&last=public/app",
]


@pytest.mark.parametrize("who", ["anonymous", "bob"])
@pytest.mark.parametrize("target", LISTS)
async def test_no_list_tells_of_it(two: tuple[Observed, Observed], who: str, target: str) -> None:
    """How long a list takes may tell: who lists little looks through all names for it (`docs/security.md`)."""
    there, not_there = [(await each.told("GET", target, WHO[who]))[:3] for each in two]
    assert there == not_there


@pytest.mark.parametrize("digest", [sha256(SECRET), sha256(b"none")])
@pytest.mark.parametrize("source", [f"&from={HERE}", f"&from={NOT_HERE}", "&from=mine/none"])
async def test_a_mount_tells_nothing_of_its_source(two: tuple[Observed, Observed], digest: str, source: str) -> None:
    target = f"/v2/mine/new/blobs/uploads/?mount={digest}{source}"
    told = [await each.told("POST", target, BOB, name=digest) for each in two]
    assert told[0] == told[1]
    assert told[0][0] == 202
    assert not [path for _, path in told[0][3] if "secret" in path or "/blobs/" in path]


async def test_a_mount_without_a_source_looks_for_no_blob_where_one_may_not_read(
    two: tuple[Observed, Observed],
) -> None:
    here, _ = two
    await here.api.ask("POST", "/v2/mine/new/blobs/uploads/", headers=BOB)
    told = [
        await here.told("POST", f"/v2/mine/new/blobs/uploads/?mount={digest}", BOB, name=digest.partition(":")[2])
        for digest in (sha256(SECRET), sha256(b"none"))
    ]
    assert told[0] == told[1]
    assert told[0][0] == 202
    mounted = await here.told("POST", f"/v2/mine/new/blobs/uploads/?mount={sha256(PUBLIC)}", BOB)
    assert mounted[0] == 201


async def test_a_manifest_tells_nothing_of_blobs_elsewhere(two: tuple[Observed, Observed]) -> None:
    for body in (b'{"config": "CONFIG"}', b'{"manifests": []}'):
        raw = body.replace(b"CONFIG", sha256(SECRET).encode())
        told = [
            await each.told("PUT", "/v2/mine/app/manifests/v2", BOB | {"content-type": MANIFEST}, raw) for each in two
        ]
        assert told[0] == told[1]


async def test_who_logs_in_wrongly_is_told_nothing_either(two: tuple[Observed, Observed]) -> None:
    for name in (HERE, NOT_HERE):
        wrong = [await each.told("GET", f"/v2/{name}/manifests/v1", basic("bob", "1"), name=name) for each in two]
        assert wrong[0] == wrong[1]
        assert wrong[0][0] == 401


async def test_who_may_read_is_told_and_this_test_would_see_it(two: tuple[Observed, Observed]) -> None:
    here, _ = two
    assert (await here.told("GET", "/v2/mine/app/manifests/v1", BOB))[0] == 200
    with here.engine.during() as calls:
        await here.api.ask("GET", "/v2/mine/app/manifests/v1", headers=BOB)
        assert [path for _, path in calls if "mine/app/_manifests" in path]
        assert here.engine.strays() == []
