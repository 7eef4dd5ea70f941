"""Servers in processes of their own: what their operator and their clients see of start and end."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from registry.serving.listening import ListenError, TcpAddress, UnixAddress, listening, reaches
from registry.serving.server import ServerSettings, serve
from tests.support.host import BIG, WAIT, eventually, read, read_all
from tests.support.served import GET, GET_FILE, GET_SCOPE, Application


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder whose path leaves room for a socket's: 107 bytes hold no more."""
    with tempfile.TemporaryDirectory(prefix="lh-") as folder:
        yield Path(folder)


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


@pytest.mark.parametrize("host", ["", "0.0.0.0", "::"])
def test_everywhere_means_ipv4_and_ipv6_as_go_has_it(host: str) -> None:
    with listening(TcpAddress(host, 0), 1) as socket_:
        port = socket_.getsockname()[1]
        socket.create_connection(("127.0.0.1", port), WAIT).close()
        if socket.has_dualstack_ipv6():
            socket.create_connection(("::1", port), WAIT).close()


@pytest.mark.parametrize("code", [errno.EADDRNOTAVAIL, None])
def test_everywhere_means_ipv4_where_there_is_no_ipv6(monkeypatch: pytest.MonkeyPatch, code: int | None) -> None:
    made = socket.create_server

    def without_ipv6(*words: Any, family: int = socket.AF_INET, **options: Any) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(code, "no IPv6")
        return made(*words, **options)

    monkeypatch.setattr(socket, "create_server", without_ipv6)
    monkeypatch.setattr(socket, "has_dualstack_ipv6", lambda: code is not None)
    with listening(TcpAddress("", 0), 1) as found:
        assert found.getsockname()[0] == "0.0.0.0"


def test_a_port_that_is_taken_everywhere_is_named() -> None:
    with listening(TcpAddress("", 0), 1) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ListenError, match=f"^cannot listen on :{port}: Address already in use$"):
            listening(TcpAddress("", port), 1).__enter__()


def test_a_name_is_looked_up_and_one_that_is_none_is_named() -> None:
    with listening(TcpAddress("localhost", 0), 1) as found:
        assert found.getsockname()[0] == "127.0.0.1"
    with pytest.raises(ListenError, match=r"^cannot listen on none\.invalid:5000: "):
        listening(TcpAddress("none.invalid", 5000), 1).__enter__()


def test_a_client_by_ipv4_is_known_by_its_address_of_ipv4(start: Any) -> None:
    server = start(host="")
    port = int(server.log().rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), WAIT) as connection:
        connection.sendall(GET_SCOPE)
        assert json.loads(read(connection)[2])["client"][0] == "127.0.0.1"


@pytest.mark.parametrize("workers", [1, 2])
def test_a_unix_socket_is_served_and_removed_at_the_end(short: Path, workers: int) -> None:
    path = short / "registry.sock"
    with socket.socket(socket.AF_UNIX) as left_over:
        left_over.bind(str(path))
    with ExitStack() as ending:
        server = Application("pid_or_file", short, unix=str(path), workers=workers)
        ending.callback(server.kill)
        server.start()
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(WAIT)
            connection.connect(str(path))
            connection.sendall(GET_FILE)
            assert read(connection)[2] == server.file.read_bytes()
        assert f"listening on http://unix:{path}" in server.log()
        assert server.end() == 0
    assert not path.exists()


def test_a_unix_socket_takes_no_place_of_another(short: Path) -> None:
    path = short / "registry.sock"
    path.write_text("somebody's")
    with pytest.raises(ListenError, match=r"registry\.sock: expected no file or a socket there$"):
        listening(UnixAddress(path), 1).__enter__()
    assert path.read_text() == "somebody's"
    path.unlink()
    with listening(UnixAddress(path), 1):
        with pytest.raises(ListenError, match=r"registry\.sock: another server listens there$"):
            listening(UnixAddress(path), 1).__enter__()
        assert path.exists()
        path.unlink()
        path.write_text("another's")
    assert path.read_text() == "another's"
    for wrong in (short / "none" / "registry.sock", short / ("x" * 200)):
        with pytest.raises(ListenError, match=r"^cannot listen on unix:"):
            listening(UnixAddress(wrong), 1).__enter__()


def test_without_a_drain_time_downloads_are_cut_at_once(start: Any) -> None:
    server = start(drain_seconds=0)
    with server.connect(receive_buffer=4096) as connection:
        connection.sendall(GET_FILE)
        assert connection.recv(1)
        assert server.end() == 0
        assert len(read_all(connection)) < BIG


@pytest.mark.parametrize(
    ("bound", "host", "port", "reached"),
    [
        (TcpAddress("127.0.0.1", 5000), "127.0.0.1", 5000, True),
        (TcpAddress("127.0.0.1", 5000), "127.0.0.1", 5001, False),
        (TcpAddress("127.0.0.1", 5000), "127.0.0.2", 5000, False),
        (TcpAddress("::", 5000), "::ffff:127.0.0.1", 5000, True),
        (TcpAddress("0.0.0.0", 5000), "192.0.2.1", 5000, True),
        (TcpAddress.parse("[::1]:5000"), "::1", 5000, True),
    ],
)
def test_the_address_that_a_client_came_by_is_known(bound: TcpAddress, host: str, port: int, reached: bool) -> None:
    assert reaches(bound, host, port) == reached
    assert TcpAddress.parse(str(bound)) == bound
