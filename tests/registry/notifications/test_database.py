"""The queue's file: what is put in comes out in order, counted right, within its bounds."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocispec.errors import StorageError
from registry.notifications.database import Database, Entry, Figures, look

LIMIT = 5


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "queue.sqlite"


@pytest.fixture
def database(file: Path) -> Iterator[Database]:
    found = Database(file, LIMIT)
    yield found
    found.close()


def put(database: Database, *texts: str, endpoint: str = "a", durable: bool = True) -> dict[str, int]:
    return database.add([Entry(endpoint, text.encode()) for text in texts], durable=durable)


def drained(database: Database, endpoint: str = "a") -> list[str]:
    found, head = [], database.head(endpoint)
    while head:
        found.append(head.envelope.decode())
        head = database.took(endpoint, head.number, 200)
    return found


def figures(database: Database, endpoint: str = "a") -> Figures:
    (found,) = (each for each in database.figures() if each.endpoint == endpoint)
    return found


def test_events_come_out_in_their_order_each_endpoint_for_itself(database: Database) -> None:
    put(database, "1", "2")
    put(database, "x", endpoint="b")
    put(database, "3", durable=False)
    head = database.head("a")
    assert head
    assert (head.envelope, head.pending) == (b"1", 3)
    assert drained(database) == ["1", "2", "3"]
    assert drained(database, "b") == ["x"]
    assert database.head("a") is None


def test_what_was_queued_is_there_when_the_file_is_opened_again(database: Database, file: Path) -> None:
    put(database, "1")
    database.close()
    again = Database(file, LIMIT)
    assert drained(again) == ["1"]
    again.close()


def test_two_processes_share_a_file(database: Database, file: Path) -> None:
    other = Database(file, LIMIT)
    put(database, "1")
    put(other, "2")
    put(database, "3")
    assert drained(other) == ["1", "2", "3"]
    assert database.head("a") is None
    other.close()


def test_of_too_many_events_the_oldest_are_dropped_and_counted(database: Database) -> None:
    assert put(database, *"12345") == {"a": 0}
    assert put(database, "6", "7") == {"a": 2}
    assert put(database, *"abc", endpoint="b") == {"b": 0}
    found = figures(database)
    assert (found.pending, found.events, found.dropped) == (5, 7, 2)
    assert drained(database) == ["3", "4", "5", "6", "7"]
    assert figures(database).pending == 0


def test_large_events_are_dropped_before_they_fill_the_disk(database: Database) -> None:
    large = "x" * 4096 * 4
    assert put(database, "1", large) == {"a": 0}
    assert put(database, large) == {"a": 2}
    assert put(database, "3") == {"a": 0}
    assert drained(database) == [large, "3"]
    # One that alone is too large does not stay either.
    assert put(database, "x" * 4096 * 6) == {"a": 1}
    assert drained(database) == []


def test_an_event_that_was_dropped_while_it_was_sent_is_not_counted_twice(database: Database) -> None:
    put(database, "1")
    head = database.head("a")
    assert head
    put(database, *"23456")
    following = database.took("a", head.number, 200)
    assert following
    assert following.envelope == b"2"
    found = figures(database)
    assert (found.pending, found.successes, found.dropped) == (5, 1, 1)


def test_how_an_endpoint_fares_is_told(database: Database) -> None:
    put(database, "1", "2")
    database.refused("a", 500, "it answered 500")
    database.refused("a", None, "no answer")
    head = database.head("a")
    assert head
    database.took("a", head.number, 204)
    found = figures(database)
    assert (found.events, found.successes, found.failures, found.errors) == (2, 1, 1, 1)
    assert found.statuses == ((204, 1), (500, 1))
    assert found.last_error == "no answer"
    assert found.oldest
    assert found.last_failure
    assert found.last_success
    assert found.oldest <= found.last_failure <= found.last_success


def test_endpoints_that_are_gone_are_forgotten_with_all_they_had(database: Database) -> None:
    put(database, "1", "2")
    put(database, "3", endpoint="b")
    database.refused("a", 500, "it answered 500")
    assert database.keep(["b", "c"]) == {"a": 2}
    assert [each.endpoint for each in database.figures()] == ["b"]
    assert database.head("a") is None
    assert drained(database, "b") == ["3"]


def test_numbers_never_come_twice_not_even_in_another_file(database: Database, file: Path) -> None:
    put(database, "1")
    first = database.head("a")
    assert first
    database.took("a", first.number, 200)
    put(database, "2")
    second = database.head("a")
    other = Database(file.with_name("other"), LIMIT)
    put(other, "1")
    third = other.head("a")
    assert second
    assert third
    assert first.number < second.number < third.number
    other.close()


def test_the_file_shrinks_once_all_is_sent(tmp_path: Path) -> None:
    file = tmp_path / "queue.sqlite"
    database = Database(file, 1000)
    database.add([Entry("a", b"x" * 4000) for _ in range(1500)], durable=False)
    assert len(drained(database)) == 1000
    database.close()
    assert file.stat().st_size < 1 << 20


def test_a_transaction_that_fails_leaves_nothing_behind(database: Database) -> None:
    with pytest.raises(sqlite3.Error):
        database.add([Entry("a", b"1"), Entry("a", b"2", queued=object())], durable=True)  # type: ignore[arg-type]
    assert database.head("a") is None
    put(database, "3")
    assert drained(database) == ["3"]


def test_a_file_of_a_newer_version_is_refused(database: Database, file: Path) -> None:
    database.close()
    with sqlite3.connect(file) as connection:
        connection.execute("PRAGMA user_version=2")
    connection.close()
    with pytest.raises(sqlite3.DatabaseError, match="written by a newer version: 2, expected 1"):
        Database(file, LIMIT)


def test_a_file_that_was_set_aside_is_noticed(database: Database, file: Path) -> None:
    assert database.is_current()
    file.rename(file.with_name("aside"))
    assert not database.is_current()
    file.touch()
    assert not database.is_current()


def test_who_only_looks_makes_nothing_and_says_what_cannot_be_read(database: Database, file: Path) -> None:
    absent = file.with_name("absent")
    assert look(absent) == []
    assert not absent.exists()
    put(database, "1")
    assert [each.pending for each in look(file)] == [1]
    broken = file.with_name("broken")
    broken.write_bytes(b"no database" * 1000)
    with pytest.raises(StorageError, match="broken: file is not a database"):
        look(broken)
    assert broken.read_bytes().startswith(b"no database")


Steps = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.sampled_from("ab"), st.integers(1, 4)),
        st.tuples(st.just("take"), st.sampled_from("ab"), st.just(0)),
        st.tuples(st.just("keep"), st.sampled_from("ab"), st.just(0)),
    ),
    max_size=40,
)


@given(Steps)
def test_the_queue_is_a_list_with_a_bound_for_each_endpoint(tmp_path_factory, steps) -> None:
    database = Database(tmp_path_factory.mktemp("queue") / "queue.sqlite", LIMIT)
    model: dict[str, list[str]] = {}
    number = 0
    for step, endpoint, count in steps:
        if step == "put":
            texts = [str(number := number + 1) for _ in range(count)]
            put(database, *texts, endpoint=endpoint, durable=False)
            model[endpoint] = (model.get(endpoint, []) + texts)[-LIMIT:]
        elif step == "keep":
            database.keep([endpoint])
            model = {name: waiting for name, waiting in model.items() if name == endpoint}
        elif head := database.head(endpoint):
            assert head.envelope.decode() == model[endpoint].pop(0)
            database.took(endpoint, head.number, 200)
        assert {each.endpoint: each.pending for each in database.figures()} == {
            name: len(waiting) for name, waiting in model.items()
        }
    for name, waiting in model.items():
        assert drained(database, name) == waiting
    database.close()
