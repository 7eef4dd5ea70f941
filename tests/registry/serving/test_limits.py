"""Clients that ask for too much, or take too long: they are bounded, and the others are served."""

from __future__ import annotations

import asyncio
import json
import resource
import select
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from ocispec.errors import TooManyRequests
from registry.config.layerhouse import Layerhouse
from registry.serving import limits, server
from registry.serving.limits import Bounds, LimitedRequests, Room, network
from storage.engine import Engine
from tests.support.api import DELETES, Api, serving
from tests.support.host import GET, WAIT, answering, eventually, next_answer, read, read_all
from tests.support.images import sha256

HELD = b"PATCH / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\n\r\n"
DATA = b"0123456789" * 10
DIGEST = sha256(DATA)


async def waits_for_its_body(scope: Any, receive: Any, send: Any) -> None:
    while (await receive()).get("more_body"):
        pass
    await answering(b"done")(scope, receive, send)


class Gated:
    """An application whose requests are in progress until they are let go."""

    def __init__(self) -> None:
        self.running = 0
        self.most = 0
        self.let_go = asyncio.Semaphore(0)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await self.let_go.acquire()
        finally:
            self.running -= 1


def ask(app: Any, host: str | None = "192.0.2.1") -> asyncio.Task[None]:
    scope = {"type": "http", "client": (host, 1) if host is not None else None}

    async def asking() -> None:
        await app(scope, None, None)

    return asyncio.create_task(asking())


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_as_many_requests_of_one_client_as_are_allowed_run_and_as_many_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "_LEAST_WAITING", 0)
    gated = Gated()
    app = LimitedRequests(gated, 2)
    tasks = [ask(app) for _ in range(5)]
    other = ask(app, "192.0.2.2")
    await settled()
    assert gated.running == 3
    assert [task.done() for task in tasks] == [False] * 4 + [True]
    with pytest.raises(TooManyRequests, match=r"^2 requests of your address .* ask again later$") as refused:
        await tasks[4]
    assert int(refused.value.headers["Retry-After"]) > 0
    for _ in range(5):
        gated.let_go.release()
    await asyncio.gather(*tasks[:4], other)
    assert gated.most == 3
    assert app.__dict__["_running"] == app.__dict__["_waiting"] == {}


async def test_turns_come_in_the_order_of_asking() -> None:
    order: list[int] = []
    turns = asyncio.Semaphore(0)

    async def app(scope: Any, _receive: Any, _send: Any) -> None:
        order.append(scope["number"])
        await turns.acquire()

    limited = LimitedRequests(app, 2)
    tasks = [
        asyncio.create_task(limited({"type": "http", "client": ("a", 1), "number": number}, _none, _none))
        for number in range(4)
    ]
    for _ in tasks:
        turns.release()
    await asyncio.gather(*tasks)
    assert order == [0, 1, 2, 3]


async def _none(*_: Any) -> None:
    """Neither receives nor sends."""


async def test_who_waits_for_too_long_is_refused_and_leaves_no_place_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_PATIENCE", 0.01)
    gated = Gated()
    app = LimitedRequests(gated, 1)
    first, second = ask(app), ask(app)
    with pytest.raises(TooManyRequests):
        await second
    gated.let_go.release()
    await first
    gated.let_go.release()
    await ask(app)
    assert app.__dict__["_running"] == app.__dict__["_waiting"] == {}


async def test_a_place_that_comes_at_the_last_moment_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_PATIENCE", 0.01)
    gated = Gated()
    app = LimitedRequests(gated, 1)
    first, second = ask(app), ask(app)
    await settled()
    gated.let_go.release()
    time.sleep(0.02)  # the loop finds both at once: the end of the first, and of the second's patience
    await first
    await settled()
    assert gated.running == 1
    gated.let_go.release()
    await second
    assert app.__dict__["_running"] == app.__dict__["_waiting"] == {}


