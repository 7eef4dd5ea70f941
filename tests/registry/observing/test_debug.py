"""The debug address: a real registry's health and metrics, of one process and of several."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from pydantic import ValidationError

from registry.config import Settings
from registry.observing import debug, reports
from registry.observing.debug import DebugServer
from tests.support.processes import DistributionProcess, RegistryProcess
from tests.support.source import ROOT

ADDRESS = re.compile(r"debug server on http://127\.0\.0\.1:(\d+)")
Values = dict[tuple[str, frozenset[tuple[str, str]]], float]
Start = Callable[..., RegistryProcess]
WITHIN = 30.0


def ask(port: int, method: str, path: str, **headers: str) -> tuple[int, str, bytes]:
    """Status, media type and body of an answer."""
    connection = HTTPConnection("127.0.0.1", port, timeout=WITHIN)
    try:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.headers["content-type"], answer.read()
    finally:
        connection.close()


def health(port: int) -> tuple[int, dict[str, str]]:
    status, media_type, body = ask(port, "GET", "/debug/health")
    assert media_type == "application/json"
    return status, json.loads(body)


def scrape(port: int, path: str = "/metrics") -> Values:
    status, _, text = ask(port, "GET", path)
    assert status == 200, text
    families = text_string_to_metric_families(text.decode())
    return {(each.name, frozenset(each.labels.items())): each.value for family in families for each in family.samples}


def answered(found: Values) -> float:
    """How many requests were answered, as the metrics have it."""
    return sum(figure for (name, _), figure in found.items() if name == "registry_http_requests_total")


def workers(found: Values) -> float:
    return found.get(("registry_workers", frozenset()), 0)


def until(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + WITHIN
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


def config(tmp_path: Path, **more: Any) -> str:
    file = tmp_path / "config.yml"
    debugging = {"addr": "127.0.0.1:0", "prometheus": {"enabled": True}}
    values = {"version": "0.1", "storage": {"filesystem": {}}, "http": {"debug": debugging}, **more}
    file.write_text(json.dumps(values))
    return str(file)


def port_of(server: RegistryProcess) -> int:
    found = ADDRESS.findall(server.log(1 << 20))
    return int(found[-1])


def status(server: RegistryProcess | DistributionProcess, method: str, path: str) -> int:
    return ask(int(server.host.rpartition(":")[2]), method, path)[0]


def sample(server: RegistryProcess | DistributionProcess, number: int) -> None:
    """Requests of six kinds, `number` of each, some of which fail."""
    for _ in range(number):
        for method, path in (
            ("GET", "/v2/"),
            ("GET", "/v2/_catalog"),
            ("GET", "/v2/none/tags/list"),
            ("GET", "/v2/none/manifests/v1"),
            ("HEAD", f"/v2/none/blobs/sha256:{'0' * 64}"),
            ("POST", "/v2/some/blobs/uploads/"),
        ):
            status(server, method, path)


def serving(server: RegistryProcess) -> list[int]:
    """Process ids of the workers."""
    return [pid for pid in server.processes() if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def test_one_scrape_tells_of_all_workers(registry_server: Start, tmp_path: Path) -> None:
    server = registry_server(workers=2, args=[config(tmp_path, log={"formatter": "json"})])
    port = port_of(server)
    until(lambda: health(port) == (200, {}))
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: sample(server, 2), range(8)))
    found = until(lambda: (found := scrape(port)) and answered(found) == 96 and found)
    assert workers(found) == 2
    label = frozenset({("handler", "tags"), ("method", "get"), ("code", "404")})
    assert found["registry_http_requests_total", label] == 16
    assert found[
        "registry_storage_action_seconds_count", frozenset({("action", "PutContent"), ("driver", "filesystem")})
    ]
    page = (ROOT / "docs" / "observability.md").read_text()
    names = {re.sub(r"_(bucket|sum|count)$", "", name) for name, _ in found if not name.startswith("process_")}
    assert {name for name in names if f"`{name}`" not in page} == set()
    assert server.stop() == 0
    lines = [json.loads(line) for line in server.log(1 << 20).splitlines()]
    assert sum(line["msg"] == "response completed" for line in lines) == 96


def test_a_worker_that_hangs_is_unwell_and_one_that_is_killed_takes_nothing_along(
    registry_server: Start, tmp_path: Path
) -> None:
    server = registry_server(workers=2, args=[config(tmp_path)])
    port = port_of(server)
    until(lambda: workers(scrape(port)) == 2)
    sample(server, 5)
    until(lambda: answered(scrape(port)) == 30)
    before = set(serving(server))
    hanging = min(before)
    os.kill(hanging, signal.SIGSTOP)
    assert health(port) == (503, {f"worker {hanging}": "does not answer"})
    os.kill(hanging, signal.SIGCONT)
    until(lambda: health(port) == (200, {}))
    os.kill(hanging, signal.SIGKILL)
    while workers(found := scrape(port)) != 2 or set(serving(server)) == before:
        assert answered(found) == 30
    sample(server, 1)
    until(lambda: answered(scrape(port)) == 36)
    assert health(port) == (200, {})
    assert server.stop() == 0


def test_what_is_unwell_is_told_at_both_addresses_and_so_is_recovery(registry_server: Start, tmp_path: Path) -> None:
    file = tmp_path / "down"
    checks = {"file": [{"file": str(file), "interval": "50ms"}], "storagedriver": {"enabled": True, "interval": "50ms"}}
    server = registry_server(workers=2, args=[config(tmp_path, health=checks)])
    port = port_of(server)
    until(lambda: health(port) == (200, {}))
    file.touch()
    until(lambda: health(port) == (503, {str(file): "file exists"}))
    until(lambda: all(status(server, "GET", "/v2/") == 503 for _ in range(8)))
    file.unlink()
    until(lambda: health(port) == (200, {}))
    until(lambda: all(status(server, "GET", "/v2/") == 200 for _ in range(8)))


def test_storage_that_is_gone_makes_it_unwell_until_it_is_back(registry_server: Start, tmp_path: Path) -> None:
    checks = {"storagedriver": {"enabled": True, "interval": "50ms", "threshold": 1}}
    server = registry_server(args=[config(tmp_path, health=checks)])
    port = port_of(server)
    until(lambda: health(port) == (200, {}))
    ours = server.root / ".layerhouse"
    ours.rename(tmp_path / "aside")
    ours.write_text("a file in the way of the folder")
    _, failing = until(lambda: (told := health(port))[0] == 503 and told)
    assert failing["storagedriver_filesystem"].startswith(".layerhouse/probe: ")
    ours.unlink()
    (tmp_path / "aside").rename(ours)
    until(lambda: health(port) == (200, {}))


@pytest.mark.peer("docker-registry")
def test_dashboards_made_for_distribution_find_what_they_look_for(registry_server: Start, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        other = free.getsockname()[1]
    theirs = DistributionProcess(tmp_path / "theirs", log=tmp_path / "theirs.log")
    theirs._env |= {
        "REGISTRY_HTTP_DEBUG_ADDR": f"127.0.0.1:{other}",
        "REGISTRY_HTTP_DEBUG_PROMETHEUS_ENABLED": "true",
        "REGISTRY_STORAGE_CACHE_BLOBDESCRIPTOR": "inmemory",
    }
    theirs.start()
    try:
        server = registry_server(args=[config(tmp_path)])
        for each in (theirs, server):
            sample(each, 1)
        found = until(lambda: (found := scrape(port_of(server))) and answered(found) == 6 and found)
        wanted = scrape(other)
    finally:
        theirs.stop()
    same = {key: figure for key, figure in wanted.items() if key[0].startswith("registry_http")}
    assert len(same) > 100
    assert set(same) <= set(found)
    exact = [key for key in same if re.search(r"requests_total$|_count$|in_flight", key[0])]
    assert {key: found[key] for key in exact} == {key: same[key] for key in exact}
    labels = {frozenset(dict(key[1])) for key in wanted if key[0].startswith("registry_storage_action")}
    assert labels == {frozenset(dict(key[1])) for key in found if key[0].startswith("registry_storage_action")}


def test_an_address_that_is_taken_is_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        file = config(tmp_path, http={"debug": {"addr": address}})
        server = RegistryProcess(tmp_path / "root", log=tmp_path / "log", args=[file])
        with pytest.raises(RuntimeError, match=f"registry: cannot listen on {address}: Address already in use\n"):
            server.start()


def test_what_is_no_address_is_refused() -> None:
    with pytest.raises(ValidationError, match="expected HOST:PORT"):
        Settings.model_validate({"http": {"debug": {"addr": "nowhere"}}})
    assert Settings.model_validate({"http": {"debug": {"addr": ""}}}).http.debug.addr is None


def test_nothing_listens_where_nothing_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with debug.serving(Settings()):
        assert "LAYERHOUSE_REPORTS" not in os.environ
    assert not caplog.records
    with debug.serving(Settings.model_validate({"http": {"debug": {"prometheus": {"enabled": True}}}})):
        pass
    assert "nobody can read it" in caplog.text


@contextmanager
def served(metrics: str | None) -> Iterator[int]:
    """A debug server whose registry has no process that serves yet."""
    with socket.create_server(("127.0.0.1", 0)) as listening, DebugServer(listening, metrics).running():
        yield listening.getsockname()[1]


def test_what_is_not_there_is_404_with_a_sentence() -> None:
    with served(None) as port:
        assert health(port) == (503, {"workers": "none serves"})
        assert ask(port, "GET", "/metrics")[::2] == (404, b"not found; there is /debug/health\n")
        for path in ("/debug/pprof/heap", "/debug/vars"):
            answer = ask(port, "GET", path)
            assert (answer[0], b"no Go program" in answer[2]) == (404, True)


def test_only_reading_is_answered() -> None:
    with served("/prometheus") as port:
        assert ask(port, "POST", "/debug/health")[0] == 405
        assert ask(port, "HEAD", "/debug/health")[::2] == (503, b"")
        assert ask(port, "GET", "/prometheus?x=1")[0] == 200
        assert ask(port, "GET", "/prometheus", Accept="application/openmetrics-text;version=1.0.0")[1].startswith(
            "application/openmetrics-text"
        )
        assert ask(port, "GET", "/metrics")[::2] == (404, b"not found; there is /debug/health and /prometheus\n")


@pytest.mark.parametrize("sent", [b"\r\n\r\n", b"GET\r\n\r\n", b"\xff" * 40000, b"GET /" + b"a" * 40000])
def test_what_is_no_request_is_refused(sent: bytes) -> None:
    with served(None) as port, socket.create_connection(("127.0.0.1", port), WITHIN) as client:
        client.sendall(sent)
        client.shutdown(socket.SHUT_WR)
        assert client.recv(1 << 16).startswith(b"HTTP/1.1 400 Bad Request\r\n")
        assert health(port)[0] == 503


def test_who_says_nothing_or_comes_too_often_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(debug, "_REQUEST_SECONDS", 0.1)
    monkeypatch.setattr(debug, "_CONNECTIONS", 1)
    with served(None) as port:
        clients = [socket.create_connection(("127.0.0.1", port), WITHIN) for _ in range(3)]
        for client in clients:
            with client:
                assert client.recv(10) == b""
        until(lambda: health_or_none(port))


def health_or_none(port: int) -> bool:
    try:
        return health(port)[0] == 503
    except OSError:
        return False


def test_the_registry_goes_on_without_it(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    async def fails(*_: object) -> None:
        raise RuntimeError("odd")

    monkeypatch.setattr(reports.Reports, "serve", fails)
    with served(None):
        until(lambda: "the debug server ended" in caplog.text)
