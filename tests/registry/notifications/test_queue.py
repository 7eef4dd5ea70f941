"""The queue of a process: on disk before `put` returns, in memory while there is no disk, and whole after all of it."""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ocispec.errors import StorageError
from registry.notifications import queue as module
from registry.notifications.database import Database, Entry, look
from registry.notifications.queue import Gathered, Queue


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "state" / "notifications.sqlite"


@pytest.fixture
async def queue(file: Path) -> AsyncIterator[Queue]:
    found = Queue(file, 100)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(found.run())
        yield found
        running.cancel()
    await found.close()


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_RETRY_SECONDS", 0.02)


async def put(queue: Queue, *texts: str, durable: bool = True) -> None:
    await queue.put([Entry("a", text.encode()) for text in texts], durable=durable)


async def drained(queue: Queue) -> list[str]:
    found, head = [], await queue.head("a")
    while head:
        found.append(head.envelope.decode())
        head = await queue.took("a", head.number, 200)
    return found


def on_disk(file: Path) -> int:
    return sum(each.pending for each in look(file))


async def until(condition) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.005)


async def test_what_must_last_is_on_disk_when_put_returns(queue: Queue, file: Path) -> None:
    await put(queue, "1", "2")
    assert on_disk(file) == 2
    assert file.stat().st_mode & 0o777 == 0o600


async def test_pulls_wait_for_nothing_and_are_on_disk_soon(queue: Queue, file: Path) -> None:
    bell = queue.bell()
    await put(queue, "1", durable=False)
    assert not file.exists()
    await bell.wait()
    assert on_disk(file) == 1


async def test_what_came_first_stands_first_whatever_must_last(queue: Queue) -> None:
    await put(queue, "pull", durable=False)
    await put(queue, "push")
    await put(queue, "pull again", durable=False)
    await put(queue, "push again")
    assert await drained(queue) == ["pull", "push", "pull again", "push again"]