@pytest.mark.parametrize("has_place", [False, True])
async def test_who_is_cancelled_leaves_the_place_to_the_next(has_place: bool) -> None:
    gated = Gated()

    async def cancelling(*words: Any) -> None:
        await gated(*words)
        if has_place and not second.cancelling():
            # Between being handed a place, and taking it.
            asyncio.get_running_loop().call_soon(second.cancel)

    app = LimitedRequests(cancelling, 1)
    first, second, third = (ask(app) for _ in range(3))
    await settled()
    if not has_place:
        second.cancel()
    gated.let_go.release()
    await first
    with pytest.raises(asyncio.CancelledError):
        await second
    await settled()
    assert gated.running == 1
    gated.let_go.release()
    await third
    assert app.__dict__["_running"] == app.__dict__["_waiting"] == {}


async def test_who_has_no_address_has_no_limit() -> None:
    gated = Gated()
    tasks = [ask(LimitedRequests(gated, 1), None) for _ in range(3)]
    await settled()
    assert gated.running == 3
    gated.let_go.release()
    gated.let_go.release()
    gated.let_go.release()
    await asyncio.gather(*tasks)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("no:address", "no:address"),
        ("", ""),
    ],
)
def test_a_network_of_ipv6_is_one_client(host: str, expected: str) -> None:
    assert network(host) == expected


@pytest.mark.parametrize("bytes_", [1, 10])
def test_a_body_that_comes_too_slowly_is_cut_off(serve: Any, bytes_: int) -> None:
    host = serve(waits_for_its_body, patience=0.2, bounds=Bounds(body_rate=10_000))
    connection = host.connect()
    connection.sendall(b"PATCH / HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\r\n")

    def is_cut() -> bool:
        try:
            connection.sendall(b"a" * bytes_)
        except OSError:
            return True
        return False

    eventually(is_cut)


def test_a_body_that_comes_at_the_least_rate_is_taken(serve: Any) -> None:
    connection = serve(waits_for_its_body, patience=0.2, bounds=Bounds(body_rate=5)).connect()
    connection.sendall(b"PATCH / HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\n")
    for _ in range(100):
        time.sleep(0.01)
        connection.sendall(b"a")
    assert read(connection)[2] == b"done"


@pytest.mark.parametrize("padding", [2000, 200_000])
def test_a_head_that_is_too_long_is_refused_also_where_it_comes_at_once(serve: Any, padding: int) -> None:
    connection = serve(answering(b"yes"), bounds=Bounds(head_bytes=1024)).connect()
    connection.sendall(GET[:-2] + b"x: " + b"y" * padding + b"\r\n\r\n")
    assert read(connection)[0] == 400


def test_what_follows_a_small_head_at_once_may_be_long(serve: Any) -> None:
    connection = serve(waits_for_its_body, bounds=Bounds(head_bytes=1024)).connect()
    connection.sendall(b"PATCH / HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\r\n" + bytes(100_000))
    assert read(connection)[2] == b"done"


def test_where_there_is_no_room_the_connection_gives_way_that_waited_longest(serve: Any) -> None:
    host = serve(waits_for_its_body, bounds=Bounds(connections=3))
    asked, half, idle = host.connect(), host.connect(), host.connect()
    half.sendall(b"GET / HT")
    eventually(lambda: len(host.state.connections) == 3)
    asked.sendall(GET)
    assert read(asked)[2] == b"done"
    for _ in range(2):
        host.connect().sendall(HELD)
    # Not the one that asked: it has waited since its answer only.
    assert read_all(half) == read_all(idle) == b""
    asked.sendall(GET)
    assert read(asked)[2] == b"done"


