"""A real HTTP server that takes notifications: one that fails, stalls, hangs up, goes away and comes back."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

WITHIN = 30.0  # seconds; a machine that runs other work beside


@dataclass(frozen=True, slots=True)
class Delivery:
    """One request that came, and the event in it."""

    path: str
    headers: Mapping[str, str]
    envelope: Any = field(repr=False)

    @property
    def event(self) -> Any:
        (event,) = self.envelope["events"]
        return event


class Receiver:
    """Answers with `status`, or as `behave` says, and remembers everything that came.

    Attributes:
        came: every request, also those that were answered with a failure.
        taken: the events that were answered with a success, in the order in which they came.
        behave: what happens before each answer: it may return another status, "drop" or "stall".
    """

    def __init__(self, behave: Callable[[Delivery], int | str] = lambda _delivery: 200) -> None:
        self.came: list[Delivery] = []
        self.taken: list[Any] = []
        self.behave = behave
        self.headers: dict[str, str] = {}
        self.body = b""
        self._changed = threading.Condition()
        self._released = threading.Event()
        self._server: ThreadingHTTPServer | None = None
        self._port = 0
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/events"

    @property
    def ids(self) -> list[str]:
        return [event["id"] for event in self.taken]

    @property
    def actions(self) -> list[str]:
        return [event["action"] for event in self.taken]

    def start(self) -> None:
        """Listens: at a free port first, later where it was."""
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                with suppress(OSError):
                    receiver._answer(self)

            def log_message(self, *words: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *words: Any) -> None:
                pass

        self._released.clear()
        self._server = Server(("127.0.0.1", self._port), Handler)
        self._port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        """Goes away: who comes is refused."""
        self._released.set()
        if self._server:
            self._server.shutdown()
            self._server.server_close()
        self._server = None

    def wait(self, condition: Callable[[Receiver], bool]) -> None:
        with self._changed:
            if not self._changed.wait_for(lambda: condition(self), WITHIN):
                raise AssertionError(f"came: {[each.event['action'] for each in self.came]}, taken: {self.actions}")

    def wait_taken(self, count: int) -> list[Any]:
        """The events that were taken, once there are that many."""
        self.wait(lambda found: len(found.taken) >= count)
        return self.taken

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers.get("content-length", 0)))
        delivery = Delivery(request.path, _joined(request), json.loads(body))
        with self._changed:
            self.came.append(delivery)
            answer = self.behave(delivery)
            if isinstance(answer, int) and answer < 400:
                self.taken.append(delivery.event)
            self._changed.notify_all()
        if answer == "stall":
            self._released.wait(WITHIN)
        if not isinstance(answer, int):
            request.close_connection = True
            request.connection.close()
            return
        request.send_response(answer)
        for name, value in {**self.headers, "Content-Length": str(len(self.body))}.items():
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(self.body)


def receiving() -> Iterator[Receiver]:
    """For a fixture."""
    receiver = Receiver()
    yield receiver
    receiver.stop()


def _joined(request: BaseHTTPRequestHandler) -> dict[str, str]:
    return {name.lower(): ", ".join(request.headers.get_all(name, ())) for name in request.headers}
