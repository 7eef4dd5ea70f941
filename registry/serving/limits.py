"""What keeps one client, or many, from taking the registry away from all others: requests and connections are bounded.

A request over a client's share waits for a while, since docker gives up on 429 at once, and containerd asks again
without a pause. One over the room of a process is answered 503, which docker and others come back after.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv6Network
from typing import Any, Protocol

from ocispec.errors import TooManyRequests, Unavailable, envelope
from registry.context import Scope

Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_PATIENCE = 10.0
_LEAST_WAITING = 64
_RETRY_SECONDS = 5
_SILENCE = 60.0
_log = logging.getLogger("registry")


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a connection may ask of the server.

    Attributes:
        head_bytes: how many bytes it may send without completing a head, a piece of a body or a trailer.
        body_rate: bytes a second of a body that is waited for, over the time that a stall may last; 0 for one byte.
        connections: how many may be open; 0 for any number.
    """

    head_bytes: int = 1 << 16
    body_rate: int = 0
    connections: int = 0


def network(host: str) -> str:
    """Returns who counts as one client: an IPv4 address, or an IPv6 network of 64 bits, which any customer has."""
    return _network(host) if ":" in host else host


@lru_cache(4096)
def _network(host: str) -> str:
    try:
        return str(IPv6Network((host.partition("%")[0], 64), strict=False))
    except ValueError:
        return host


class LimitedRequests:
    """Lets so many requests of one client be in progress; plain ASGI, because every request pays for it.

    As many more, or 64 if those are more, wait for their turn, 10 seconds at most. Who comes by a UNIX socket has no
    address, and no limit.

    Args:
        most: how many requests of one client; more than 0.
    """

    def __init__(self, app: App, most: int) -> None:
        self._app = app
        self._most = most
        self._running: dict[str, int] = {}
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request.

        Raises:
            TooManyRequests: too many are in progress, or wait.
        """
        peer = scope.get("client")
        if not peer:
            await self._app(scope, receive, send)
            return
        client = network(peer[0])
        running = self._running.get(client, 0)
        if running < self._most:
            self._running[client] = running + 1
        else:
            await self._turn(client)
        try:
            await self._app(scope, receive, send)
        finally:
            self._end(client)

    async def _turn(self, client: str) -> None:
        """Takes over the place of a request that ends; a cancelled call has none."""
        waiting = self._waiting.setdefault(client, deque())
        if len(waiting) >= max(self._most, _LEAST_WAITING):
            raise self._too_many()
        turn = asyncio.get_running_loop().create_future()
        waiting.append(turn)
        try:
            async with asyncio.timeout(_PATIENCE):
                await turn
        except TimeoutError:
            if turn.cancelled():
                raise self._too_many() from None
        except asyncio.CancelledError:
            if not turn.cancelled():
                self._end(client)
            raise
        finally:
            waiting.remove(turn)
            if not waiting:
                del self._waiting[client]

    def _end(self, client: str) -> None:
        """Hands a place on to whoever has waited longest."""
        for turn in self._waiting.get(client, ()):
            if not turn.done():
                turn.set_result(None)
                return
        if self._running[client] == 1:
            del self._running[client]
        else:
            self._running[client] -= 1

    def _too_many(self) -> TooManyRequests:
        told = f"{self._most} requests of your address are in progress, and go on being so: ask again later"
        return TooManyRequests(told, headers={"Retry-After": str(_RETRY_SECONDS)})


class Connection(Protocol):
    def give_way(self) -> None:
        """Ends, and at once where nothing is left to be sent: no request is in progress."""


class Room:
    """The connections that a process has room for.

    Where there is none left, those give way that have waited longest for a request: idle ones, and those whose head
    does not get finished.

    Args:
        most: how many; 0 for any number.
    """

    def __init__(self, most: int = 0) -> None:
        self._most = most
        self._waiting: dict[Connection, None] = {}
        self._silent_until = 0.0

    def waits(self, connection: Connection) -> None:
        """A connection waits for a request, from now on."""
        self._waiting[connection] = None

    def works(self, connection: Connection) -> None:
        """It has one, or is gone."""
        self._waiting.pop(connection, None)

    def has_place(self, present: int) -> bool:
        """Whether there is room for the one that came last; another that waits may give way to it.

        Args:
            present: how many connections there are, with this one.
        """
        if not self._most or present <= self._most:
            return True
        self._tell()
        oldest = next(iter(self._waiting))
        if len(self._waiting) == 1:
            return False
        del self._waiting[oldest]
        oldest.give_way()
        return True

    def _tell(self) -> None:
        now = time.monotonic()
        if now >= self._silent_until:
            self._silent_until = now + _SILENCE
            _log.warning("%d connections are open, as many as there may be (layerhouse.limits.total)", self._most)


async def busy(_scope: Scope, _receive: Receive, send: Send) -> None:
    """Answers 503, for a connection that there is no room for."""
    body = json.dumps(envelope(Unavailable("too many connections are open: ask again later"))).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        (b"retry-after", b"%d" % _RETRY_SECONDS),
        (b"docker-distribution-api-version", b"registry/2.0"),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": Unavailable.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