def test_who_comes_when_all_others_are_served_is_told_to_come_back(serve: Any) -> None:
    host = serve(waits_for_its_body, bounds=Bounds(connections=2))
    served = [host.connect() for _ in range(2)]
    for each in served:
        each.sendall(HELD)
    eventually(lambda: len(host.state.tasks) == 2)
    late = host.connect()
    late.sendall(GET)
    status, headers, body = read(late)
    assert (status, json.loads(body)["errors"][0]["code"]) == (503, "UNAVAILABLE")
    assert (headers["retry-after"], headers["connection"]) == ("5", "close")
    assert read_all(late) == b""
    for each in served:
        each.sendall(b"x")
        assert read(each)[2] == b"done"
    eventually(lambda: len(host.state.connections) == 2)
    again = host.connect()
    again.sendall(GET)
    assert read(again)[2] == b"done"


def test_a_crowd_that_says_nothing_keeps_nobody_out(serve: Any) -> None:
    host = serve(answering(b"yes"), bounds=Bounds(connections=8))
    crowd = [host.connect() for _ in range(60)]
    for number, each in enumerate(crowd):
        try:
            each.sendall(b"GET / HTTP/1.1\r\nx: "[: number % 20])
        except OSError:
            continue
    client = host.connect()
    client.sendall(GET)
    assert read(client)[2] == b"yes"
    eventually(lambda: len(host.state.connections) <= 9)


def test_an_answer_that_is_on_its_way_is_not_lost_to_another_connection(serve: Any) -> None:
    body = bytes(1 << 20)
    host = serve(answering(body), send_buffer=4096, bounds=Bounds(connections=1))
    slow = host.connect(receive_buffer=4096)
    slow.sendall(GET)
    assert slow.recv(1) == b"H"
    host.connect()
    assert read_all(slow).endswith(body)


def test_without_a_limit_there_is_room_for_all() -> None:
    assert Room().has_place(1 << 30)


def test_the_log_tells_once_that_there_is_no_room(caplog: pytest.LogCaptureFixture) -> None:
    class Waiting:
        def give_way(self) -> None:
            """Nothing is to be ended."""

    room = Room(1)
    caplog.set_level("WARNING", "registry")
    for _ in range(5):
        room.waits(Waiting())
        room.has_place(2)
    assert [record.message for record in caplog.records] == [
        "1 connections are open, as many as there may be (layerhouse.limits.total)"
    ]


@pytest.mark.parametrize(
    ("hard", "wanted", "expected", "raised"),
    [
        (4096, 8192, 1365, 4096),
        (1 << 20, 8192, 8192, 1 << 20),
        (resource.RLIM_INFINITY, 10, 10, 1 << 20),
        (1024, 10, 10, None),
        (4096, 0, 0, 4096),
    ],
)
def test_a_process_takes_no_more_connections_than_it_may_open_files(
    monkeypatch: pytest.MonkeyPatch, hard: int, wanted: int, expected: int, raised: int | None
) -> None:
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda _, both: asked.append(both))
    assert server.__dict__["_most_connections"](wanted) == expected
    assert asked == ([] if raised is None else [(raised, hard)])


@pytest.fixture
def limited(tmp_path: Path, registry_server: Callable[..., Any]) -> Iterator[Callable[..., Callable[[], Any]]]:
    """Start `registry serve` with these limits; gives what connects to it."""
    with ExitStack() as ending:

        def start(**keys: Any) -> Callable[[], Any]:
            config = tmp_path / "config.yml"
            found = {"version": "0.1", "storage": {"filesystem": {}}, "layerhouse": {"limits": keys}}
            config.write_text(json.dumps(found))
            host, _, port = registry_server(args=[str(config)]).host.rpartition(":")
            return lambda: ending.enter_context(socket.create_connection((host, int(port)), WAIT))

        yield start


def begin(connection: socket.socket) -> bytes:
    """A request that goes on: the body of a manifest does not end."""
    connection.sendall(
        b"PUT /v2/a/manifests/b HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\nexpect: 100-continue\r\n\r\n"
    )
    return connection.recv(25)


