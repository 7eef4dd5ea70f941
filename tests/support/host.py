"""The registry's HTTP protocol on an event loop of its own thread, in front of any ASGI application."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Self

from uvicorn import Config
from uvicorn.server import ServerState

from registry.serving.exchange import PATHSEND
from registry.serving.limits import Bounds
from registry.serving.server import Connections

if TYPE_CHECKING:
    from registry.serving.tls import Certificates

WAIT = 30.0  # seconds until a test that waits for something gives up
BIG = 12 << 20  # bytes; more than the kernel's socket buffers take while nobody reads
GET = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"


class Host:
    """Serves `app` on a free port of 127.0.0.1 while used as a context manager.

    TLS is served as the registry does, by `certificates`, or as uvicorn does, by `tls`.
    """

    def __init__(
        self,
        app: Any,
        loop_factory: Callable[[], asyncio.AbstractEventLoop],
        *,
        keep_alive: float = WAIT,
        patience: float = WAIT,
        bounds: Bounds | None = None,
        send_buffer: int = 0,
        tls: ssl.SSLContext | None = None,
        certificates: Certificates | None = None,
    ) -> None:
        self.state = ServerState()
        self.address = ("", 0)
        self._config = Config(app, ws="none", interface="asgi3", proxy_headers=False, log_config=None)
        self._config.timeout_keep_alive = keep_alive  # type: ignore[assignment]  # call_later takes parts of a second
        self._config.load()
        self._tls = tls
        self._certificates = certificates
        self._patience, self._bounds = patience, bounds or Bounds()
        self._send_buffer = send_buffer
        self._connections = ExitStack()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=[loop_factory])

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(WAIT)
        return self

    def __exit__(self, *_: object) -> None:
        self._connections.close()
        self.run(self._stopping.set)
        self._thread.join(WAIT)

    def connect(self, receive_buffer: int = 0) -> socket.socket:
        """A connection to the server; a small `receive_buffer` (bytes) makes a reader that is soon full."""
        connection = self._connections.enter_context(socket.socket())
        if receive_buffer:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        connection.settimeout(WAIT)
        connection.connect(self.address)
        return connection

    def run(self, function: Callable[[], None]) -> None:
        """Call a function on the server's event loop."""
        self._loop.call_soon_threadsafe(function)

    def cancel_all(self) -> None:
        """What a shutdown does when the drain time is over."""
        self.run(lambda: [task.cancel() for task in self.state.tasks] and None)

    def _run(self, loop_factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        made = Connections(self._patience, self._certificates, bounds=self._bounds)
        protocol = partial(made, config=self._config, server_state=self.state, app_state={})
        server = await self._loop.create_server(protocol, "127.0.0.1", 0, ssl=self._tls)
        self.address = server.sockets[0].getsockname()
        if self._send_buffer:  # of the kernel, in bytes: connections inherit it
            server.sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self._send_buffer)
        self._ready.set()
        await self._stopping.wait()
        server.close()
        for connection in list(self.state.connections):
            connection.transport.abort()
        for task in list(self.state.tasks):
            with suppress(asyncio.CancelledError):
                await task


def open_files(folder: Path | None = None) -> int:
    """How many descriptors this process holds: all, or those of files below a folder."""
    found = []
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):
            found.append(entry.readlink())
    return len(found) if folder is None else sum(name.is_relative_to(folder) for name in found)


def sending(path: Path, **message: int) -> Any:
    """An application that answers everything with a file."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        size = message.get("count", path.stat().st_size - message.get("offset", 0))
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % size)]})
        await send({"type": PATHSEND, "path": str(path), **message})

    return app


def answering(body: bytes, status: int = 200, headers: Any = ()) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return app


def read(connection: socket.socket, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
    """The next answer, where no further one can be on its way."""
    with connection.makefile("rb") as stream:
        return next_answer(stream, method)


def next_answer(stream: BinaryIO, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
    status = int(stream.readline().split()[1])
    headers = dict(line.decode().strip().split(": ", 1) for line in iter(stream.readline, b"\r\n"))
    if method == "HEAD" or status in (204, 304):
        return status, headers, b""
    if headers.get("transfer-encoding") == "chunked":
        sizes = iter(lambda: int(stream.readline(), 16), 0)
        body = b"".join(stream.read(size + 2)[:-2] for size in sizes)
        assert stream.readline() == b"\r\n"
        return status, headers, body
    return status, headers, stream.read(int(headers["content-length"]))


def read_all(connection: socket.socket) -> bytes:
    """Everything until the server closes."""
    pieces = []
    try:
        while piece := connection.recv(1 << 20):
            pieces.append(piece)
    except ConnectionResetError:
        pass
    return b"".join(pieces)


def eventually(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def hang_up(connection: socket.socket) -> None:
    """Close with a reset, as a program that is killed."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def tls_files(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1, signed by itself, and its key."""
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    make = "openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1"
    subprocess.run([*make.split(), "-out", certificate, "-keyout", key], check=True, capture_output=True)
    return certificate, key
