"""Health: what makes the registry unwell, what a client is told then, and how it recovers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ocispec.errors import StorageError, StorageFull
from registry.config import Settings
from registry.observing.health import Check, CheckFailed, Health, health
from storage import paths
from storage.memory import MemoryEngine
from tests.support.api import Api, serving

SOON = "10ms"


class Storage(MemoryEngine):
    """An engine that fails as it is told, and tells what was asked of it."""

    def __init__(self) -> None:
        super().__init__()
        self.error: Exception | None = None
        self.lies = False
        self.asked: list[str] = []

    async def write(self, path: str, data: bytes, *, durable: bool = True) -> None:
        self._ask(f"write {path}")
        await super().write(path, b"other" if self.lies else data, durable=durable)

    async def children(self, path: str, after: str = "", limit: int | None = None) -> list[str]:
        if path == paths.ROOT:
            self.asked.append("children")
        return await super().children(path, after, limit)

    def _ask(self, call: str) -> None:
        self.asked.append(call)
        if self.error is not None:
            raise self.error


@asynccontextmanager
async def watching(wanted: dict[str, Any], engine: MemoryEngine | None = None, **more: Any) -> AsyncIterator[Health]:
    found = health(Settings.model_validate({"health": wanted, **more}), engine or MemoryEngine())
    async with running(found):
        yield found


@asynccontextmanager
async def running(found: Health) -> AsyncIterator[None]:
    task = asyncio.create_task(found.run())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.005)


@asynccontextmanager
async def answering(answer: Callable[[str, dict[str, str]], str]) -> AsyncIterator[int]:
    """An HTTP server whose answers are a status line and headers; yields its port."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                line, *fields = (await reader.readuntil(b"\r\n\r\n")).decode().rstrip().split("\r\n")
                headers = {name.lower(): text.strip() for name, _, text in (each.partition(":") for each in fields)}
                writer.write(f"HTTP/1.1 {answer(line, headers)}\r\ncontent-length: 0\r\n\r\n".encode())
        writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()


@given(st.lists(st.booleans(), max_size=12), st.integers(0, 4))
async def test_so_many_failures_in_a_row_make_it_unwell_and_one_success_well(outcomes: list[bool], threshold: int):
    done = asyncio.Event()
    left = list(outcomes)

    async def probe() -> None:
        if not left:
            done.set()
            await asyncio.Event().wait()
        if not left.pop(0):
            raise CheckFailed("odd")

    found = Health([Check("it", 0, threshold, 60, probe)])
    async with running(found):
        await done.wait()
    failures = len(outcomes) - max((at for at, well in enumerate(outcomes) if well), default=-1) - 1
    unwell = failures >= max(threshold, 1)
    assert dict(found.failing) == ({"it": "odd"} if unwell else {})
    (family,) = await found.families()
    assert family.samples == (("registry_health_check_failing", (("check", "it"),), float(unwell)),)


async def test_a_probe_that_hangs_fails_and_holds_up_no_other(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "registry")
    let_go = asyncio.Event()
    seen = 0

    async def hangs() -> None:
        await let_go.wait()

    async def goes_on() -> None:
        nonlocal seen
        seen += 1

    found = Health([Check("hangs", 0.01, 2, 0.02, hangs), Check("goes on", 0.01, 1, 1, goes_on)])
    async with running(found):
        await until(lambda: "hangs" in found.failing)
        assert dict(found.failing) == {"hangs": "no answer within 0.02 s"}
        before = seen
        await until(lambda: seen > before + 2)
        let_go.set()
        await until(lambda: not found.failing)
    assert [each.getMessage() for each in caplog.records] == [
        "health: hangs fails: no answer within 0.02 s",
        "health: hangs is well again",
    ]


async def test_a_probe_that_is_wrong_itself_is_a_failure_with_a_traceback(caplog: pytest.LogCaptureFixture) -> None:
    async def wrong() -> None:
        raise ZeroDivisionError

    found = Health([Check("wrong", 60, 1, 60, wrong)])
    async with running(found):
        await until(lambda: bool(found.failing))
    assert dict(found.failing) == {"wrong": "ZeroDivisionError while looking"}
    assert "Traceback" in caplog.text


async def test_a_file_takes_it_out_of_service(tmp_path: Path) -> None:
    file = tmp_path / "down"
    async with watching({"file": [{"file": str(file), "interval": SOON}]}) as found:
        file.touch()
        await until(lambda: dict(found.failing) == {str(file): "file exists"})
        file.unlink()
        await until(lambda: not found.failing)


async def test_a_file_that_cannot_be_looked_for_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    async with watching({"file": [{"file": str(tmp_path / "file" / "below"), "interval": SOON}]}) as found:
        await until(lambda: "Not a directory" in "".join(found.failing.values()))


