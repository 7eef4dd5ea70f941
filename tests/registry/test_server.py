"""Servers in processes of their own: what their operator and their clients see of start and end."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from registry.server import ListenError, ServerSettings, serve
from tests.support.host import BIG, WAIT, eventually, read, read_all, tls_files
from tests.support.processes import REPOSITORY_ROOT, Server

GET = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"
GET_FILE = GET.replace(b"/ ", b"/file ")


class Application(Server):
    """`serve` with one of the applications of tests.support.applications."""

    def __init__(
        self, name: str, folder: Path, *tls: Path, workers: int = 1, drain: float = 30, stall: float = WAIT
    ) -> None:
        words = [name, "127.0.0.1", 0, workers, drain, stall, *tls]
        command = [sys.executable, "-m", "tests.support.applications", *map(str, words)]
        self.file = folder / "file"
        self.file.write_bytes(os.urandom(BIG))
        super().__init__(command, log=folder / "log", env={"PYTHONPATH": str(REPOSITORY_ROOT), "FILE": str(self.file)})

    def connect(self, receive_buffer: int = 0) -> socket.socket:
        connection = socket.socket()
        connection.settimeout(WAIT)
        if receive_buffer:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        host, _, port = self.host.rpartition(":")
        connection.connect((host, int(port)))
        return connection

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and return the exit status."""
        os.kill(self.pid, number)
        return self.wait()

    def wait(self) -> int:
        assert self._process is not None
        return self._process.wait(WAIT)

    def holds_file(self) -> bool:
        """Whether it has the file open that it sends."""
        return any(entry.resolve() == self.file for entry in Path(f"/proc/{self.pid}/fd").iterdir())

    def ask(self) -> bytes:
        with self.connect() as connection:
            connection.sendall(GET)
            return read(connection)[2]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Application]]:
    with ExitStack() as ending:

        def starting(workers: int = 1, **options: float) -> Application:
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
    server = start(drain=1)
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
    server = start(stall=1)
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
            serve("none:none", ServerSettings("127.0.0.1", port))


@pytest.mark.peer("openssl")
def test_it_serves_over_tls(tmp_path: Path) -> None:
    certificate, key = tls_files(tmp_path)
    with ExitStack() as ending:
        server = Application("pid_or_file", tmp_path, certificate, key)
        ending.callback(server.kill)
        server.start()
        context = ssl.create_default_context(cafile=str(certificate))
        with context.wrap_socket(server.connect(), server_hostname="127.0.0.1") as connection:
            connection.sendall(GET_FILE)
            assert read(connection)[2] == server.file.read_bytes()
        assert "https://" in server.log()
        assert server.end() == 0
