"""The load: raw keep-alive sockets in a process of its own, so that its work is never taken for a server's.

`python -m bench.load JOB` prints `ready` when all is prepared and verified, waits for a line, does the job, and prints
what it moved: `{"amount": bytes or requests}`, and the `digest` of what it pushed.
"""

from __future__ import annotations

import hashlib
import json
import re
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import cycle
from typing import Any, Self

_HEAD_END = b"\r\n\r\n"
_PIECE = 1 << 20
_PATIENCE = 120.0  # seconds

Headers = Sequence[tuple[str, str]]
Answer = tuple[int, dict[str, str], bytes]
"""Status, headers (names in lower case), body."""


class Connection:
    """One keep-alive connection to a server on this machine."""

    def __init__(self, port: int) -> None:
        self._host = f"127.0.0.1:{port}"
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=_PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def head(self, method: str, path: str, headers: Headers = ()) -> bytes:
        named = "".join(f"{name}: {value}\r\n" for name, value in headers)
        return f"{method} {path} HTTP/1.1\r\nHost: {self._host}\r\n{named}\r\n".encode()

    def answer(self) -> Answer:
        """Returns the next answer, with what of its body came with its head."""
        received = b""
        while _HEAD_END not in received:
            received += self._receive()
        head, _, body = received.partition(_HEAD_END)
        first, *rest = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in rest)}
        return int(first.split()[1]), headers, body

    def ask(
        self, method: str, path: str, headers: Headers = (), body: bytes = b""
    ) -> tuple[int, dict[str, str], bytes]:
        """Returns the whole answer; `body` is sent where the method has one."""
        length = [] if method == "GET" else [("Content-Length", str(len(body)))]
        self.socket.sendall(self.head(method, path, [*headers, *length]) + body)
        status, told, begun = self.answer()
        received = bytearray(begun)
        while len(received) < int(told.get("content-length", 0)):
            received += self._receive()
        return status, told, bytes(received)

    def skip(self, head: bytes, size: int) -> None:
        """Asks, and reads the answer, which has to be a 200 with `size` bytes."""
        self.socket.sendall(head)
        status, headers, body = self.answer()
        if status != 200 or int(headers["content-length"]) != size:
            raise ConnectionError(f"answered with {status} and {headers}")
        left, buffer = size - len(body), bytearray(_PIECE)
        while left:
            received = self.socket.recv_into(buffer)
            if not received:
                raise ConnectionError(f"the body ended {left} bytes early")
            left -= received

    def expect(self, size: int) -> None:
        """Reads an answer whose body has `size` bytes, as cheaply as it can be done."""
        received = self._receive()
        while (end := received.find(_HEAD_END)) < 0 or len(received) < end + len(_HEAD_END) + size:
            received += self._receive()
        if not received.startswith(b"HTTP/1.1 200 ") or len(received) != end + len(_HEAD_END) + size:
            raise ConnectionError(f"unexpected answer {received[:200]!r}")

    def _receive(self) -> bytes:
        piece = self.socket.recv(1 << 16)
        if not piece:
            raise ConnectionError("the server closed the connection")
        return piece


def requests(
    *, port: int, paths: list[str], headers: Headers, digests: list[str], connections: int, seconds: float
) -> Iterator[dict[str, Any]]:
    """Asks for small things in turn on every connection, each again when it was answered."""
    opened = [Connection(port) for _ in range(connections)]
    asking = []
    for path, digest in zip(paths, digests, strict=True):
        status, _, body = opened[0].ask("GET", path, headers)
        _verify(digest, status, body)
        asking.append((opened[0].head("GET", path, headers), len(body)))
    yield {}
    turns, count, end = cycle(asking), 0, time.monotonic() + seconds
    while time.monotonic() < end:
        asked = [(connection, *next(turns)) for connection in opened]
        for connection, head, _ in asked:
            connection.socket.sendall(head)
        for connection, _, size in asked:
            connection.expect(size)
        count += len(asked)
    yield {"amount": count}


def download(*, port: int, path: str, size: int, digest: str, times: int) -> Iterator[dict[str, Any]]:
    """Fetches a blob some times, one after the other."""
    connection = Connection(port)
    status, _, body = connection.ask("GET", path)
    _verify(digest, status, body)
    del body
    head = connection.head("GET", path)
    yield {}
    for _ in range(times):
        connection.skip(head, size)
    yield {"amount": size * times}


def upload(*, port: int, repository: str, size: int, seed: int) -> Iterator[dict[str, Any]]:
    """Pushes a blob that the server does not have yet, by POST, PATCH and PUT."""
    running = hashlib.sha256()
    for piece in pieces(seed, size):
        running.update(piece)
    connection, digest = Connection(port), f"sha256:{running.hexdigest()}"
    yield {}
    push(connection, repository, digest, size, pieces(seed, size))
    yield {"amount": size, "digest": digest}


def push(connection: Connection, repository: str, digest: str, size: int, content: Iterator[bytes | bytearray]) -> None:
    """Pushes a blob of `size` bytes by POST, PATCH and PUT.

    Raises:
        ConnectionError: the server did not take it.
    """
    status, headers, _ = connection.ask("POST", f"/v2/{repository}/blobs/uploads/")
    _expect(202, status, headers)
    described = [("Content-Length", str(size)), ("Content-Type", "application/octet-stream")]
    connection.socket.sendall(connection.head("PATCH", _location(headers), described))
    for piece in content:
        connection.socket.sendall(piece)
    status, headers, _ = connection.answer()
    _expect(202, status, headers)
    location = _location(headers)
    joint = "&" if "?" in location else "?"
    status, headers, _ = connection.ask("PUT", f"{location}{joint}digest={digest}")
    _expect(201, status, headers)


def pieces(seed: int, size: int) -> Iterator[bytearray]:
    """Gives `size` bytes that depend on the seed, by pieces that are overwritten by the next."""
    piece = bytearray(hashlib.shake_128(seed.to_bytes(8)).digest(min(size, _PIECE)))
    for start in range(0, size, _PIECE):
        piece[:8] = start.to_bytes(8)
        yield piece[: size - start]


def _location(headers: dict[str, str]) -> str:
    return re.sub(r"^https?://[^/]*", "", headers["location"])


def _expect(wanted: int, status: int, headers: dict[str, str]) -> None:
    if status != wanted:
        raise ConnectionError(f"answered with {status} instead of {wanted}: {headers}")


def _verify(digest: str, status: int, body: bytes) -> None:
    if status != 200 or f"sha256:{hashlib.sha256(body).hexdigest()}" != digest:
        raise ConnectionError(f"answered with {status} and {len(body)} bytes that are not {digest}")


def main() -> None:
    job = json.loads(sys.argv[1])
    kinds = {"requests": requests, "download": download, "upload": upload}
    steps = kinds[job.pop("kind")](**job)
    next(steps)
    print("ready", flush=True)
    sys.stdin.readline()
    print(json.dumps(next(steps)), flush=True)


if __name__ == "__main__":
    main()
