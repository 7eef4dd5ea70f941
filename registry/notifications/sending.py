"""Sending an endpoint its events: one after the other, again until it takes them, and with pauses where it does not."""

from __future__ import annotations

import asyncio
import logging
import random
from urllib.parse import urljoin, urlsplit

from ocispec.errors import HostUnreachable, ResponseInvalid, StorageError
from registry.config.notifications import Endpoint
from registry.notifications.database import Head
from registry.notifications.envelope import MEDIA_TYPE
from registry.notifications.queue import Queue
from registry.outgoing import Answer, Outgoing, shown

_log = logging.getLogger("registry")
# Events that another process queues are seen this late.
_POLL_SECONDS = 0.25
_STORAGE_SECONDS = 1.0
# Whatever is configured: nobody is asked more often than this once he failed `threshold` times.
_SHORTEST_PAUSE = 0.05
_JITTER = 0.1
_REDIRECTS = 5
_MANY = 1000


class Breaker:
    """Distribution's circuit breaker: after `threshold` failures in a row there is a pause before each further try.

    Args:
        threshold: how many failures.
        backoff: seconds of the pause, which is up to a tenth longer so that many registries do not come at once.
    """

    def __init__(self, threshold: int, backoff: float) -> None:
        self._threshold, self._backoff = threshold, max(backoff, _SHORTEST_PAUSE)
        self._failures = 0

    @property
    def is_open(self) -> bool:
        return self._failures >= self._threshold

    @property
    def pause(self) -> float:
        """Seconds to wait before the next try."""
        return self._backoff * random.uniform(1, 1 + _JITTER) if self.is_open else 0.0  # noqa: S311 - no secret

    def failed(self) -> None:
        self._failures += 1

    def succeeded(self) -> None:
        self._failures = 0


class Depth:
    """Tells the log when a queue has grown: at 1000, 2000, 4000 events and so on."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self._next = _MANY

    def is_now(self, pending: int) -> None:
        if pending >= self._next:
            _log.warning("endpoint %s: %d events wait", self._endpoint, pending)
            while self._next <= pending:
                self._next *= 2
        elif pending < _MANY // 2:
            self._next = _MANY


class Sender:
    """Sends one endpoint its events; a single one among all processes may run."""

    def __init__(self, endpoint: Endpoint, queue: Queue, outgoing: Outgoing) -> None:
        self._endpoint = endpoint
        self._queue = queue
        self._outgoing = outgoing
        self._bell = queue.bell()
        self._breaker = Breaker(endpoint.threshold, endpoint.backoff.total_seconds())
        self._depth = Depth(endpoint.name)
        self._is_open = False
        # What the endpoint took while the queue's file could not be written is not sent again for that.
        self._taken: tuple[int, int] | None = None

    async def run(self) -> None:
        """Sends until cancelled: an event that is being sent then is sent again by whoever runs next."""
        is_stuck = False
        while True:
            try:
                head = await self._queue.head(self._endpoint.name)
                while head:
                    head = await self._send(head)
                is_stuck = False
            except StorageError as error:
                if not is_stuck:
                    _log.error("endpoint %s is sent nothing: %s", self._endpoint.name, error.message)
                is_stuck = True
                await asyncio.sleep(_STORAGE_SECONDS)
            await self._wait()

    async def _wait(self) -> None:
        try:
            async with asyncio.timeout(_POLL_SECONDS):
                await self._bell.wait()
        except TimeoutError:
            return
        self._bell.clear()

    async def _send(self, head: Head) -> Head | None:
        """Tries once to send an event; returns the one to send next, which is the same where it failed."""
        name = self._endpoint.name
        self._depth.is_now(head.pending)
        if self._taken is None or self._taken[0] != head.number:
            status, cause = await self._post(head.envelope)
            if status is None or cause:
                self._failed(cause, head.pending)
                await self._queue.refused(name, status, cause)
                await asyncio.sleep(self._breaker.pause)
                return await self._queue.head(name)
            self._taken = head.number, status
        self._succeeded(head.pending)
        return await self._queue.took(name, *self._taken)

    async def _post(self, envelope: bytes) -> tuple[int | None, str]:
        """Returns the status, if there was an answer, and why it was no success; empty where it was one."""
        try:
            answer = await self._follow(envelope)
        except (HostUnreachable, ResponseInvalid) as error:
            return None, error.message
        # As Distribution has it, 3xx is a success too.
        return answer.status, "" if 200 <= answer.status < 400 else f"it answered {answer.status}"

    async def _follow(self, envelope: bytes) -> Answer:
        """Posts where a redirect leads to; 303 and such as lead nowhere are answers like any other."""
        url, given = self._endpoint.url, self._endpoint.headers
        headers = {name: [each.get_secret_value() for each in values] for name, values in given.items()}
        seconds = self._endpoint.timeout.total_seconds()
        for _ in range(_REDIRECTS):
            own = {"Content-Type": [MEDIA_TYPE], **headers}
            answer = await self._outgoing.ask("POST", url, own, envelope, timeout=seconds, cut=True)
            if answer.status not in (301, 302, 307, 308) or "location" not in answer.headers:
                return answer
            target = urljoin(url, answer.headers["location"])
            here, there = urlsplit(url), urlsplit(target)
            if here.scheme == "https" != there.scheme:
                raise ResponseInvalid(f"{shown(url)} redirects to {shown(target)}: events would go there unencrypted")
            if there[:2] != here[:2]:
                headers = {}  # what is secret is for the configured host alone
            url = target
        raise ResponseInvalid(f"{shown(self._endpoint.url)} redirects more than {_REDIRECTS} times")

    def _failed(self, cause: str, pending: int) -> None:
        self._breaker.failed()
        if self._breaker.is_open and not self._is_open:
            self._is_open = True
            pause = self._endpoint.backoff.total_seconds()
            message = "endpoint %s takes no events: %s; it is asked every %g s, and %d wait"
            _log.warning(message, self._endpoint.name, cause, pause, pending)

    def _succeeded(self, pending: int) -> None:
        self._breaker.succeeded()
        if self._is_open:
            self._is_open = False
            _log.info("endpoint %s takes events again: %d wait", self._endpoint.name, pending)
