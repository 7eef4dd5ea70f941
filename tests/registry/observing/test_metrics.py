"""The metrics, as a scraper reads them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text

from registry.config import Settings
from registry.notifications.database import Figures
from registry.notifications.families import families as of_notifications
from registry.observing.composition import observe
from registry.observing.measured import MeasuredEngine
from registry.observing.metrics import (
    HANDLERS,
    Actions,
    Family,
    Histogram,
    Requests,
    exposition,
    handler,
    merged,
    of_process,
)
from storage.memory import MemoryEngine
from tests.support.api import serving
from tests.support.images import sha256

OBSERVED = Settings.model_validate(
    {"http": {"debug": {"addr": "127.0.0.1:0", "prometheus": {"enabled": True}}}, "storage": {"inmemory": {}}}
)
# As docker-registry writes them.
SECONDS = ("0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "2.5", "5", "10", "25", "60", "+Inf")
BYTES = (
    *("1024", "2048", "4096", "8192", "16384", "32768", "65536", "131072", "262144", "524288", "1.048576e+06"),
    *("2.097152e+06", "4.194304e+06", "8.388608e+06", "1.6777216e+07", "3.3554432e+07", "6.7108864e+07"),
    *("1.34217728e+08", "2.68435456e+08", "5.36870912e+08", "1.073741824e+09", "2.147483648e+09", "+Inf"),
)

Values = dict[tuple[str, frozenset[tuple[str, str]]], float]
request = st.tuples(
    st.sampled_from(["/v2/", "/v2/_catalog", "/v2/a/manifests/b", "/v2/a/blobs/uploads/1", "/x"]),
    st.sampled_from(["GET", "PUT", "BREW"]),
    st.sampled_from([0, 200, 404, 503]),
    st.integers(0, 100).map(float),
    st.integers(0, 1 << 33),
)


def values(families: Iterable[Family]) -> Values:
    """What a scraper makes of families."""
    text, media_type = exposition(families, "")
    assert media_type.startswith("text/plain")
    return {(s.name, frozenset(s.labels.items())): s.value for each in read_text(text.decode()) for s in each.samples}


def value(found: Values, name: str, **labels: str) -> float:
    return found[name, frozenset(labels.items())]


def count(requests: Requests, answered: Iterable[tuple[str, str, int, float, int]]) -> list[Family]:
    for path, method, status, seconds, size in answered:
        requests.began(path).ended(method, status, seconds, size, size)
    return list(asyncio.run(requests.families()))


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/v2/", "base"),
        ("/v2", "base"),
        ("/v2/_catalog", "catalog"),
        ("/registry/v2/", "base"),
        ("/registry/v2/_catalog", "catalog"),
        ("/v2/a/manifests/b", "manifest"),
        ("/v2/a/b/manifests/sha256:ab", "manifest"),
        ("/v2/a/blobs/sha256:ab", "blob"),
        ("/v2/a/blobs/uploads/", "blob_upload"),
        ("/v2/a/blobs/uploads", "blob_upload"),
        ("/v2/a/blobs/uploads/0-0", "blob_upload_chunk"),
        ("/v2/a/referrers/sha256:ab", "referrers"),
        ("/v2/a/tags/list", "tags"),
        ("/v2/tags", "other"),
        ("/", "other"),
        ("", "other"),
    ],
)
def test_a_path_is_counted_under_distributions_name_for_it(path: str, name: str) -> None:
    assert handler(path) == name


@given(st.lists(st.sampled_from(["", "v2", "blobs", "manifests", "uploads", "tags", "list"]) | st.text(max_size=9)))
def test_no_path_makes_a_label_of_its_own(segments: list[str]) -> None:
    assert handler("/".join(segments)) in HANDLERS


@given(st.lists(st.floats(0, 1e10)), st.lists(st.floats(0, 1e9), min_size=1, max_size=5, unique=True).map(sorted))
def test_a_histogram_counts_what_is_not_above_each_bound(observed: list[float], bounds: list[float]) -> None:
    histogram = Histogram(tuple(bounds))
    for each in observed:
        histogram.observe(each)
    *buckets, total, number = [figure for _, _, figure in histogram.samples("x", ())]
    assert buckets == [sum(each <= bound for each in observed) for bound in (*bounds, float("inf"))]
    assert total == pytest.approx(sum(observed))
    assert number == len(observed)


def test_bounds_are_written_as_distribution_writes_them() -> None:
    found = count(Requests(), [("/v2/", "GET", 200, 0.1, 2)])
    for name, bounds in (("duration_seconds", SECONDS), ("size_bytes", BYTES)):
        (family,) = [each for each in found if each.name == f"registry_http_request_{name}"]
        assert [dict(labels)["le"] for _, labels, _ in family.samples if "le" in dict(labels)] == list(bounds)


def test_requests_are_counted_by_handler_method_and_code() -> None:
    requests = Requests()
    requests.began("/v2/a/blobs/uploads/1")
    found = values(
        count(
            requests,
            [
                ("/v2/a/manifests/b", "GET", 200, 0.02, 0),
                ("/v2/a/manifests/c", "GET", 200, 0.3, 500),
                ("/v2/c/manifests/b", "GET", 404, 0.02, 1),
                ("/v2/c/manifests/b", "FORGED", 405, 0.02, 0),
            ],
        )
    )
    manifest = {"handler": "manifest", "method": "get"}
    assert value(found, "registry_http_requests_total", code="200", **manifest) == 2
    assert value(found, "registry_http_requests_total", code="404", **manifest) == 1
    assert value(found, "registry_http_requests_total", code="405", handler="manifest", method="unknown") == 1
    assert value(found, "registry_http_request_duration_seconds_bucket", le="0.1", **manifest) == 2
    assert value(found, "registry_http_request_duration_seconds_count", **manifest) == 3
    assert value(found, "registry_http_response_size_bytes_sum", handler="manifest") == 501
    assert value(found, "registry_http_in_flight_requests", handler="blob_upload_chunk") == 1
    assert value(found, "registry_http_in_flight_requests", handler="manifest") == 0
    assert value(found, "registry_sent_bytes_total") == value(found, "registry_received_bytes_total") == 501


@settings(max_examples=30)
@given(st.lists(st.lists(request, max_size=8), min_size=1, max_size=3))
def test_what_several_processes_counted_is_what_one_would_have(shares: list[list[tuple[str, str, int, float, int]]]):
    apart = [count(Requests(), share) for share in shares]
    together = count(Requests(), [each for share in shares for each in share])
    assert values(merged(apart)) == values(together)


def test_gauges_are_joined_as_they_say_and_do_not_outlast_their_process() -> None:
    one, two = [
        [
            Family.gauge("added", "", {(): number}),
            Family.gauge("least", "", {(): number}, "min"),
            Family.gauge("most", "", {(("of", "a"),): number}, "max"),
            Family.counter("counted", "", {(): number}),
            Family.counter("shared", "", {(): number}, "max"),
        ]
        for number in (2.0, 5.0)
    ]
    found = values(merged([one, two]))
    assert {name: figure for (name, _), figure in found.items()} == {
        "added": 7,
        "least": 2,
        "most": 5,
        "counted_total": 7,
        "shared_total": 5,
    }
    assert [each.name for each in one if each.lasting] == ["counted"]


async def test_the_process_tells_of_itself() -> None:
    found = values(merged([await of_process(), await of_process()]))
    names = {name for name, _ in found}
    assert {"process_cpu_seconds_total", "process_resident_memory_bytes", "process_start_time_seconds"} <= names
    assert value(found, "registry_workers") == 2
    assert value(found, "process_start_time_seconds") < 4e9
    assert [figure for (name, _), figure in found.items() if name == "registry_build_info"] == [1]


async def test_a_scraper_that_prefers_openmetrics_gets_it() -> None:
    accept = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2"
    text, media_type = exposition(await of_process(), accept)
    assert media_type.startswith("application/openmetrics-text")
    assert "process_cpu_seconds" in {each.name for each in read_openmetrics(text.decode())}


async def test_what_is_asked_of_storage_is_timed_under_distributions_names() -> None:
    actions = Actions("inmemory")
    engine = MeasuredEngine(MemoryEngine(), actions)
    await engine.start()
    await engine.write("a/b", b"data")
    async with engine.append("a/b") as appender:
        await appender.write(b"more")
    assert (await engine.stat("a/b")).size == 8
    await engine.move("a/b", "a/c")
    assert await engine.read("a/c", 10) == b"datamore"
    await (await engine.open("a/c")).close()
    assert await engine.children("a") == ["c"]
    await engine.delete("a/c")
    await engine.prune("a")
    with pytest.raises(Exception, match="a/c"):
        await engine.read("a/c", 10)
    found = values(await actions.families())
    counts = {
        dict(labels)["action"]: figure
        for (name, labels), figure in found.items()
        if name == "registry_storage_action_seconds_count"
    }
    once = ("PutContent", "Writer", "Stat", "Move", "Reader", "List", "Delete")
    assert counts == {"GetContent": 2, **dict.fromkeys(once, 1)}
    assert {("driver", "inmemory")} == {pair for _, labels in found for pair in labels if pair[0] == "driver"}


async def test_notifications_have_distributions_names_and_one_value_for_all_processes() -> None:
    class Told:
        async def figures(self) -> list[Figures]:
            return [
                Figures("alice", pending=3, events=9, successes=4, failures=1, errors=1, statuses=((200, 4), (799, 1))),
                Figures("bob"),
            ]

    each = list(await of_notifications(Told()))  # type: ignore[arg-type]
    found = values(merged([each, each]))
    assert value(found, "registry_notifications_pending_total", endpoint="alice") == 3
    assert value(found, "registry_notifications_pending_total", endpoint="bob") == 0
    assert value(found, "registry_notifications_events_total", endpoint="alice", type="Events") == 9
    assert value(found, "registry_notifications_events_total", endpoint="alice", type="Successes") == 4
    assert value(found, "registry_notifications_status_total", endpoint="alice", code="200 OK") == 4
    assert value(found, "registry_notifications_status_total", endpoint="alice", code="799") == 1


def test_nothing_is_counted_where_nobody_can_read_it() -> None:
    for http in ({}, {"debug": {"addr": "127.0.0.1:0"}}, {"debug": {"prometheus": {"enabled": True}}}):
        engine = MemoryEngine()
        seen = observe(Settings.model_validate({"http": http}), engine)
        assert seen.requests is None
        assert seen.engine is engine


async def test_bytes_both_ways_are_counted_as_they_are() -> None:
    data = b"x" * 100_000
    async with serving(MemoryEngine(), OBSERVED) as api:
        await api.push_blob("image", data)
        await api.commit(await api.begin("image"), [data, data], sha256(data + data))
        await api.get(f"/v2/image/blobs/{sha256(data)}", Range="bytes=0-999")
        await api.ask("HEAD", f"/v2/image/blobs/{sha256(data)}")
        found = values(await api.app._requests.families())
    assert value(found, "registry_received_bytes_total") == 300_000
    assert value(found, "registry_http_response_size_bytes_sum", handler="blob") == 1000
    assert value(found, "registry_http_requests_total", code="206", handler="blob", method="get") == 1
    assert value(found, "registry_http_requests_total", code="201", handler="blob_upload_chunk", method="put") == 2
    assert all(figure == 0 for (name, _), figure in found.items() if name == "registry_http_in_flight_requests")
