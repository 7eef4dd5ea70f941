"""Who is told how the registry fares: the checks of its health, the metrics, and the reports to the debug address."""

from __future__ import annotations

from dataclasses import dataclass

from registry.config import Settings
from registry.observing.health import Health, health
from registry.observing.measured import MeasuredEngine
from registry.observing.metrics import Actions, Requests, Source, of_process
from registry.observing.reports import Reporter
from storage.engine import Engine


@dataclass(frozen=True, slots=True)
class Observation:
    """What observes one process that serves.

    Attributes:
        engine: the engine to use, whose calls are timed where there are metrics.
        requests: counts the requests; None where there are no metrics.
        sources: what else gives metrics may be appended.
        reporter: tells the process that started this one.
    """

    engine: Engine
    health: Health
    requests: Requests | None
    sources: list[Source]
    reporter: Reporter


def observe(settings: Settings, engine: Engine) -> Observation:
    """Returns what observes a registry over an engine; without metrics, it costs nothing."""
    watching, debug = health(settings, engine), settings.http.debug
    if not (debug.addr and debug.prometheus.enabled):
        return Observation(engine, watching, None, [], Reporter(watching, []))
    requests, actions = Requests(), Actions(settings.storage.driver)
    sources: list[Source] = [requests.families, actions.families, watching.families, of_process]
    return Observation(MeasuredEngine(engine, actions), watching, requests, sources, Reporter(watching, sources))
