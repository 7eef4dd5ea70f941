"""Servers in processes of their own: what their operator and their clients see of start and end."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from registry.listening import ListenError, TcpAddress
from registry.server import ServerSettings, serve
from tests.support.host import BIG, eventually, read, read_all
from tests.support.served import GET, GET_FILE, Application


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Application]]:
    with ExitStack() as ending:

        def starting(workers: int = 1, **options: Any) -> Application:
            server = Application("pid_or_file", tmp_path, workers=workers, **options)
            ending.callback(server.kill)
            server.start()
            return server

        yield starting


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_tells_its_address_serves_and_ends_with_status_0(start: Any, workers: int, number: int) -> None:
    server = start(workers)
    assert server.ask()
    assert server.end(number) == 0
    eventually(lambda: not server.processes())


def test_requests_are_shared_between_the_workers(start: Any) -> None:
    server = start(2)
    answered = set()
    eventually(lambda: answered.add(server.ask()) or len(answered) == 2)


def test_a_worker_that_dies_is_replaced(start: Any) -> None:
    server = start(2)
    victim = int(server.ask())
    os.kill(victim, signal.SIGKILL)
    eventually(lambda: victim not in server.processes() and "died" in server.log())
    survivors: set[bytes] = set()
    eventually(lambda: survivors.add(server.ask()) or len(survivors) == 2)


def test_workers_do_not_outlive_a_parent_that_was_killed(start: Any) -> None:
    server = start(2)
    assert len(server.processes()) > 2
    os.kill(server.pid, signal.SIGKILL)
    eventually(lambda: set(server.processes()) <= {server.pid})


@pytest.mark.parametrize("workers", [1, 2])
def test_a_running_download_ends_before_the_server_does(start: Any, workers: int) -> None:
    server = start(workers)
    with server.connect(receive_buffer=4096) as connection:
        connection.sendall(GET_FILE)
        first = connection.recv(1)
        os.kill(server.pid, signal.SIGTERM)
        eventually(lambda: not accepts(server))
        assert (first + read_all(connection)).endswith(server.file.read_bytes())
    assert server.wait() == 0


def accepts(server: Application) -> bool:
    host, _, port = server.host.rpartition(":")
    with socket.socket() as connection:
        return connection.connect_ex((host, int(port))) == 0


def test_a_download_that_takes_longer_than_the_drain_time_is_cut(start: Any) -> None:
    server = start(drain_seconds=1)
    with server.connect(receive_buffer=4096) as connection:
        connection.sendall(GET_FILE)
        assert connection.recv(1)
        assert server.end() == 0
        assert len(read_all(connection)) < BIG


def test_an_idle_connection_does_not_delay_the_end(start: Any) -> None:
    server = start()
    with server.connect() as idle, server.connect() as kept:
        kept.sendall(GET.replace(b"connection: close\r\n", b""))
        assert read(kept)[0] == 200
        assert server.end() == 0
        assert read_all(idle) == read_all(kept) == b""


def test_a_reader_that_stopped_is_cut_off(start: Any) -> None:
    server = start(stall_seconds=1)
    with server.connect(receive_buffer=4096) as connection:
        connection.sendall(GET_FILE)
        assert connection.recv(1)
        eventually(lambda: not server.holds_file())
        assert len(read_all(connection)) < BIG


@pytest.mark.parametrize("workers", [1, 2])
def test_an_application_that_cannot_start_ends_the_server_with_an_error(tmp_path: Path, workers: int) -> None:
    server = Application("never_starts", tmp_path, workers=workers)
    with pytest.raises(RuntimeError, match="no storage"):
        server.start()


def test_an_address_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ListenError, match=f"^cannot listen on 127.0.0.1:{port}: Address already in use$"):
            serve("none:none", ServerSettings(TcpAddress("127.0.0.1", port)))
