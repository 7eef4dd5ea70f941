"""The metrics of the notifications, under Distribution's names."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from http import HTTPStatus

from ocispec.errors import StorageError
from registry.notifications.database import Figures
from registry.notifications.notifying import Notifications
from registry.observing.metrics import Family, Labels

_log = logging.getLogger("registry")


async def families(notifications: Notifications) -> Iterable[Family]:
    """Reads the figures of every endpoint. They are those of all processes, so each gives the same."""
    try:
        figures = await notifications.figures()
    except StorageError as error:
        _log.error("the figures of the notifications cannot be read: %s", error.message)
        return ()
    return _of(figures)


def _of(figures: Iterable[Figures]) -> Iterable[Family]:
    events: dict[Labels, float] = {}
    pending: dict[Labels, float] = {}
    statuses: dict[Labels, float] = {}
    for each in figures:
        endpoint = ("endpoint", each.endpoint)
        counts = ("Events", each.events), ("Successes", each.successes), ("Failures", each.failures)
        for kind, count in (*counts, ("Errors", each.errors), ("Dropped", each.dropped)):
            events[endpoint, ("type", kind)] = count
        pending[endpoint,] = each.pending
        for status, count in each.statuses:
            statuses[("code", _code(status)), endpoint] = count
    name = "registry_notifications"
    return (
        Family.counter(f"{name}_events", "Events that came, that were taken, that were not.", events, "max"),
        Family.gauge(f"{name}_pending_total", "Events that wait.", pending, "max"),
        Family.counter(f"{name}_status", "Answers of the endpoints.", statuses, "max"),
    )


def _code(status: int) -> str:
    """As Distribution has it: `200 OK`."""
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)