async def test_an_address_that_takes_no_connection_is_a_failure() -> None:
    taken: list[asyncio.StreamWriter] = []

    def connected(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()
        taken.append(writer)

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    addr = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with watching({"tcp": [{"addr": addr, "interval": SOON, "timeout": "5s", "threshold": 2}]}) as found:
        await until(lambda: len(taken) > 2)
        assert not found.failing
        server.close()
        await server.wait_closed()
        await until(lambda: bool(found.failing))
        assert dict(found.failing) == {addr: f"{addr}: Connect call failed ('127.0.0.1', {addr[10:]})"}


async def test_a_connection_that_comes_to_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(*_: object) -> Any:
        await asyncio.Event().wait()

    monkeypatch.setattr("registry.observing.health.asyncio.open_connection", never)
    async with watching({"tcp": [{"addr": "registry.test:80", "interval": SOON, "timeout": "20ms"}]}) as found:
        await until(lambda: "no connection within 0.02 s" in found.failing.get("registry.test:80", ""))


async def test_a_service_is_asked_for_its_head_with_the_headers_and_has_to_answer_with_the_status() -> None:
    asked: list[tuple[str, dict[str, str]]] = []
    status = "500 Odd"

    def answer(line: str, headers: dict[str, str]) -> str:
        asked.append((line, headers))
        return status

    async with answering(answer) as port:
        wanted = {
            "uri": f"http://ann:hunter2@127.0.0.1:{port}/up?token=hunter2",
            "headers": {"X-Token": ["one"]},
            "statuscode": 204,
            "interval": SOON,
        }
        name = f"http://127.0.0.1:{port}/up"
        async with watching({"http": [wanted]}) as found:
            await until(lambda: bool(found.failing))
            assert dict(found.failing) == {name: f"{name} answered 500, expected 204"}
            status = "204 No Content"
            await until(lambda: not found.failing)
    line, headers = asked[0]
    assert line == "HEAD /up?token=hunter2 HTTP/1.1"
    assert headers["x-token"] == "one"
    assert headers["authorization"].startswith("Basic ")


async def test_a_redirect_is_followed_and_carries_the_headers_to_its_own_host_only() -> None:
    there: list[dict[str, str]] = []

    def elsewhere(_line: str, headers: dict[str, str]) -> str:
        there.append(headers)
        return "200 OK"

    async with answering(elsewhere) as other:

        def answer(line: str, headers: dict[str, str]) -> str:
            there.append(headers)
            return "302 Found\r\nlocation: " + ("/b" if " /a " in line else f"http://127.0.0.1:{other}/c")

        async with answering(answer) as port:
            wanted = {"uri": f"http://127.0.0.1:{port}/a", "headers": {"X-Token": ["one"]}, "interval": "1h"}
            async with watching({"http": [wanted]}) as found:
                await until(lambda: len(there) == 3)
                assert not found.failing
    assert ["x-token" in headers for headers in there] == [True, True, False]


async def test_redirects_without_an_end_and_a_service_that_is_gone_are_failures() -> None:
    async with answering(lambda *_: "301 Moved\r\nlocation: /") as port:
        name = f"http://127.0.0.1:{port}/"
        async with watching({"http": [{"uri": name, "interval": SOON}]}) as found:
            await until(lambda: "redirects more than 10 times" in found.failing.get(name, ""))
    async with watching({"http": [{"uri": name, "interval": SOON, "timeout": "1s"}]}) as found:
        await until(lambda: name in found.failing.get(name, ""))


STORAGE = {"storagedriver": {"enabled": True, "interval": SOON, "threshold": 1}}
INMEMORY = {"inmemory": {}}


async def test_storage_that_fails_makes_it_unwell_until_it_works_again() -> None:
    engine = Storage()
    async with watching(STORAGE, engine, storage=INMEMORY) as found:
        await until(lambda: len(engine.asked) > 1)
        assert not found.failing
        engine.error = StorageError("/srv: Input/output error")
        await until(lambda: dict(found.failing) == {"storagedriver_inmemory": "/srv: Input/output error"})
        engine.error = None
        await until(lambda: not found.failing)
        engine.lies = True
        await until(lambda: "is not what is read" in found.failing.get("storagedriver_inmemory", ""))


async def test_a_full_disk_does_not_keep_anybody_from_pulling(caplog: pytest.LogCaptureFixture) -> None:
    engine = Storage()
    engine.error = StorageFull()
    async with watching(STORAGE, engine) as found:
        await until(lambda: engine.asked.count("children") > 1)
        assert not found.failing
    assert "no space is left" in caplog.text


async def test_a_registry_that_may_not_write_does_not() -> None:
    engine = Storage()
    readonly = {"maintenance": {"readonly": {"enabled": True}}}
    async with watching(STORAGE, engine, storage=readonly):
        await until(lambda: len(engine.asked) > 1)
    assert set(engine.asked) == {"children"}


async def test_a_client_is_told_that_the_registry_is_unwell_and_then_served_again(tmp_path: Path) -> None:
    file = tmp_path / "down"
    wanted = Settings.model_validate({"health": {"file": [{"file": str(file), "interval": SOON}]}})
    async with serving(MemoryEngine(), wanted) as api:
        assert (await api.get("/v2/")).status == 200
        file.touch()
        await answered(api, 503)
        answer = await api.get("/v2/image/manifests/v1")
        assert (answer.status, answer.code) == (503, "UNAVAILABLE")
        assert answer.json["errors"][0]["detail"] == "health check failed: please see /debug/health"
        file.unlink()
        await answered(api, 200)


async def answered(api: Api, status: int) -> None:
    while (await api.get("/v2/")).status != status:
        await asyncio.sleep(0.005)


def test_checks_of_one_name_are_told_apart_and_those_that_are_off_are_none() -> None:
    files = [{"file": "/a"}, {"file": "/b"}, {"file": "/a"}]
    found = health(Settings.model_validate({"health": {"file": files}}), MemoryEngine())
    assert list(found._failures) == ["/a", "/b", "/a #2"]
    assert not health(Settings(), MemoryEngine()).watched


@pytest.mark.parametrize("wanted", [{"tcp": [{"addr": "nowhere"}]}, {"http": [{"uri": "http://a", "statuscode": 7}]}])
def test_what_cannot_be_looked_at_is_refused(wanted: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Settings.model_validate({"health": wanted})
