"""Running the application: sockets, worker processes, and the way out."""

from __future__ import annotations

import logging
import signal
import socket
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import uvicorn
from uvicorn.supervisors import Multiprocess

from ocispec.errors import LayerhouseError
from registry.protocol import RegistryProtocol

_log = logging.getLogger("registry")
_BACKLOG = 2048
_KEEP_ALIVE = 75


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
        tls_certificate, tls_key: PEM files, both or neither.
    """

    host: str
    port: int
    workers: int = 1
    drain_seconds: float = 30.0
    tls_certificate: Path | None = None
    tls_key: Path | None = None


def serve(factory: str, settings: ServerSettings) -> None:
    """Serves until SIGTERM or SIGINT, then lets running transfers end.

    One line `listening on http://HOST:PORT` is logged when connections are taken.

    Args:
        factory: `module:function` that gives the ASGI application, once in each worker.
        settings: where and how.

    Raises:
        ListenError: the address is taken, or is none of this machine.
    """
    config = _config(factory, settings)
    with _listen(settings) as listening:
        scheme = "https" if settings.tls_certificate else "http"
        host, port = listening.getsockname()[:2]
        line = f"listening on {scheme}://{f'[{host}]' if ':' in host else host}:{port}"
        if settings.workers == 1:
            _Server(config, line).run([listening])
        else:
            _log.info("%s with %d workers", line, settings.workers)
            Multiprocess(config, [listening]).run()


class _Server(uvicorn.Server):
    """One process that serves; ends with status 0 when it was asked to."""

    def __init__(self, config: uvicorn.Config, line: str) -> None:
        super().__init__(config)
        self._line = line
        # uvicorn raises the signal again when it has ended: here it finds a handler that has nothing more to do.
        for each in (signal.SIGTERM, signal.SIGINT):
            signal.signal(each, self._end)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if not self.should_exit:
            _log.info("%s", self._line)

    def _end(self, _number: int, _frame: FrameType | None) -> None:
        self.should_exit = True


def _listen(settings: ServerSettings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        # Listening from here on: who connects while the workers still start is served once they have.
        listening = socket.create_server((settings.host, settings.port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise ListenError(f"cannot listen on {settings.host}:{settings.port}: {error.strerror or error}") from error
    listening.set_inheritable(True)
    return listening


def _config(factory: str, settings: ServerSettings) -> uvicorn.Config:
    return uvicorn.Config(
        factory,
        factory=True,
        http=RegistryProtocol,
        loop="uvloop",
        lifespan="on",
        ws="none",
        workers=settings.workers,
        log_config=None,
        access_log=False,
        server_header=False,
        backlog=_BACKLOG,
        timeout_keep_alive=_KEEP_ALIVE,
        timeout_graceful_shutdown=max(1, round(settings.drain_seconds)),
        ssl_certfile=settings.tls_certificate,
        ssl_keyfile=settings.tls_key,
    )
