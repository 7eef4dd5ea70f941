"""`serve` with one of the applications of tests.support.applications, in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

from tests.support.host import BIG, WAIT, read
from tests.support.processes import REPOSITORY_ROOT, Server

GET = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"
GET_FILE = GET.replace(b"/ ", b"/file ")
GET_SCOPE = GET.replace(b"/ ", b"/scope ")


class Application(Server):
    """`serve` with one of the applications of tests.support.applications."""

    def __init__(self, name: str, folder: Path, **options: Any) -> None:
        words = json.dumps({"drain_seconds": 30, "stall_seconds": WAIT, **options})
        self.file = folder / "file"
        self.file.write_bytes(os.urandom(BIG))
        command = [sys.executable, "-m", "tests.support.applications", name, words]
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
