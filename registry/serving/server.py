"""Running the application: sockets, worker processes, and the way out."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import resource
import signal
import socket
import sys
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from math import ceil
from types import FrameType
from typing import TYPE_CHECKING, Any

import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.server import ServerState
from uvicorn.supervisors import Multiprocess

from registry.config.tls import Tls
from registry.serving.limits import Bounds, Room
from registry.serving.listening import BACKLOG, Address, TcpAddress, bound, listening
from registry.serving.protocol import RegistryProtocol

if TYPE_CHECKING:
    from registry.serving.tls import Certificates

_log = logging.getLogger("registry")
_FILES = 1 << 20
_FILES_EACH = 3  # of a connection: its socket, the file that is sent, and a duplicate of the socket to send it by
_START_SECONDS = 60
_HEALTH_SECONDS = 30


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """Where and how to serve.

    Attributes:
        address: where to listen.
        workers: how many processes serve.
        drain_seconds: how long running transfers may take to end after SIGTERM or SIGINT; then they are cut.
        stall_seconds: how long a client may take nothing of an answer, or send nothing of a body, until it is cut off.
        head_seconds: how long a connection may take until a request's head is there.
        bounds: what a connection may ask for.
        tls: the files to serve TLS with; None for plain HTTP.
        plain: where to serve plain HTTP beside TLS.
    """

    address: Address
    workers: int = 1
    drain_seconds: float = 30.0
    stall_seconds: float = 300.0
    head_seconds: float = 75.0
    bounds: Bounds = field(default_factory=Bounds)
    tls: Tls | None = None
    plain: TcpAddress | None = None


def serve(factory: str, settings: ServerSettings) -> None:
    """Serve until SIGTERM or SIGINT, and return when running transfers have ended or were cut.

    One line `listening on http://HOST:PORT` is logged when every worker takes connections. A worker that dies is
    replaced; workers whose parent was killed end as if they had got its SIGTERM.

    Args:
        factory: `module:function` that gives the ASGI application, called once in each worker.
        settings: where and how.

    Raises:
        ListenError: an address is taken, or is none of this machine.
        TlsError: TLS cannot be served with these files.
        SystemExit: the application did not start; the log tells why.
    """
    certificates = _certificates(settings.tls)
    with ExitStack() as ending:
        sockets = [ending.enter_context(listening(settings.address, settings.stall_seconds))]
        urls = [f"{'https' if certificates else 'http'}://{bound(sockets[0])}"]
        plain = None
        if settings.plain is not None:
            sockets.append(ending.enter_context(listening(settings.plain, settings.stall_seconds)))
            plain = bound(sockets[1])
            urls.append(f"http://{plain}")
        bounds = replace(settings.bounds, connections=_most_connections(settings.bounds.connections))
        config = _config(factory, settings, Connections(settings.stall_seconds, certificates, plain, bounds))
        line = f"listening on {' and '.join(urls)}"
        if settings.workers == 1:
            _Server(config, line).run(sockets)
        else:
            _Supervisor(config, line, sockets).run()


@dataclass(frozen=True, slots=True)
class Connections:
    """Makes what speaks with a client, for each connection that uvicorn takes, and keeps what it serves TLS with fresh.

    It travels to the workers.

    Attributes:
        patience: seconds until a client is cut off that sends nothing of a body that is waited for.
        certificates: what to serve TLS with; None for plain HTTP.
        plain: the address where it is plain HTTP nevertheless.
        bounds: what each may ask for.
        room: those of a process that wait for a request.
    """

    patience: float
    certificates: Certificates | None = None
    plain: Address | None = None
    bounds: Bounds = field(default_factory=Bounds)
    room: Room = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "room", Room(self.bounds.connections))

    def __call__(self, *, server_state: ServerState, **uvicorns: Any) -> asyncio.Protocol:
        own = partial(RegistryProtocol, patience=self.patience, bounds=self.bounds, room=self.room)
        speak = partial(own, server_state=server_state, **uvicorns)
        if self.certificates is None:
            return speak()
        from registry.serving.handshake import Handshake  # noqa: PLC0415 - as below

        state = server_state
        return Handshake(speak, self.certificates, self.plain, state.connections, state.tasks, room=self.room)

    async def look_around(self) -> None:
        """What uvicorn calls each second."""
        if self.certificates is not None:
            await self.certificates.refresh()
        parent = multiprocessing.parent_process()
        if parent is not None and not parent.is_alive():
            signal.raise_signal(signal.SIGTERM)


def _most_connections(wanted: int) -> int:
    """Lets this process and its workers open as many files as they may, as Go does; returns what leaves enough."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = _FILES if hard == resource.RLIM_INFINITY else min(hard, _FILES)
    if files > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))
    return min(wanted, max(soft, files) // _FILES_EACH)


def _certificates(tls: Tls | None) -> Certificates | None:
    if tls is None:
        return None
    from registry.serving import tls as serving  # noqa: PLC0415 - reading certificates costs time and memory that TLS is worth

    serving.check(tls)
    return serving.Certificates(tls)


class _Server(uvicorn.Server):
    """The one process that serves; it ends with status 0 when it was asked to."""

    def __init__(self, config: uvicorn.Config, line: str) -> None:
        super().__init__(config)
        self._line = line

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        # uvicorn raises the signal again when it has ended: here it finds a handler that has nothing more to do.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._end)
        super().run(sockets)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        _log.info("%s", self._line)

    def _end(self, _number: int, _frame: FrameType | None) -> None:
        self.should_exit = True


class _Supervisor(Multiprocess):
    """The parent of several processes that serve."""

    def __init__(self, config: uvicorn.Config, line: str, sockets: list[socket.socket]) -> None:
        super().__init__(config, sockets)
        self._line = line
        self._started = False

    def init_processes(self) -> None:
        super().init_processes()
        self._started = all(each.wait_until_ready(_START_SECONDS) for each in self.processes)
        if self._started:
            _log.info("%s with %d workers", self._line, len(self.processes))

    def terminate_all(self) -> None:
        for each in self.sockets:
            each.close()  # or clients would connect to nobody while the workers end
        super().terminate_all()

    def run(self) -> None:
        super().run()
        if not self._started:
            sys.exit(STARTUP_FAILURE)


def _config(factory: str, settings: ServerSettings, connections: Connections) -> uvicorn.Config:
    return uvicorn.Config(
        factory,
        factory=True,
        interface="asgi3",
        http=connections,  # type: ignore[arg-type]  # it is called only
        loop="uvloop",
        lifespan="on",
        ws="none",
        workers=settings.workers,
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=settings.head_seconds,  # type: ignore[arg-type]  # call_later takes parts of a second
        timeout_graceful_shutdown=ceil(settings.drain_seconds),
        timeout_worker_healthcheck=_HEALTH_SECONDS,
        timeout_notify=1,
        callback_notify=connections.look_around,
    )
