"""Real processes: killed between a push and its delivery, several workers, Debian's docker-registry beside ours."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.images import MANIFEST, sha256
from tests.support.processes import DistributionProcess, RegistryProcess, program, run
from tests.support.receiver import Receiver

Start = Callable[..., RegistryProcess]
INDEX = "application/vnd.oci.image.index.v1+json"


def configured(tmp_path: Path, *receivers: Receiver, root: Path, **members: Any) -> Path:
    """A config.yml as people write it."""
    file = tmp_path / "config.yml"
    endpoints = [
        {"name": f"endpoint-{number}", "url": each.url, "timeout": "1s", "threshold": 2, "backoff": "50ms"}
        for number, each in enumerate(receivers)
    ]
    settings = {
        "version": 0.1,
        "storage": {"filesystem": {"rootdirectory": str(root)}, "delete": {"enabled": True}},
        "http": {"addr": "127.0.0.1:0", "secret": "of-no-importance"},
        "notifications": {"events": {"includereferences": True}, "endpoints": endpoints},
        **members,
    }
    file.write_text(json.dumps(settings))  # JSON is YAML
    return file


def holder(lock: Path) -> int:
    """Process id of who holds a lock of flock(2)."""
    inode = str(lock.stat().st_ino)
    lines = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    return next(int(line[4]) for line in lines if line[1] == "FLOCK" and line[5].split(":")[2] == inode)


def push(url: str, data: bytes, repository: str = "a/b") -> str:
    digest = sha256(data)
    place = httpx.post(f"{url}/v2/{repository}/blobs/uploads/").headers["location"]
    target = httpx.URL(url).join(place).copy_merge_params({"digest": digest})
    assert httpx.put(target, content=data).status_code == 201
    return digest


def test_what_was_acknowledged_is_delivered_though_the_registry_was_killed(
    registry_server: Start, receiver: Receiver, tmp_path: Path
) -> None:
    receiver.behave = lambda _: 503
    file = configured(tmp_path, receiver, root=tmp_path / "root")
    server = registry_server(tmp_path / "root", args=[str(file)])
    digests = [push(server.url, b"%d" % number) for number in range(5)]
    receiver.wait(lambda found: len(found.came) >= 3)
    server.kill()
    assert receiver.taken == []
    told = run(*program("registry"), "notifications", str(file), env={"PYTHONPATH": str(Path.cwd())})
    titles, row = told.splitlines()
    assert titles.split("  ")[0] == "ENDPOINT"
    assert row.split()[:2] == ["endpoint-0", "5"]
    assert row.endswith(" it answered 503")
    # While it is away for longer than the registry, nothing is lost either.
    receiver.stop()
    server.start()
    receiver.behave = lambda _: 200
    receiver.start()
    events = receiver.wait_taken(5)
    assert [event["target"]["digest"] for event in events[:5]] == digests
    assert len(set(receiver.ids)) == 5


def test_when_an_event_was_sent_and_the_registry_killed_before_it_knew_it_comes_again_with_its_id(
    registry_server: Start, receiver: Receiver, tmp_path: Path
) -> None:
    receiver.behave = lambda _: "stall"
    file = configured(tmp_path, receiver, root=tmp_path / "root")
    server = registry_server(tmp_path / "root", args=[str(file)])
    push(server.url, b"layer")
    receiver.wait(lambda found: found.came)
    server.kill()
    receiver.behave = lambda _: 200
    server.start()
    (event,) = receiver.wait_taken(1)
    assert event["id"] == receiver.came[0].event["id"]


def test_two_workers_share_a_queue_and_another_sends_when_the_sender_is_killed(
    registry_server: Start, receiver: Receiver, tmp_path: Path
) -> None:
    file = configured(tmp_path, receiver, root=tmp_path / "root")
    server = registry_server(tmp_path / "root", workers=2, args=[str(file)])
    digests = [push(server.url, b"%d" % number) for number in range(10)]
    events = receiver.wait_taken(10)
    assert [event["target"]["digest"] for event in events] == digests
    assert len(receiver.came) == 10
    sender = holder(tmp_path / "root/.layerhouse/notifications.lock")
    assert sender in server.processes()
    os.kill(sender, signal.SIGKILL)
    push(server.url, b"after")
    assert receiver.wait_taken(11)[-1]["target"]["digest"] == sha256(b"after")


def exercise(url: str) -> None:
    """What clients do, all of it answered with success but the last."""
    config, layer = push(url, b'{"architecture":"amd64","os":"linux"}'), push(url, b"layer")
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": 37},
        "layers": [
            {
                "mediaType": "application/vnd.oci.image.layer.v1.tar",
                "digest": layer,
                "size": 5,
                "annotations": {"key": "value"},
            }
        ],
    }
    raw = json.dumps(manifest).encode()
    digest, accept, repository = sha256(raw), {"Accept": f"{MANIFEST}, {INDEX}"}, f"{url}/v2/a/b"
    agent = {"User-Agent": "docker/27.0", "Content-Type": MANIFEST}
    for reference in ("v1", "v2", digest):
        httpx.put(f"{repository}/manifests/{reference}", content=raw, headers=agent).raise_for_status()
    child = {"mediaType": MANIFEST, "digest": digest, "size": len(raw)}
    child["platform"] = {"architecture": "amd64", "os": "linux"}  # type: ignore[assignment]
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [child]}
    content = {"Content-Type": INDEX, "User-Agent": "docker/27.0"}
    httpx.put(f"{repository}/manifests/many", json=index, headers=content).raise_for_status()
    for method in ("GET", "HEAD"):
        for path in ("manifests/v1", f"manifests/{digest}", "manifests/many", f"blobs/{layer}"):
            httpx.request(method, f"{repository}/{path}", headers=accept).raise_for_status()
    httpx.get(f"{repository}/blobs/{layer}", headers={"Range": "bytes=1-2"}).raise_for_status()
    assert httpx.get(f"{repository}/manifests/v1", headers={**accept, "If-None-Match": digest}).status_code == 304
    assert httpx.get(f"{repository}/blobs/{sha256(b'none')}").status_code == 404
    assert httpx.post(f"{url}/v2/c/blobs/uploads/?mount={layer}&from=a/b").status_code == 201
    assert httpx.post(f"{url}/v2/c/blobs/uploads/?mount={sha256(b'none')}&from=a/b").status_code == 202
    assert httpx.delete(f"{repository}/blobs/{layer}").status_code == 202
    assert httpx.delete(f"{repository}/manifests/{digest}").status_code == 202
    push(url, b"the last")


def comparable(event: dict[str, Any], host: str) -> dict[str, Any]:
    """An event without what differs from run to run, and in the words of version 2 of the envelope."""
    assert set(event) == {"id", "timestamp", "action", "target", "request", "actor", "source"}
    assert set(event["request"]) == {"id", "addr", "host", "method", "useragent"}
    assert set(event["source"]) == {"addr", "instanceID"}
    assert event["timestamp"].endswith("Z")
    assert event["request"]["addr"].startswith("127.0.0.1:")
    # Version 1 leaves out what is empty in a descriptor, and the platforms of an index.
    for each in event["target"].get("references", ()):
        each.pop("platform", None)
    target = {"mediaType": "", "digest": "", "size": 0, **event["target"]}
    request = {name: event["request"][name] for name in ("host", "method", "useragent")}
    found = {"action": event["action"], "target": target, "request": request, "actor": event["actor"]}
    shown: dict[str, Any] = json.loads(json.dumps(found).replace(host, "HOST"))
    return shown


def ordered(event: dict[str, Any]) -> str:
    return json.dumps(event, sort_keys=True)


@pytest.fixture
def docker_registry(tmp_path: Path) -> Iterator[Callable[[Path], DistributionProcess]]:
    running: list[DistributionProcess] = []

    def start(file: Path) -> DistributionProcess:
        server = DistributionProcess(tmp_path / "peer", log=tmp_path / "peer.log")
        server.command[-1] = str(file)
        running.append(server)
        server.start()
        return server

    yield start
    for each in running:
        each.stop()


@pytest.mark.peer("docker-registry")
def test_the_same_requests_make_the_same_events_as_with_docker_registry(
    registry_server: Start,
    docker_registry: Callable[[Path], DistributionProcess],
    receivers: Callable[[], Receiver],
    tmp_path: Path,
) -> None:
    theirs, ours = receivers(), receivers()
    peer = docker_registry(configured(tmp_path, theirs, root=tmp_path / "peer"))
    exercise(peer.url)
    theirs.wait(lambda found: found.taken and found.taken[-1]["target"].get("digest") == sha256(b"the last"))
    server = registry_server(tmp_path / "root", args=[str(configured(tmp_path, ours, root=tmp_path / "root"))])
    exercise(server.url)
    ours.wait(lambda found: found.taken and found.taken[-1]["target"].get("digest") == sha256(b"the last"))
    # docker-registry tells in any order of the tags that go with a manifest.
    expected = [comparable(event, peer.host) for event in theirs.taken]
    found = [comparable(event, server.host) for event in ours.taken]
    assert sorted(found, key=ordered) == sorted(expected, key=ordered)
    assert [each["action"] for each in found] == [each["action"] for each in expected]
    types = [each.came[0].headers["content-type"] for each in (theirs, ours)]
    assert types == [f"application/vnd.docker.distribution.events.v{version}+json" for version in (1, 2)]