async def test_many_at_once_share_transactions(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    batches = []
    add = Database.add

    def counted(self, entries, *, durable):
        batches.append(len(entries))
        return add(self, entries, durable=durable)

    monkeypatch.setattr(Database, "add", counted)
    await asyncio.gather(*(put(queue, str(number)) for number in range(50)))
    assert sum(batches) == 50
    assert len(batches) < 25
    assert sorted(map(int, await drained(queue))) == list(range(50))


async def test_what_was_put_before_the_end_is_on_disk_after_it(file: Path) -> None:
    queue = Queue(file, 100)
    await put(queue, "1", durable=False)
    await queue.close()
    assert on_disk(file) == 1
    # A request that outlives the rest is no worse off.
    await put(queue, "2")
    assert on_disk(file) == 2
    await queue.close()


async def test_who_gave_up_waiting_has_put_it_nevertheless(queue: Queue, file: Path) -> None:
    putting = [asyncio.create_task(put(queue, str(number))) for number in range(3)]
    await asyncio.sleep(0)
    for each in putting:
        each.cancel()
    await asyncio.gather(*putting, return_exceptions=True)
    await until(lambda: on_disk(file) >= 3)
    # Perhaps twice: whoever is cancelled does not learn how far it came.
    assert set(await drained(queue)) == {"0", "1", "2"}


async def test_a_full_queue_drops_the_oldest_and_says_so_once(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    queue = Queue(file, 3)
    for number in range(10):
        await put(queue, str(number))
    assert await drained(queue) == ["7", "8", "9"]
    assert caplog.messages == ["endpoint a: the oldest 1 events were dropped: at most 3 may wait"]
    await queue.close()


@pytest.mark.usefixtures("fast")
async def test_while_nothing_can_be_written_events_are_kept_and_written_later(
    queue: Queue, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    file.parent.parent.joinpath("state").write_text("in the way")
    await put(queue, "1")
    await put(queue, "2", durable=False)
    await put(queue, "3")
    (message,) = caplog.messages
    assert message.startswith("events cannot be queued: ")
    assert message.endswith("; until they can, they are kept in memory")
    with pytest.raises(StorageError, match="state"):
        await queue.head("a")
    bell = queue.bell()
    file.parent.unlink()
    await bell.wait()
    assert caplog.messages[1:] == ["events can be queued again"]
    assert await drained(queue) == ["1", "2", "3"]


@pytest.mark.usefixtures("fast")
async def test_what_memory_cannot_keep_is_dropped_and_counted(
    queue: Queue, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    queue._gathered = Gathered(limit=2)
    file.parent.write_text("in the way")
    for number in range(5):
        await put(queue, str(number))
    bell = queue.bell()
    file.parent.unlink()
    await bell.wait()
    assert await drained(queue) == ["3", "4"]
    assert caplog.messages[-1].startswith("3 events were dropped")


async def test_what_could_not_be_queued_by_the_end_is_told(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    file.parent.write_text("in the way")
    queue = Queue(file, 100)
    await put(queue, "1")
    await queue.close()
    assert caplog.messages[-1] == "1 events could not be queued, and are lost"


async def test_a_file_that_another_program_holds_fails_nobody(
    queue: Queue, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("registry.sqlitefiles.BUSY_SECONDS", 0.05)
    monkeypatch.setattr(module, "_RETRY_SECONDS", 0.02)
    await put(queue, "1")
    holder = sqlite3.connect(file, isolation_level=None)
    await queue._shared.do(lambda database: database._db.execute("PRAGMA busy_timeout=50"))
    holder.execute("BEGIN IMMEDIATE")
    await put(queue, "2")
    bell = queue.bell()
    holder.execute("COMMIT")
    holder.close()
    await bell.wait()
    assert await drained(queue) == ["1", "2"]


async def test_a_damaged_file_is_set_aside_and_a_new_one_begun(
    queue: Queue, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file.parent.mkdir()
    file.write_bytes(b"no database" * 1000)
    await put(queue, "1")
    assert await drained(queue) == ["1"]
    (aside,) = file.parent.glob("*.damaged-*")
    assert aside.read_bytes().startswith(b"no database")
    assert file.stat().st_mode & 0o777 == 0o600
    (message,) = caplog.messages
    assert message == (
        f"{file} cannot be used (file is not a database): it was set aside as {aside.name},"
        " and the events in it are not sent"
    )


async def test_a_file_that_is_damaged_while_it_is_open_is_set_aside_by_one_and_left_by_the_other(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    queues = [Queue(file, 100), Queue(file, 100)]
    for each in queues:
        await put(each, *map(str, range(20)))
    for each in queues:
        await each._shared.close()
    for each in queues:
        await each.head("a")
    with file.open("r+b") as damaged:
        damaged.seek(4096)
        damaged.write(os.urandom(file.stat().st_size - 4096))
    for number, each in enumerate(queues):
        await put(each, f"after {number}")
    assert await drained(queues[0]) == ["after 0", "after 1"]
    assert len([message for message in caplog.messages if "cannot be used" in message]) == 1
    assert len(list(file.parent.glob("*.damaged-*Z"))) == 1
    # The one that closes the old file leaves the new one's log alone.
    await put(queues[0], "more")
    assert on_disk(file) == 1
    for each in queues:
        await each.close()
    assert on_disk(file) == 1


async def test_a_file_that_was_taken_away_is_made_anew(queue: Queue, file: Path) -> None:
    await put(queue, "1")
    file.unlink()
    await put(queue, "2")
    assert await drained(queue) == ["2"]


async def test_a_file_of_a_newer_version_is_set_aside_for_it(queue: Queue, file: Path) -> None:
    await put(queue, "1")
    await queue._shared.close()
    with sqlite3.connect(file) as connection:
        connection.execute("PRAGMA user_version=2")
    connection.close()
    await put(queue, "2")
    assert await drained(queue) == ["2"]
    (aside,) = file.parent.glob("*.damaged-*Z")
    with pytest.raises(StorageError, match="written by a newer version"):
        look(aside)


def test_memory_is_bounded_in_bytes_too() -> None:
    gathered = Gathered(limit=100, size=10)
    gathered.add([Entry("a", b"12345"), Entry("a", b"12345"), Entry("a", b"123")])
    assert (len(gathered), gathered.dropped) == (2, 1)
    assert [entry.envelope for entry in gathered.take()] == [b"12345", b"123"]
    gathered.add([Entry("a", b"x" * 11)])
    assert (len(gathered), gathered.dropped) == (0, 2)