def test_a_registry_serves_each_client_its_share(limited: Any) -> None:
    connect = limited(perclient=1)
    running, others = connect(), [connect() for _ in range(65)]
    assert begin(running) == b"HTTP/1.1 100 Continue\r\n\r\n"
    for each in others:
        each.sendall(b"GET /v2/ HTTP/1.1\r\nhost: a\r\n\r\n")
    # Which of them came last is the server's to tell.
    (refused,), _, _ = select.select(others, [], [], WAIT)
    status, headers, body = read(refused)
    assert (status, json.loads(body)["errors"][0]["code"]) == (429, "TOOMANYREQUESTS")
    assert int(headers["retry-after"]) > 0
    running.sendall(b"{}")
    assert read(running)[0] == 400
    assert [read(each)[0] for each in others if each is not refused] == [200] * 64


def test_a_registry_cuts_off_who_is_slow_and_refuses_who_says_too_much(limited: Any) -> None:
    connect = limited(headtimeout="1s", stalltimeout="1s", minimumrate=100, headsize=1024)
    heads, body, long = connect(), connect(), connect()
    heads.sendall(b"GET /v2/ HTTP/1.1\r\n")
    assert begin(body).startswith(b"HTTP/1.1 100")
    body.sendall(b"{")
    long.sendall(b"GET /v2/ HTTP/1.1\r\nhost: a\r\nx: " + b"y" * 2000 + b"\r\n\r\n")
    assert read(long)[0] == 400
    assert read_all(heads) == read_all(body) == b""


@pytest.fixture
async def small(engine: Engine) -> Any:
    """A registry whose blobs have at most 99 bytes."""
    settings = DELETES.model_copy(update={"layerhouse": _limits(blobsize=99)})
    async with serving(engine, settings) as api:
        yield api


def _limits(**keys: Any) -> Any:
    return Layerhouse.model_validate({"limits": keys})


@pytest.mark.parametrize("is_chunked", [False, True])
@pytest.mark.parametrize("method", ["PATCH", "PUT"])
async def test_a_blob_that_is_too_long_is_refused(small: Api, method: str, is_chunked: bool) -> None:
    location = await small.begin("image")
    answer = await small.ask(method, f"{location}?digest={DIGEST}", [DATA[:60], DATA[60:]] if is_chunked else DATA)
    assert (answer.status, answer.code) == (413, "SIZE_INVALID")
    assert answer.message == "the blob is longer than 99 bytes"
    assert (await small.get(f"/v2/image/blobs/{DIGEST}")).status == 404


async def test_the_chunks_of_a_blob_are_counted_together(small: Api) -> None:
    location = await small.begin("image")
    assert (await small.ask("PATCH", location, DATA[:60])).status == 202
    assert (await small.ask("PATCH", location, DATA[60:])).status == 413
    assert (await small.ask("PATCH", location, DATA[60:99])).status == 202
    assert (await small.commit(location, b"", sha256(DATA[:99]))).status == 201


async def test_a_blob_in_one_request_may_be_as_long_as_a_blob_may_be(small: Api) -> None:
    for size, status in ((100, 413), (99, 201)):
        blob = DATA[:size]
        assert (await small.ask("POST", f"/v2/image/blobs/uploads/?digest={sha256(blob)}", blob)).status == status


async def test_what_is_too_long_is_not_asked_for(small: Api) -> None:
    location = await small.begin("image")
    # Were the body waited for, this would never be answered.
    answer = await small.exchange("PATCH", location, {"content-length": "100"})
    assert answer.status == 413


def test_a_client_that_waits_for_100_continue_learns_at_once_that_its_blob_is_too_long(limited: Any) -> None:
    connection = limited(blobsize=99)()
    stream = connection.makefile("rb")
    connection.sendall(b"POST /v2/image/blobs/uploads/ HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n")
    status, headers, _ = next_answer(stream)
    assert status == 202
    head = f"PATCH {headers['location']} HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 100\r\n\r\n"
    connection.sendall(head.encode())
    assert next_answer(stream)[0] == 413
