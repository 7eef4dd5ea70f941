"""Notifications in the whole application: what is asked of it, and what its endpoints get."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ocispec.mediatypes import OCTET_STREAM
from registry.config import Settings
from registry.notifications import notifying
from registry.notifications.notifying import Notifications
from storage.memory import MemoryEngine
from tests.support.api import index, serving
from tests.support.images import INDEX, MANIFEST, sha256
from tests.support.receiver import Receiver

Make = Callable[..., Settings]


def told(receiver: Receiver) -> list[tuple[str, str]]:
    """Action, and what it concerned, in the order in which it came."""
    names = []
    for event in receiver.taken:
        target = event["target"]
        kind = "blob" if target["mediaType"] == OCTET_STREAM else "manifest"
        names.append((event["action"], target.get("tag") or kind))
    return names


async def test_what_happens_is_told_and_what_fails_is_not(receiver: Receiver, settings: Make) -> None:
    async with serving(MemoryEngine(), settings({"name": "a", "url": receiver.url})) as api:
        digest = await api.push_image("image", "v1", b"layer")
        layer = sha256(b"layer")
        await api.get("/v2/image/manifests/v1")
        await api.ask("HEAD", f"/v2/image/manifests/{digest}")
        await api.get(f"/v2/image/blobs/{layer}", range="bytes=0-1")
        await api.ask("HEAD", f"/v2/image/blobs/{layer}")
        await api.ask("POST", f"/v2/other/blobs/uploads/?mount={layer}&from=image")
        for nothing in (
            ("GET", "/v2/image/manifests/none"),
            ("GET", f"/v2/image/blobs/{sha256(b'none')}"),
            ("DELETE", f"/v2/image/blobs/{sha256(b'none')}"),
            ("DELETE", "/v2/image/manifests/none"),
            ("POST", f"/v2/other/blobs/uploads/?mount={sha256(b'none')}&from=image"),
            ("GET", "/v2/image/tags/list"),
            ("GET", "/v2/_catalog"),
        ):
            await api.ask(*nothing)
        await api.ask("GET", "/v2/image/manifests/v1", headers={"If-None-Match": digest})
        await api.ask("GET", f"/v2/image/blobs/{layer}", headers={"If-None-Match": f'"{layer}"'})
        await api.get(f"/v2/image/blobs/{layer}", range="bytes=100-200")
        await api.ask("PUT", f"/v2/image/manifests/{digest}?tag=v2&tag=v3", b"{}", {"Content-Type": MANIFEST})
        await api.ask("DELETE", f"/v2/image/blobs/{layer}")
        await api.ask("DELETE", f"/v2/image/manifests/{digest}")
        await asyncio.to_thread(receiver.wait_taken, 11)
    assert told(receiver) == [
        ("push", "blob"),
        ("push", "blob"),
        ("push", "v1"),
        ("pull", "v1"),
        ("pull", "manifest"),
        ("pull", "blob"),
        ("pull", "blob"),
        ("mount", "blob"),
        ("delete", "manifest"),
        ("delete", "manifest"),
        ("delete", "v1"),
    ]
    assert len(set(receiver.ids)) == 11
    mount = receiver.taken[7]["target"]
    assert (mount["repository"], mount["fromRepository"], mount["size"]) == ("other", "image", 5)


async def test_each_tag_of_a_push_is_an_event(receiver: Receiver, settings: Make) -> None:
    async with serving(MemoryEngine(), settings({"name": "a", "url": receiver.url, "ignoredmediatypes": []})) as api:
        digest = await api.push_image("image", "v1")
        raw = (await api.get("/v2/image/manifests/v1")).body
        await api.ask("PUT", f"/v2/image/manifests/{digest}?tag=v2&tag=v3", raw, {"Content-Type": MANIFEST})
        await api.ask("PUT", f"/v2/image/manifests/{digest}", raw, {"Content-Type": MANIFEST})
        await asyncio.to_thread(receiver.wait_taken, 6)
    assert told(receiver)[3:] == [("push", "v2"), ("push", "v3"), ("push", "manifest")]


FILTERS: list[tuple[dict[str, Any], set[tuple[str, str]]]] = [
    ({}, {("push", "blob"), ("push", "v1"), ("pull", "v1"), ("pull", "blob"), ("delete", "manifest")}),
    ({"ignoredmediatypes": [OCTET_STREAM]}, {("push", "v1"), ("pull", "v1"), ("delete", "manifest")}),
    ({"ignore": {"mediatypes": [MANIFEST]}}, {("push", "blob"), ("pull", "blob"), ("delete", "manifest")}),
    (
        {"ignore": {"mediatypes": [MANIFEST]}, "ignoredmediatypes": [OCTET_STREAM]},
        {("delete", "manifest")},
    ),
    ({"ignore": {"actions": ["pull"]}}, {("push", "blob"), ("push", "v1"), ("delete", "manifest")}),
    ({"ignore": {"actions": ["pull", "push"], "mediatypes": [INDEX]}}, {("delete", "manifest")}),
    ({"ignore": {"actions": ["pull", "push", "mount", "delete"]}}, set()),
    ({"disabled": True}, set()),
]


@pytest.mark.parametrize(("members", "expected"), FILTERS, ids=[str(members) for members, _ in FILTERS])
async def test_an_endpoint_is_told_what_its_filters_let_through(
    receivers: Callable[[], Receiver], settings: Make, members: dict[str, Any], expected: set[tuple[str, str]]
) -> None:
    filtered, all_of_it = receivers(), receivers()
    endpoints = [{"name": "filtered", "url": filtered.url, **members}, {"name": "all", "url": all_of_it.url}]
    async with serving(MemoryEngine(), settings(*endpoints)) as api:
        digest = await api.push_image("image", "v1")
        await api.get("/v2/image/manifests/v1")
        await api.get(f"/v2/image/blobs/{sha256(b'{}')}")
        await api.ask("DELETE", f"/v2/image/blobs/{sha256(b'{}')}")
        await asyncio.to_thread(all_of_it.wait_taken, 5)
        if expected:
            await asyncio.to_thread(filtered.wait, lambda found: set(told(found)) == expected)
    assert set(told(filtered)) == expected
    assert digest


async def test_what_no_endpoint_wants_is_not_queued(receiver: Receiver, settings: Make, tmp_path: Path) -> None:
    endpoint = {"name": "a", "url": receiver.url, "ignore": {"actions": ["push"]}}
    async with serving(MemoryEngine(), settings(endpoint)) as api:
        digest = await api.push_blob("image", b"layer")
        await api.get(f"/v2/image/blobs/{digest}")
        await asyncio.to_thread(receiver.wait_taken, 1)
    assert told(receiver) == [("pull", "blob")]
    assert [each.events for each in await Notifications(settings(endpoint)).figures()] == [1]


async def test_addresses_and_references_are_as_configured(receiver: Receiver, settings: Make) -> None:
    configured = settings({"name": "a", "url": receiver.url}, events={"includereferences": True})
    http = configured.http.model_copy(update={"host": "https://registry.example"})
    async with serving(MemoryEngine(), configured.model_copy(update={"http": http})) as api:
        digest = (await api.push_manifest("image", "child", index())).headers["docker-content-digest"]
        child = {"mediaType": INDEX, "digest": digest, "size": len(json.dumps(index()))}
        answer = await api.push_manifest("image", "v1", index(child))
        await asyncio.to_thread(receiver.wait_taken, 2)
    target = receiver.taken[1]["target"]
    assert target["url"] == f"https://registry.example/v2/image/manifests/{answer.headers['docker-content-digest']}"
    assert target["references"] == [child]


async def test_without_endpoints_nothing_is_made_and_nothing_runs(settings: Make, tmp_path: Path) -> None:
    async with serving(MemoryEngine(), settings()) as api:
        await api.push_image("image", "v1")
        assert not Notifications(settings()).wanted
        assert await Notifications(settings()).figures() == []
    assert not (tmp_path / "state").exists()


async def test_what_waits_for_an_endpoint_that_is_gone_is_forgotten_and_told(
    receivers: Callable[[], Receiver], settings: Make, caplog: pytest.LogCaptureFixture
) -> None:
    gone, stays = receivers(), receivers()
    gone.behave = stays.behave = lambda _: 500
    names = [{"name": "gone", "url": gone.url}, {"name": "stays", "url": stays.url}]
    async with serving(MemoryEngine(), settings(*names)) as api:
        await api.push_blob("image", b"layer")
    caplog.set_level(logging.WARNING, "registry")
    caplog.clear()
    # The other one moved, and keeps what waits for it.
    moved = receivers()
    async with serving(MemoryEngine(), settings({"name": "stays", "url": moved.url})):
        await asyncio.to_thread(moved.wait_taken, 1)
    assert "endpoint gone is not configured any more: 1 events for it are not sent" in caplog.messages
    assert told(moved) == [("push", "blob")]


@pytest.mark.parametrize("disabled", [False, True])
async def test_when_the_last_endpoint_is_gone_or_disabled_its_events_are_forgotten_or_kept(
    receiver: Receiver, settings: Make, caplog: pytest.LogCaptureFixture, disabled: bool
) -> None:
    receiver.behave = lambda _: 500
    endpoint = {"name": "a", "url": receiver.url}
    async with serving(MemoryEngine(), settings(endpoint)) as api:
        await api.push_blob("image", b"layer")
    caplog.clear()
    left = settings(*([{**endpoint, "disabled": True}] if disabled else []))
    async with asyncio.timeout(30):
        await Notifications(left).run()
    figures = await Notifications(left).figures()
    assert [each.pending for each in figures] == ([1] if disabled else [])
    assert len([message for message in caplog.messages if "not configured any more" in message]) == (not disabled)


async def test_a_state_directory_that_cannot_be_written_stops_no_push(
    receiver: Receiver,
    settings: Make,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(notifying, "_RETRY_SECONDS", 0.02)
    monkeypatch.setattr("registry.notifications.queue._RETRY_SECONDS", 0.02)
    (tmp_path / "state").write_text("in the way")
    async with serving(MemoryEngine(), settings({"name": "a", "url": receiver.url})) as api:
        await api.push_image("image", "v1")
        lines = [message for message in caplog.messages if "state" in message]
        assert any(line.startswith("no events are sent: ") for line in lines)
        assert any(line.startswith("events cannot be queued: ") for line in lines)
        assert len(lines) <= 4
        (tmp_path / "state").unlink()
        await asyncio.to_thread(receiver.wait_taken, 2)
    assert told(receiver)[-1] == ("push", "v1")


async def test_two_workers_send_everything_once_and_in_order(receiver: Receiver, settings: Make) -> None:
    engine, shared = MemoryEngine(), settings({"name": "a", "url": receiver.url})
    async with serving(engine, shared) as one, serving(engine, shared) as two:
        for number in range(10):
            await (one, two)[number % 2].push_blob("image", b"%d" % number)
        await asyncio.to_thread(receiver.wait_taken, 10)
    expected = [sha256(b"%d" % number) for number in range(10)]
    assert [event["target"]["digest"] for event in receiver.taken] == expected
    assert len({event["source"]["instanceID"] for event in receiver.taken}) == 2
