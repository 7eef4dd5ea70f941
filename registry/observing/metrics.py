"""What Prometheus reads: Distribution's names and labels, and some of ours. `docs/observability.md` lists them.

Counting is plain arithmetic in the process that serves, a few microseconds for a request: a library's counter for each
of Distribution's five figures would cost ten. Labels are bounded: what a request asks for is one of `HANDLERS`, never
a repository's name or a path. A `Family` is a metric at one moment; those of several processes become one (`merged`),
and prometheus-client writes them out (`exposition`).
"""

from __future__ import annotations

import platform
import time
from bisect import bisect_left
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 60.0)
_STORAGE_SECONDS = _SECONDS[:11]
_BYTES = tuple(float(1024 << exponent) for exponent in range(22))
HANDLERS = ("base", "blob", "blob_upload", "blob_upload_chunk", "catalog", "manifest", "referrers", "tags", "other")
"""Distribution's names of what may be asked for; `referrers` and `other` are ours."""
_KINDS = {"manifests": "manifest", "blobs": "blob", "referrers": "referrers"}
_METHODS = {each: each.lower() for each in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")}

_JOINS: dict[str, Callable[[tuple[float, float]], float]] = {"sum": sum, "max": max, "min": min}

Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Family:
    """A metric at one moment.

    Attributes:
        name: without the suffix of its samples (`_total`, `_bucket`, …).
        kind: counter, gauge or histogram.
        samples: each sample's name, labels and value.
        joined: how the values of several processes become one: sum, max or min.
    """

    name: str
    kind: str
    help: str
    samples: tuple[tuple[str, Labels, float], ...]
    joined: str = "sum"

    @classmethod
    def counter(cls, name: str, help_: str, values: Mapping[Labels, float], joined: str = "sum") -> Family:
        samples = tuple((f"{name}_total", labels, value) for labels, value in values.items())
        return cls(name, "counter", help_, samples, joined)

    @classmethod
    def gauge(cls, name: str, help_: str, values: Mapping[Labels, float], joined: str = "sum") -> Family:
        return cls(name, "gauge", help_, tuple((name, *each) for each in values.items()), joined)

    @property
    def lasting(self) -> bool:
        """Whether what a process counted still counts when it has ended."""
        return self.kind != "gauge" and self.joined == "sum"


Source = Callable[[], Awaitable[Iterable[Family]]]
"""Gives families when somebody reads; what goes wrong, it logs."""


class Histogram:
    """Counts observations by their size."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def samples(self, name: str, labels: Labels) -> Iterable[tuple[str, Labels, float]]:
        reached = 0
        for bound, count in zip((*map(_bound, self.bounds), "+Inf"), self.counts, strict=True):
            reached += count
            yield f"{name}_bucket", (*labels, ("le", bound)), reached
        yield f"{name}_sum", labels, self.total
        yield f"{name}_count", labels, reached


@dataclass(slots=True)
class Handled:
    """The requests for one kind of thing."""

    running: int = 0
    received: Histogram = field(default_factory=lambda: Histogram(_BYTES))
    sent: Histogram = field(default_factory=lambda: Histogram(_BYTES))
    seconds: dict[str, Histogram] = field(default_factory=dict)
    answers: dict[tuple[str, int], int] = field(default_factory=dict)

    def ended(self, method: str, status: int, seconds: float, received: int, sent: int) -> None:
        """Counts a request that was answered; a status of 0 says that the client left before."""
        self.running -= 1
        method = _METHODS.get(method, "unknown")
        self.answers[method, status] = self.answers.get((method, status), 0) + 1
        durations = self.seconds.get(method)
        if durations is None:
            durations = self.seconds[method] = Histogram(_SECONDS)
        durations.observe(seconds)
        self.received.observe(received)
        self.sent.observe(sent)


class Requests:
    """Counts the requests of one process."""

    def __init__(self) -> None:
        self._handled = {name: Handled() for name in HANDLERS}

    def began(self, path: str) -> Handled:
        """Counts a request that begins; who answers it says when it ended."""
        handled = self._handled[handler(path)]
        handled.running += 1
        return handled

    async def families(self) -> Iterable[Family]:
        name, by_handler = "registry_http", [((("handler", name),), each) for name, each in self._handled.items()]
        seen = [(labels, each) for labels, each in by_handler if each.answers]
        answers: dict[Labels, float] = {
            (("code", str(status)), *labels, ("method", method)): float(count)
            for labels, each in seen
            for (method, status), count in each.answers.items()
        }
        seconds = [((*labels, ("method", method)), each) for labels, of in seen for method, each in of.seconds.items()]
        running: dict[Labels, float] = {labels: float(each.running) for labels, each in by_handler}
        received, sent = ([(labels, getattr(each, way)) for labels, each in seen] for way in ("received", "sent"))
        return (
            Family.counter(f"{name}_requests", "Requests that were answered; code 0: the client left before.", answers),
            Family.gauge(f"{name}_in_flight_requests", "Requests that are being answered.", running),
            _histogram(f"{name}_request_duration_seconds", "From a request to its answer's last byte.", seconds),
            _histogram(f"{name}_request_size_bytes", "Bytes of the bodies of requests.", received),
            _histogram(f"{name}_response_size_bytes", "Bytes of the bodies of answers.", sent),
            Family.counter(
                "registry_received_bytes", "Bytes that clients sent.", {(): sum(h.total for _, h in received)}
            ),
            Family.counter("registry_sent_bytes", "Bytes that clients were sent.", {(): sum(h.total for _, h in sent)}),
        )


class Actions:
    """Counts what is asked of the storage."""

    def __init__(self, driver: str) -> None:
        self._driver = driver
        self._seconds: dict[str, Histogram] = {}

    def took(self, action: str, began: float) -> None:
        """Counts an action of Distribution's name that began at this `time.perf_counter()` and has ended."""
        seconds = self._seconds.get(action)
        if seconds is None:
            seconds = self._seconds[action] = Histogram(_STORAGE_SECONDS)
        seconds.observe(time.perf_counter() - began)

    async def families(self) -> Iterable[Family]:
        each = [((("action", action), ("driver", self._driver)), seconds) for action, seconds in self._seconds.items()]
        return (_histogram("registry_storage_action_seconds", "What the actions of the storage took.", each),)


def handler(path: str) -> str:
    """Returns which of `HANDLERS` a path is for."""
    head, _, last = path.rpartition("/")
    kind = head.rpartition("/")[2]
    if kind == "uploads":
        return "blob_upload_chunk" if last else "blob_upload"
    if kind in _KINDS:
        return "blob_upload" if (kind, last) == ("blobs", "uploads") else _KINDS[kind]
    if kind == "v2":
        return {"": "base", "_catalog": "catalog"}.get(last, "other")
    return "tags" if (kind, last) == ("tags", "list") else "base" if last == "v2" else "other"


async def of_process() -> Iterable[Family]:
    """Processor time, memory and descriptors of this process, as prometheus-client has them; which build it is."""
    from prometheus_client.process_collector import ProcessCollector  # noqa: PLC0415 - a tenth of a second, when asked

    joined = {"process_start_time_seconds": "min", "process_max_fds": "min"}
    found = [
        Family(
            each.name,
            each.type,
            each.documentation,
            tuple((sample.name, (), sample.value) for sample in each.samples),
            joined.get(each.name, "sum"),
        )
        for each in ProcessCollector(registry=None).collect()
    ]
    build: dict[Labels, float] = {(("python", platform.python_version()), ("version", version("layerhouse"))): 1.0}
    about = Family.gauge("registry_build_info", "Which build this is.", build, "max")
    return (*found, about, Family.gauge("registry_workers", "Processes that serve.", {(): 1.0}))


def merged(reports: Iterable[Iterable[Family]]) -> list[Family]:
    """Makes the families of several processes one set."""
    found: dict[str, Family] = {}
    for family in (each for report in reports for each in report):
        before = found.get(family.name)
        found[family.name] = family if before is None else _joined(before, family)
    return list(found.values())


def exposition(families: Iterable[Family], accept: str) -> tuple[bytes, str]:
    """Returns the text that a scraper reads, in the newest form that it accepts, and its media type."""
    from prometheus_client import CollectorRegistry, Metric  # noqa: PLC0415 - a tenth of a second, when asked
    from prometheus_client.exposition import choose_encoder  # noqa: PLC0415 - as above
    from prometheus_client.registry import Collector  # noqa: PLC0415 - as above

    class Read(Collector):
        def collect(self) -> Iterable[Metric]:
            for family in families:
                metric = Metric(family.name, family.help, family.kind)
                for name, labels, value in family.samples:
                    metric.add_sample(name, dict(labels), value)
                yield metric

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Read())
    encode, media_type = choose_encoder(accept)
    return encode(registry), media_type


def _joined(one: Family, other: Family) -> Family:
    values: dict[tuple[str, Labels], float] = {(name, labels): value for name, labels, value in one.samples}
    for name, labels, value in other.samples:
        values[name, labels] = _JOINS[one.joined]((values[name, labels], value)) if (name, labels) in values else value
    return Family(one.name, one.kind, one.help, tuple((*key, value) for key, value in values.items()), one.joined)


def _histogram(name: str, help_: str, histograms: Iterable[tuple[Labels, Histogram]]) -> Family:
    samples = (sample for labels, each in histograms for sample in each.samples(name, labels))
    return Family(name, "histogram", help_, tuple(samples))


def _bound(bound: float) -> str:
    """As Go writes it, so that series go on where Distribution's were."""
    if bound < 1e6:
        return f"{bound:g}"
    mantissa, _, exponent = f"{bound:.17e}".partition("e")
    return f"{float(mantissa)!r}e{exponent}"
