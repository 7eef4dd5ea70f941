"""What passes between a mirror and one upstream: waits that it asks for, the requests that it still grants."""

from __future__ import annotations

import math
import re
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

from client.registries.retrying import retry_after
from client.wire.exchange import Request, Response, Transport
from ocispec.errors import RegistryError, TooManyRequests, Unavailable

# Docker Hub's limit is one of six hours; nobody is believed who asks for more.
LONGEST = 6 * 3600.0
_MOST_HOSTS = 64
_WAITS: Mapping[int, type[RegistryError]] = {429: TooManyRequests, 503: Unavailable}
_COUNT = re.compile(r"\d{1,12}", re.ASCII)


@dataclass(slots=True)
class Limits:
    """How many requests an upstream grants (`ratelimit-limit` and `-remaining`, as Docker Hub has them)."""

    limit: int | None = None
    remaining: int | None = None

    def learn(self, headers: Mapping[str, str]) -> None:
        """Takes over what an answer says."""
        self.limit = _count(headers.get("ratelimit-limit", ""), self.limit)
        self.remaining = _count(headers.get("ratelimit-remaining", ""), self.remaining)


class Waits:
    """Hosts that asked to be left alone (`Retry-After`), each until when."""

    def __init__(self) -> None:
        self._until: dict[str, tuple[float, int]] = {}

    def learn(self, host: str, status: int, headers: Mapping[str, str]) -> None:
        """Takes over what an answer asks for."""
        wanted = retry_after(headers) if status in _WAITS else None
        if wanted:
            now = time.monotonic()
            self._until = {each: kept for each, kept in self._until.items() if kept[0] > now}
            if len(self._until) < _MOST_HOSTS or host in self._until:
                self._until[host] = now + min(wanted, LONGEST), status

    def check(self, host: str) -> None:
        """Raises TooManyRequests or Unavailable while a host is to be left alone, and for how long."""
        until, status = self._until.get(host, (0.0, 429))
        left = until - time.monotonic()
        if left > 0:
            message = f"{host} asked to be left alone for {left:.0f} s more"
            raise _WAITS[status](message, headers={"Retry-After": str(math.ceil(left))})


class Watching:
    """Implements `client.wire.exchange.Transport` around another one.

    Every request of every kind passes here, so a wait that a host asked for holds for all of them.
    """

    def __init__(self, transport: Transport, limits: Limits, waits: Waits) -> None:
        self._transport = transport
        self._limits = limits
        self._waits = waits

    @asynccontextmanager
    async def send(self, request: Request) -> AsyncIterator[Response]:
        asked = urlsplit(request.url).netloc
        self._waits.check(asked)
        async with self._transport.send(request) as response:
            self._limits.learn(response.headers)
            self._waits.learn(urlsplit(response.url).netloc, response.status, response.headers)
            yield response

    async def aclose(self) -> None:
        await self._transport.aclose()


def _count(text: str, known: int | None) -> int | None:
    """Reads `100;w=21600`."""
    match = _COUNT.match(text.strip())
    return int(match[0]) if match else known
