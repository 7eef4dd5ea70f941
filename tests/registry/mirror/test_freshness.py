"""What is believed, asked, remembered and served while upstream fails: before an upstream that does as it is told."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocispec.errors import NameUnknown, TooManyRequests, Unavailable
from registry.config import Settings
from registry.mirror.flights import Flights
from registry.mirror.instance import instance
from registry.mirror.remembering import Remembered
from registry.mirror.watching import LONGEST, Limits, Waits
from storage.files import FilesEngine
from tests.client.scripted import Reply, ScriptedRegistry, Seen, scripted
from tests.support.api import Api, serving
from tests.support.images import sha256

NAME = "library/alpine"
LAYER = b"a layer"
TAG = f"/v2/{NAME}/manifests/latest"
TAGS = f"/v2/{NAME}/tags/list"
STALE = '110 - "Response is Stale"'


@pytest.fixture
async def hub() -> AsyncIterator[ScriptedRegistry]:
    async with scripted() as registry:
        registry.publish(NAME, "latest", [LAYER])
        yield registry


@pytest.fixture
async def mirror(tmp_path: Path, hub: ScriptedRegistry) -> AsyncIterator[Callable[..., Any]]:
    """Starts a mirror on the same images each time; members of its upstream may be given."""
    async with AsyncExitStack() as ending:

        async def start(stale: str | None = None, **members: Any) -> Api:
            upstream = {"name": "docker.io", "url": f"http://{hub.host}", "fresh": "0s", **members}
            mirrored = {"upstreams": [upstream], "default": "docker.io", **({"stale": stale} if stale else {})}
            given = {"storage": {"filesystem": {"rootdirectory": tmp_path}}, "layerhouse": {"mirror": mirrored}}
            return await ending.enter_async_context(serving(FilesEngine(tmp_path), Settings.model_validate(given)))

        yield start


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """An upstream that failed is asked again at once, and what it has not too."""
    monkeypatch.setattr("registry.mirror.upstream._FAILING", 0.0)
    monkeypatch.setattr("registry.mirror.repository.ABSENT_SECONDS", 0.0)
    monkeypatch.setattr("registry.mirror.lists._LEAST", 0.0)


async def test_a_fresh_tag_is_believed_and_then_confirmed_by_a_head(mirror: Any, hub: ScriptedRegistry) -> None:
    api = await mirror(fresh="1h")
    for _ in range(3):
        assert (await api.get(TAG)).status == 200
    assert [each.method for each in hub.seen] == ["GET"]
    again = await mirror(fresh="1h")
    for _ in range(3):
        answer = await again.get(TAG)
        assert (answer.status, answer.headers.get("warning")) == (200, None)
    assert [each.method for each in hub.seen] == ["GET", "HEAD"], "after a restart it is asked once"


async def test_a_tag_is_asked_for_again_once_it_is_no_longer_fresh(mirror: Any, hub: ScriptedRegistry) -> None:
    api = await mirror(fresh="50ms")
    await api.get(TAG)
    moved = hub.publish(NAME, "latest", [b"another"])
    while (await api.get(TAG)).headers["docker-content-digest"] != moved.digest:
        await asyncio.sleep(0.005)
    assert hub.paths() == [TAG, TAG]


async def test_a_tag_that_moves_back_fetches_nothing(mirror: Any, hub: ScriptedRegistry) -> None:
    api = await mirror()
    first = hub.behaviours[TAG]
    digest = (await api.get(TAG)).headers["docker-content-digest"]
    hub.publish(NAME, "latest", [b"another"])
    assert (await api.get(TAG)).headers["docker-content-digest"] != digest
    hub.behaviours[TAG] = first
    assert (await api.get(TAG)).headers["docker-content-digest"] == digest
    assert hub.paths() == [TAG, TAG]


async def test_an_upstream_that_states_no_digest_is_asked_for_the_manifest(mirror: Any, hub: ScriptedRegistry) -> None:
    whole = hub.behaviours[TAG]
    assert isinstance(whole, Reply)
    hub.behaviours[TAG] = Reply(200, whole.body, {"Content-Type": whole.headers["Content-Type"]})
    api = await mirror()
    for _ in range(2):
        assert (await api.get(TAG)).status == 200
    assert hub.paths() == [TAG, TAG]


async def test_fifty_clients_ask_upstream_once(mirror: Any, hub: ScriptedRegistry) -> None:
    api = await mirror()
    hub.behaviours[TAGS] = Reply(200, b'{"name": "x", "tags": ["latest"]}')
    for target, methods in ((TAG, ["GET"]), (TAG, ["HEAD"]), (TAGS, ["GET"])):
        seen = len(hub.seen)
        answers = await asyncio.gather(*[api.get(target) for _ in range(50)])
        assert {each.status for each in answers} == {200}
        assert [each.method for each in hub.seen[seen:]] == methods
    absent = f"/v2/{NAME}/manifests/none"
    answers = await asyncio.gather(*[api.get(absent) for _ in range(50)])
    assert {each.code for each in answers} == {"MANIFEST_UNKNOWN"}
    assert hub.paths().count(absent) == 1


async def test_what_upstream_has_not_is_not_asked_for_again_at_once(
    mirror: Any, hub: ScriptedRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = await mirror()
    absent, blob = f"/v2/{NAME}/manifests/none", f"/v2/{NAME}/blobs/{sha256(b'none')}"
    for _ in range(3):
        assert [(await api.get(each)).status for each in (absent, blob)] == [404, 404]
    assert [each.path for each in hub.seen] == [absent, blob]
    monkeypatch.setattr("registry.mirror.repository.ABSENT_SECONDS", 0.0)
    hub.publish(NAME, "none", [LAYER])
    assert (await api.get(absent)).status == 200


@pytest.mark.parametrize("trouble", [401, 403, 429, 502, 503, 504, None])
async def test_what_is_here_is_served_with_a_warning(
    mirror: Any, hub: ScriptedRegistry, trouble: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    api = await mirror()
    hub.behaviours[TAGS] = Reply(200, b'{"name": "x", "tags": ["a", "latest"]}')
    subject = (await api.get(TAG)).headers["docker-content-digest"]
    await api.get(f"/v2/{NAME}/blobs/{sha256(LAYER)}")
    seen = len(hub.seen)
    whole = Reply(trouble) if trouble else Reply(200, promised=5, wait=asyncio.Event().wait)
    hub.behaviours |= dict.fromkeys((TAG, TAGS, f"/v2/{NAME}/referrers/{subject}"), whole)
    if trouble is None:
        hub.behaviours[TAG] = _cut
    answers = [await api.get(TAG) for _ in range(5)]
    assert {(each.status, each.headers.get("warning")) for each in answers} == {(200, STALE)}
    if trouble not in (401, 403, None):
        assert len(hub.seen) == seen + 1, "one who failed a moment ago is not asked"
        assert len([each for each in caplog.records if "unasked" in each.message]) == 1
        listed = await api.get(TAGS)
        assert (listed.json["tags"], listed.headers["warning"]) == (["latest"], STALE)
        assert (await api.get(f"/v2/{NAME}/referrers/{subject}")).status in (429, 503)
    by_digest = await api.get(f"/v2/{NAME}/manifests/{subject}")
    assert (by_digest.status, by_digest.headers.get("warning")) == (200, None)
    blob = await api.get(f"/v2/{NAME}/blobs/{sha256(LAYER)}")
    assert (blob.body, blob.headers.get("warning")) == (LAYER, None)


def _cut(_seen: Seen) -> Reply:
    raise ConnectionResetError


@pytest.mark.parametrize("silent", ["HEAD", "GET"])
async def test_an_upstream_that_is_silent_is_not_waited_for(
    mirror: Any, hub: ScriptedRegistry, monkeypatch: pytest.MonkeyPatch, silent: str
) -> None:
    for name in ("_BRIEFLY", "_FETCHED_BRIEFLY"):
        monkeypatch.setattr(f"registry.mirror.upstream.{name}", 0.1)
    api = await mirror()
    await api.get(TAG)
    hub.publish(NAME, "latest", [b"moved"])
    answer = hub._answer

    async def hanging(request: Seen, writer: asyncio.StreamWriter) -> bool:
        if request.method == silent:
            await asyncio.Event().wait()
        return await answer(request, writer)

    monkeypatch.setattr(hub, "_answer", hanging)
    for _ in range(3):
        assert (await api.get(TAG)).headers["warning"] == STALE
    assert [each.method for each in hub.seen][1:] == ["HEAD", "GET"][: 1 + (silent == "GET")]


async def test_an_upstream_that_comes_back_is_believed_again(mirror: Any, hub: ScriptedRegistry, at_once: None) -> None:
    api = await mirror()
    whole = hub.behaviours[TAG]
    await api.get(TAG)
    hub.behaviours[TAG] = Reply(503)
    assert (await api.get(TAG)).headers["warning"] == STALE
    hub.behaviours[TAG] = whole
    assert "warning" not in (await api.get(TAG)).headers


async def test_nothing_is_stale_for_longer_than_is_said(
    mirror: Any, hub: ScriptedRegistry, tmp_path: Path, at_once: None
) -> None:
    api = await mirror(stale="1h")
    await api.get(TAG)
    assert (await api.get(TAG)).status == 200
    hub.behaviours[TAG] = Reply(502)
    assert (await api.get(TAG)).headers["warning"] == STALE
    (note,) = tmp_path.rglob("tags/latest/current/confirmed")
    os.utime(note, (1, 1))
    answer = await api.get(TAG)
    assert (answer.status, answer.code) == (503, "UNAVAILABLE")
    note.unlink()
    assert (await api.get(TAG)).headers["warning"] == STALE, "the link is as old as the last change"
    assert (await (await mirror(stale="0s")).get(TAG)).status == 503


async def test_a_wait_that_upstream_asks_for_is_kept_by_all(mirror: Any, hub: ScriptedRegistry) -> None:
    api = await mirror()
    await api.get(TAG)
    hub.publish(NAME, "other", [LAYER])
    hub.behaviours[TAG] = Reply(429, headers={"Retry-After": "3600"})
    assert (await api.get(TAG)).headers["warning"] == STALE
    seen = len(hub.seen)
    for target in (f"/v2/{NAME}/manifests/other", f"/v2/{NAME}/blobs/{sha256(LAYER)}", f"/v2/{NAME}/manifests/third"):
        answer = await api.get(target)
        assert (answer.status, answer.code) == (429, "TOOMANYREQUESTS")
        assert 3500 < int(answer.headers["retry-after"]) <= 3600
    assert len(hub.seen) == seen


async def test_lists_are_remembered_and_served_when_upstream_fails(
    mirror: Any, hub: ScriptedRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = await mirror()
    subject = (await api.get(TAG)).headers["docker-content-digest"]
    entry = f'{{"mediaType": "application/x", "digest": "{subject}", "size": 3}}'
    index = f'{{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [{entry}]}}'
    referrers = f"/v2/{NAME}/referrers/{subject}"
    hub.behaviours |= {TAGS: Reply(200, b'{"name": "x", "tags": ["b", "a"]}'), referrers: Reply(200, index.encode())}
    seen = len(hub.seen)
    for _ in range(3):
        assert (await api.get(TAGS)).json["tags"] == ["a", "b"]
        assert len((await api.get(referrers)).json["manifests"]) == 1
    assert len(hub.seen) == seen + 2
    monkeypatch.setattr("registry.mirror.remembering.Remembered.get", _forgetting(Remembered.get))
    hub.behaviours |= dict.fromkeys((TAGS, referrers), Reply(503))
    listed, referring = await api.get(TAGS), await api.get(referrers)
    assert (listed.json["tags"], listed.headers["warning"]) == (["a", "b"], STALE)
    assert (len(referring.json["manifests"]), referring.headers["warning"]) == (1, STALE)


def _forgetting(get: Callable[..., Any]) -> Callable[..., Any]:
    """What is remembered is old."""
    return lambda self, key, within=float("inf"): get(self, key, within if within == float("inf") else 0.0)


async def test_a_list_that_is_gone_is_gone(mirror: Any, hub: ScriptedRegistry) -> None:
    api = await mirror()
    await api.get(TAG)
    hub.behaviours[TAGS] = Reply(404, b'{"errors": [{"code": "NAME_UNKNOWN"}]}')
    assert (await api.get(TAGS)).code == "NAME_UNKNOWN"
    hub.behaviours["/v2/none/app/tags/list"] = Reply(503)
    assert (await api.get("/v2/none/app/tags/list")).status == 503, "nothing is here"


async def test_referrers_are_none_where_upstream_refuses_to_say(mirror: Any, hub: ScriptedRegistry) -> None:
    api = await mirror()
    subject = (await api.get(TAG)).headers["docker-content-digest"]
    hub.behaviours[f"/v2/{NAME}/referrers/{subject}"] = Reply(403)
    assert (await api.get(f"/v2/{NAME}/referrers/{subject}")).json["manifests"] == []


async def test_more_tags_than_can_be_listed_are_told(
    mirror: Any, hub: ScriptedRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("registry.mirror.upstream._MOST_TAGS", 2)
    hub.behaviours[TAGS] = Reply(200, b'{"name": "x", "tags": ["a", "b", "c"]}')
    answer = await (await mirror()).get(TAGS)
    assert (answer.status, "more than 2 tags" in answer.message) == (503, True)


async def test_flights_end_with_the_registry_and_bound_themselves(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("registry.mirror.flights.MOST", 1)
    monkeypatch.setattr("registry.mirror.flights._BEGUN_WITHIN", 0.01)
    flights, for_ever = Flights(), asyncio.Event()

    async def fault() -> None:
        raise ZeroDivisionError

    with pytest.raises(Unavailable, match="starting"):
        await flights.join("a", for_ever.wait)
    running = asyncio.create_task(flights.run())
    with caplog.at_level(logging.ERROR, "registry"), pytest.raises(Exception, match="the log tells more"):
        await flights.join("fault", fault)
    assert "ZeroDivisionError" in caplog.text
    waiting = asyncio.create_task(flights.join("a", for_ever.wait))
    await asyncio.sleep(0)
    with pytest.raises(Unavailable, match="on their way"):
        await flights.join("b", for_ever.wait)
    running.cancel()
    with pytest.raises(Unavailable, match="ending"):
        await waiting
    with pytest.raises(Unavailable, match="ending"):
        await flights.join("a", for_ever.wait)


def test_waits_are_believed_up_to_a_bound() -> None:
    waits = Waits()
    waits.learn("a", 429, {"retry-after": "1000000000"})
    waits.learn("b", 503, {"retry-after": "5"})
    waits.learn("c", 200, {"retry-after": "5"})
    waits.learn("d", 429, {})
    with pytest.raises(TooManyRequests) as met:
        waits.check("a")
    assert int(met.value.headers["Retry-After"]) == LONGEST
    with pytest.raises(Unavailable):
        waits.check("b")
    waits.check("c")
    waits.check("d")
    for number in range(100):
        waits.learn(f"host-{number}", 429, {"retry-after": "60"})
    waits.check("host-99")


@pytest.mark.parametrize(("text", "count"), [("100;w=21600", 100), (" 7", 7), ("many", None), ("", None)])
def test_limits_are_read_as_docker_hub_writes_them(text: str, count: int | None) -> None:
    limits = Limits()
    limits.learn({"ratelimit-limit": text, "ratelimit-remaining": text})
    assert (limits.limit, limits.remaining) == (count, count)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 5))))
def test_what_is_remembered_keeps_to_its_weight(puts: list[tuple[int, int]]) -> None:
    remembered: Remembered[int, int] = Remembered(10)
    for number, (key, weight) in enumerate(puts):
        remembered.put(key, number, weight)
        assert remembered.get(key) == number
    weights = dict(puts)
    last = {key: number for number, (key, _) in enumerate(puts)}
    kept = {key: value for key in weights if (value := remembered.get(key)) is not None}
    assert sum(weights[key] for key in kept) <= 10
    assert all(last[key] == value for key, value in kept.items())


def test_what_is_remembered_gets_old() -> None:
    now = [0.0]
    remembered: Remembered[str, int] = Remembered(10, clock=lambda: now[0])
    remembered.put("a", 1)
    now[0] = 5.0
    assert (remembered.get("a", 5.0), remembered.get("a", 5.1)) == (None, 1)


def test_an_instance_keeps_its_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    name = instance(tmp_path / "state")
    assert instance(tmp_path / "state") == name
    assert len(list((tmp_path / "state").iterdir())) == 1
    assert instance(tmp_path / "other") != name
    (tmp_path / "state" / "mirror-instance").write_text("a, b")
    assert instance(tmp_path / "state") != "a, b"
    (tmp_path / "file").touch()
    assert instance(tmp_path / "file" / "state").startswith("layerhouse-")
    assert [each.levelname for each in caplog.records] == ["WARNING", "WARNING"]


async def test_a_name_that_is_unknown_is_unknown_whatever_upstream_says(mirror: Any, hub: ScriptedRegistry) -> None:
    api = await mirror(refuse=["library/*"])
    answer = await api.get(TAG)
    assert (answer.code, hub.seen) == (NameUnknown.code, [])
