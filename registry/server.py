"""Running the application: sockets, worker processes, and the way out."""

from __future__ import annotations

import logging
import multiprocessing
import signal
import socket
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType

import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

from ocispec.errors import LayerhouseError
from registry.protocol import RegistryProtocol

_log = logging.getLogger("registry")
_BACKLOG = 2048
_KEEP_ALIVE = 75
_START_SECONDS = 60
_HEALTH_SECONDS = 30


class ListenError(LayerhouseError):
    """The address cannot be listened on; the message names it and the cause."""

    code, summary = "LISTEN_FAILED", "cannot listen"


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """Where and how to serve.

    Attributes:
        host: address to listen on.
        port: 0 takes a free one.
        workers: how many processes serve.
        drain_seconds: how long running transfers may take to end after SIGTERM or SIGINT; then they are cut.
        stall_seconds: how long a client may take nothing of an answer, or send nothing of a body, until it is cut off.
        tls_certificate, tls_key: PEM files, both or neither.
    """

    host: str
    port: int
    workers: int = 1
    drain_seconds: float = 30.0
    stall_seconds: float = 300.0
    tls_certificate: Path | None = None
    tls_key: Path | None = None


def serve(factory: str, settings: ServerSettings) -> None:
    """Serve until SIGTERM or SIGINT, and return when running transfers have ended or were cut.

    One line `listening on http://HOST:PORT` is logged when every worker takes connections. A worker that dies is
    replaced; workers whose parent was killed end as if they had got its SIGTERM.

    Args:
        factory: `module:function` that gives the ASGI application, called once in each worker.
        settings: where and how.

    Raises:
        ListenError: the address is taken, or is none of this machine.
        SystemExit: the application did not start; the log tells why.
    """
    config = _config(factory, settings)
    with _listen(settings) as listening:
        line = f"listening on {_url(settings, listening)}"
        if settings.workers == 1:
            _Server(config, line).run([listening])
        else:
            _Supervisor(config, line, listening).run()


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

    def __init__(self, config: uvicorn.Config, line: str, listening: socket.socket) -> None:
        super().__init__(config, [listening])
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


async def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None and not parent.is_alive():
        signal.raise_signal(signal.SIGTERM)


def _listen(settings: ServerSettings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        # Listening from here on: who connects while the workers still start is served once they have.
        listening = socket.create_server((settings.host, settings.port), family=family, backlog=_BACKLOG)
    except OSError as error:
        cause = (error.strerror or str(error)).partition(" (while")[0]  # what follows names the address again
        raise ListenError(f"cannot listen on {_address(settings.host, settings.port)}: {cause}") from error
    # Connections inherit both: a client that lost its power does not hold its upload for ever, nor one that stopped
    # reading its download.
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(settings.stall_seconds * 1000))
    return listening


def _url(settings: ServerSettings, listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    scheme = "https" if settings.tls_certificate else "http"
    return f"{scheme}://{_address(host, port)}"


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _config(factory: str, settings: ServerSettings) -> uvicorn.Config:
    return uvicorn.Config(
        factory,
        factory=True,
        interface="asgi3",
        http=partial(RegistryProtocol, patience=settings.stall_seconds),  # type: ignore[arg-type]  # it is called only
        loop="uvloop",
        lifespan="on",
        ws="none",
        workers=settings.workers,
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=_BACKLOG,
        timeout_keep_alive=_KEEP_ALIVE,
        timeout_graceful_shutdown=max(1, round(settings.drain_seconds)),
        timeout_worker_healthcheck=_HEALTH_SECONDS,
        timeout_notify=1,
        callback_notify=_end_with_parent,
        ssl_certfile=settings.tls_certificate,
        ssl_keyfile=settings.tls_key,
    )
