"""Notifications: what happened goes into the queue, and from there to the endpoints."""

from __future__ import annotations

import asyncio
import logging

from ocispec.errors import StorageError
from registry.config import Settings
from registry.config.notifications import Endpoint
from registry.events import Event, What
from registry.leadership import lead
from registry.notifications.database import Entry, Figures
from registry.notifications.envelope import Envelopes, Source, media_type
from registry.notifications.queue import Queue
from registry.notifications.sending import Sender
from registry.outgoing import Outgoing
from storage.threads import finish

_log = logging.getLogger("registry")
QUEUE = "notifications.sqlite"
_TIMEOUT = 1.0
_RETRY_SECONDS = 5.0


class Filter:
    """Which events an endpoint wants."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint.name
        self._actions = frozenset(endpoint.ignore.actions)
        self._media_types = frozenset((*endpoint.ignoredmediatypes, *endpoint.ignore.mediatypes))

    def takes(self, action: str, media_type: str) -> bool:
        return action not in self._actions and media_type not in self._media_types


class Notifications:
    """Implements `registry.events.Listener` for the endpoints of the configuration."""

    def __init__(self, settings: Settings) -> None:
        self._endpoints = settings.notifications.endpoints
        self._active = [each for each in self._endpoints if not each.disabled]
        self._filters = [Filter(each) for each in self._active]
        references = settings.notifications.events.includereferences
        self._envelopes = Envelopes(Source.here(settings.http.addr), references)
        self._file = settings.state_directory / QUEUE
        self._queue = Queue(self._file, settings.layerhouse.notifications.limit)

    @property
    def wanted(self) -> bool:
        """Whether there is an endpoint to tell."""
        return bool(self._filters)

    async def happened(self, event: Event) -> None:
        kind = media_type(event)
        names = [each.endpoint for each in self._filters if each.takes(event.what, kind)]
        if not names:
            return
        reads = self._envelopes.references and event.target.manifest is not None
        envelope = await finish(self._envelopes.render, event) if reads else self._envelopes.render(event)
        await self._queue.put([Entry(name, envelope) for name in names], durable=event.what is not What.PULL)

    async def figures(self) -> list[Figures]:
        """How each endpoint fares that ever had an event; raises StorageError."""
        return await self._queue.figures() if self._file.exists() else []

    async def run(self) -> None:
        """Writes the queue and sends what is in it, until cancelled; one process sends for all.

        Where nobody is configured to be told, it forgets what waits for those who were, and ends.
        """
        if not self.wanted and not self._file.exists():
            return
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._lead())
                if self.wanted:
                    tasks.create_task(self._queue.run())
        finally:
            await self._queue.close()

    async def _lead(self) -> None:
        told = ""
        while True:
            try:
                return await lead(self._file.with_suffix(".lock"), self._send)
            except StorageError as error:
                if error.message != told:
                    _log.error("no events are sent: %s", error.message)
                told = error.message
            await asyncio.sleep(_RETRY_SECONDS)

    async def _send(self) -> None:
        for name, pending in (await self._queue.keep([each.name for each in self._endpoints])).items():
            _log.warning("endpoint %s is not configured any more: %d events for it are not sent", name, pending)
        async with Outgoing(_TIMEOUT) as outgoing, asyncio.TaskGroup() as tasks:
            for each in self._active:
                tasks.create_task(Sender(each, self._queue, outgoing).run())
