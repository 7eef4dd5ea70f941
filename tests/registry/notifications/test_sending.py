"""An endpoint that fails, stalls, hangs up, goes away and comes back gets every event, in order."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocispec.errors import StorageError
from registry.config.notifications import Endpoint
from registry.notifications import sending as module
from registry.notifications.database import Entry, look
from registry.notifications.queue import Queue
from registry.notifications.sending import Breaker, Depth, Sender
from registry.outgoing import Answer, Outgoing
from tests.support.receiver import Receiver

FEW = {"timeout": "300ms", "threshold": 3, "backoff": "50ms"}


@pytest.fixture
async def queue(tmp_path: Path) -> AsyncIterator[Queue]:
    found = Queue(tmp_path / "notifications.sqlite", 10_000)
    yield found
    await found.close()


@asynccontextmanager
async def sending(queue: Queue, receiver: Receiver, name: str = "a", **members: Any) -> AsyncIterator[None]:
    endpoint = Endpoint.model_validate({"name": name, "url": receiver.url, **FEW, **members})
    async with Outgoing(5) as outgoing, asyncio.TaskGroup() as tasks:
        running = tasks.create_task(Sender(endpoint, queue, outgoing).run())
        yield
        running.cancel()


async def put(queue: Queue, *names: str, endpoint: str = "a") -> None:
    envelopes = [b'{"events":[{"id":"%s","action":"push"}]}' % name.encode() for name in names]
    await queue.put([Entry(endpoint, each) for each in envelopes], durable=True)


async def taken(receiver: Receiver, count: int) -> list[str]:
    await asyncio.to_thread(receiver.wait_taken, count)
    return receiver.ids


async def emptied(queue: Queue) -> None:
    async with asyncio.timeout(30):
        while any(each.pending for each in await queue.figures()):
            await asyncio.sleep(0.01)


NAMES = [f"event-{number}" for number in range(8)]


async def test_events_are_posted_one_by_one_as_distribution_does(queue: Queue, receiver: Receiver) -> None:
    async with sending(queue, receiver, headers={"Authorization": ["Bearer secret"], "X-Two": ["a", "b"]}):
        await put(queue, *NAMES)
        assert await taken(receiver, len(NAMES)) == NAMES
        await emptied(queue)
    first = receiver.came[0]
    assert first.path == "/events"
    assert first.headers["content-type"] == "application/vnd.docker.distribution.events.v2+json"
    assert first.headers["authorization"] == "Bearer secret"
    assert first.headers["x-two"] == "a, b"


@pytest.mark.parametrize("answer", [500, 503, 404, 400, "drop", "stall"])
async def test_what_fails_is_sent_again_before_what_follows(queue: Queue, receiver: Receiver, answer: Any) -> None:
    failures = iter([answer, answer, 200, answer, 200])
    receiver.behave = lambda _: next(failures, 200)
    async with sending(queue, receiver):
        await put(queue, *NAMES)
        assert await taken(receiver, len(NAMES)) == NAMES
        await emptied(queue)
    assert [each.event["id"] for each in receiver.came[:5]] == [NAMES[0]] * 3 + [NAMES[1]] * 2
    (found,) = await queue.figures()
    assert (found.successes, found.failures + found.errors) == (len(NAMES), 3)
    assert found.last_error


@pytest.mark.parametrize("status", [200, 201, 202, 204, 303, 304, 302])
async def test_each_of_2xx_and_3xx_is_a_success(queue: Queue, receiver: Receiver, status: int) -> None:
    receiver.behave = lambda _: status
    async with sending(queue, receiver):
        await put(queue, "1", "2")
        assert await taken(receiver, 2) == ["1", "2"]
        await emptied(queue)
    assert (await queue.figures())[0].statuses == ((status, 2),)


async def test_an_endpoint_that_is_down_gets_everything_when_it_is_back(
    queue: Queue, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "registry")
    receiver.stop()
    async with sending(queue, receiver):
        await put(queue, *NAMES)
        async with asyncio.timeout(30):
            while (await queue.figures())[0].errors < 5:
                await asyncio.sleep(0.01)
        await put(queue, "later")
        receiver.start()
        assert await taken(receiver, len(NAMES) + 1) == [*NAMES, "later"]
        await emptied(queue)
    down, back = [record.getMessage() for record in caplog.records if record.name == "registry"]
    cause = f"{receiver.url}: Connection refused"
    assert down == f"endpoint a takes no events: {cause}; it is asked every 0.05 s, and 8 wait"
    assert back == "endpoint a takes events again: 9 wait"


async def test_one_that_stalls_holds_up_nobody_else(queue: Queue, receivers: Callable[[], Receiver]) -> None:
    stalling, quick = receivers(), receivers()
    stalling.behave = lambda _: "stall"
    async with sending(queue, stalling, "a", timeout="20s"), sending(queue, quick, "b"):
        await put(queue, *NAMES)
        await put(queue, *NAMES, endpoint="b")
        assert await taken(quick, len(NAMES)) == NAMES
        assert len(stalling.came) <= 1


async def test_a_secret_is_in_no_line_of_the_log(
    queue: Queue, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "registry")
    receiver.behave = lambda _: 401
    url = receiver.url.replace("http://", "http://user:hidden@") + "?token=hidden"
    async with sending(queue, receiver, url=url, headers={"Authorization": ["hidden"]}):
        await put(queue, "1")
        async with asyncio.timeout(30):
            while (await queue.figures())[0].failures < 4:
                await asyncio.sleep(0.01)
    (line,) = [record.getMessage() for record in caplog.records if record.name == "registry"]
    assert "it answered 401" in line
    assert "hidden" not in line + str(await queue.figures())


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_is_followed_with_the_event_and_without_secrets_to_another_host(
    queue: Queue, receivers: Callable[[], Receiver], status: int
) -> None:
    first, second = receivers(), receivers()
    first.behave = lambda delivery: status if delivery.path == "/events" else 200
    first.headers = {"Location": "/moved"}
    async with sending(queue, first, headers={"X-Secret": ["s"]}):
        await put(queue, "1")
        await asyncio.to_thread(first.wait, lambda found: len(found.came) == 2)
        await emptied(queue)
        assert [(each.path, each.headers.get("x-secret")) for each in first.came] == [
            ("/events", "s"),
            ("/moved", "s"),
        ]
        first.headers = {"Location": second.url}
        await put(queue, "2")
        assert await taken(second, 1) == ["2"]
    assert second.came[0].headers.get("x-secret") is None
    assert second.came[0].headers["content-type"].endswith("events.v2+json")


async def test_no_redirect_takes_an_event_out_of_what_is_encrypted(queue: Queue) -> None:
    asked = []

    class Leading(Outgoing):
        """Answers for a receiver that speaks https, which then leads elsewhere."""

        async def ask(self, method: str, url: str, *_: Any, **__: Any) -> Answer:
            asked.append(url)
            return Answer(307, {"location": "http://receiver.example/events"}, b"")

    endpoint = Endpoint.model_validate({"name": "a", "url": "https://receiver.example/events?token=hidden", **FEW})
    async with Leading(5) as outgoing, asyncio.TaskGroup() as tasks:
        running = tasks.create_task(Sender(endpoint, queue, outgoing).run())
        await put(queue, "1")
        async with asyncio.timeout(30):
            while not (await queue.figures())[0].errors:
                await asyncio.sleep(0.01)
        running.cancel()
    (found,) = await queue.figures()
    places = "https://receiver.example/events redirects to http://receiver.example/events"
    assert (found.last_error, found.pending) == (f"{places}: events would go there unencrypted", 1)
    assert set(asked) == {endpoint.url}


async def test_redirects_in_a_circle_are_a_failure(queue: Queue, receiver: Receiver) -> None:
    receiver.behave, receiver.headers = (lambda _: 307), {"Location": "/events"}
    async with sending(queue, receiver):
        await put(queue, "1")
        async with asyncio.timeout(30):
            while not (await queue.figures())[0].errors:
                await asyncio.sleep(0.01)
    (found,) = await queue.figures()
    assert found.last_error == f"{receiver.url} redirects more than 5 times"
    assert found.pending == 1


async def test_what_another_process_queues_is_seen_too(queue: Queue, receiver: Receiver, tmp_path: Path) -> None:
    other = Queue(tmp_path / "notifications.sqlite", 100)
    async with sending(queue, receiver):
        await put(queue, "1")
        await taken(receiver, 1)
        await put(other, "2")
        assert await taken(receiver, 2) == ["1", "2"]
    await other.close()


async def test_what_was_taken_while_the_queue_cannot_be_written_is_not_sent_again(
    queue: Queue, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "_STORAGE_SECONDS", 0.01)
    monkeypatch.setattr(module, "_POLL_SECONDS", 0.01)
    failing = [5]
    took = queue.took

    async def full(*words: Any) -> Any:
        failing[0] -= 1
        if failing[0] >= 0:
            raise StorageError("the disk is full")
        return await took(*words)

    monkeypatch.setattr(queue, "took", full)
    async with sending(queue, receiver):
        await put(queue, "1", "2")
        await emptied(queue)
    assert receiver.ids == ["1", "2"]
    assert caplog.messages == ["endpoint a is sent nothing: the disk is full"]


async def test_an_event_dropped_meanwhile_is_not_sent_for_ever(tmp_path: Path, receiver: Receiver) -> None:
    queue = Queue(tmp_path / "small.sqlite", 2)
    receiver.behave = lambda _: 500
    async with sending(queue, receiver):
        await put(queue, "1")
        await asyncio.to_thread(receiver.wait, lambda found: found.came)
        await put(queue, "2", "3")
        receiver.behave = lambda _: 200
        assert (await taken(receiver, 2))[-2:] == ["2", "3"]
        await emptied(queue)
    assert [each.dropped for each in look(tmp_path / "small.sqlite")] == [1]
    await queue.close()


@given(st.lists(st.booleans(), max_size=60), st.integers(1, 10), st.floats(0, 100))
def test_the_breaker_pauses_after_as_many_failures_in_a_row_and_never_longer(
    successes: list[bool], threshold: int, backoff: float
) -> None:
    breaker, row = Breaker(threshold, backoff), 0
    for success in successes:
        row = 0 if success else row + 1
        (breaker.succeeded if success else breaker.failed)()
        assert breaker.is_open == (row >= threshold)
        if breaker.is_open:
            assert max(backoff, 0.05) <= breaker.pause <= max(backoff, 0.05) * 1.1
        else:
            assert breaker.pause == 0


def test_a_queue_that_grows_is_told_now_and_then(caplog: pytest.LogCaptureFixture) -> None:
    depth = Depth("a")
    for pending in [*range(0, 5000, 10), 400, 999, 1200]:
        depth.is_now(pending)
    assert caplog.messages == [f"endpoint a: {count} events wait" for count in (1000, 2000, 4000, 1200)]
