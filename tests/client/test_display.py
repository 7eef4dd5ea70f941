"""What people and programs see of a pull."""

from __future__ import annotations

import io
import json

import pytest

from client.display import Style, shown, size_text
from client.progress import (
    BlobSent,
    Event,
    LayerDone,
    LayerProgress,
    LayerSkipped,
    LayerStarted,
    Pulled,
    Pushed,
    Resolved,
    Waiting,
    Warned,
    silent,
)
from ocispec.digest import Digest
from ocispec.platform import Platform
from ocispec.reference import Reference

NAME = Reference.parse("localhost:5000/a/b:1")
ONE, TWO, ROOT = Digest.of(b"1"), Digest.of(b"2"), Digest.of(b"root")
EVENTS: list[Event] = [
    Resolved(NAME, ROOT, Platform("linux", "amd64"), 2, 3_000_000),
    LayerDone(NAME, ONE, 1_000_000, cached=True),
    LayerStarted(NAME, TWO, 2_000_000),
    *(LayerProgress(NAME, TWO, received, 2_000_000) for received in range(0, 2_000_001, 500_000)),
    LayerDone(NAME, TWO, 2_000_000, cached=False),
    Pulled(NAME, ROOT, ROOT, Platform("linux", "amd64"), 2_000_000, 3_000_000),
]
SENT: list[Event] = [
    BlobSent(NAME, ONE, 1_000_000, "exists"),
    LayerStarted(NAME, TWO, 2_000_000),
    LayerProgress(NAME, TWO, 500_000, 2_000_000),
    BlobSent(NAME, TWO, 2_000_000, "uploaded"),
    Pushed(NAME, ROOT, 2_000_000, 3_000_000),
]
SKIPPED = LayerSkipped(NAME, TWO, ("https://x/y",))


def show(style: Style, events: list[Event]) -> tuple[str, str]:
    out, warnings = io.StringIO(), io.StringIO()
    with shown(style, out, warnings) as report:
        for event in events:
            report(event)
    return out.getvalue(), warnings.getvalue()


def test_one_line_per_finished_layer():
    assert show(Style.LINES, EVENTS)[0].splitlines() == [
        "localhost:5000/a/b:1: linux/amd64, 2 layers, 3 MB",
        f"  {ONE.short}      1 MB  already in the cache",
        f"  {TWO.short}      2 MB  fetched",
        f"localhost:5000/a/b:1: {ROOT}, 2 MB fetched",
    ]


def test_one_line_per_blob_of_a_push():
    assert show(Style.LINES, SENT)[0].splitlines() == [
        f"  {ONE.short}      1 MB  already there",
        f"  {TWO.short}      2 MB  uploaded",
        f"localhost:5000/a/b:1: {ROOT}, 2 MB sent",
    ]
    assert show(Style.QUIET, SENT)[0] == f"{ROOT}\n"
    lines = [json.loads(line) for line in show(Style.JSON, SENT)[0].splitlines()]
    assert [(line["event"], line.get("how")) for line in lines[-2:]] == [("blob_sent", "uploaded"), ("pushed", None)]


def test_bars_show_each_blob_that_goes_out():
    out, _ = show(Style.BARS, SENT)
    assert f"{ONE.short}      1 MB  already there" in out
    assert "2.0/2.0 MB" in out
    assert f"{ROOT}, 2 MB sent" in out


def test_quiet_is_the_digest_alone():
    assert show(Style.QUIET, EVENTS) == (f"{ROOT}\n", "")


def test_json_is_one_object_per_event_and_line_and_progress_is_thinned_out():
    lines = [json.loads(line) for line in show(Style.JSON, [*EVENTS, SKIPPED])[0].splitlines()]
    kinds = [line["event"] for line in lines]
    assert kinds[:3] == ["resolved", "layer_done", "layer_started"]
    assert kinds[-3:] == ["layer_done", "pulled", "layer_skipped"]
    assert [line["received"] for line in lines if line["event"] == "layer_progress"] == [0, 2_000_000]
    assert lines[0] == {
        "event": "resolved",
        "reference": str(NAME),
        "digest": str(ROOT),
        "platform": "linux/amd64",
        "layers": 2,
        "size": 3_000_000,
    }
    assert lines[1]["cached"] is True
    assert lines[-1]["urls"] == ["https://x/y"]


def test_bars_show_each_layer_that_is_fetched():
    out, _ = show(Style.BARS, [*EVENTS[:-2], EVENTS[-2], EVENTS[-1]])
    assert f"{ONE.short}      1 MB  already in the cache" in out
    assert f"{TWO.short} " in out
    assert f"{ROOT}, 2 MB fetched" in out


def test_a_layer_that_begins_again_keeps_its_bar():
    out, _ = show(Style.BARS, [EVENTS[2], EVENTS[4], EVENTS[2], *EVENTS[4:8]])
    assert out.count(TWO.short) == 1
    assert "2.0/2.0 MB" in out


@pytest.mark.parametrize("style", [Style.LINES, Style.QUIET])
def test_a_wait_and_a_warning_are_a_line_each(style: Style):
    out, warnings = show(style, [Waiting(None, "docker.io", 41.6, "too many requests"), Warned(NAME, "went elsewhere")])
    assert out == ""
    assert warnings == ("pullclient: docker.io asks to wait 42 s: too many requests\npullclient: went elsewhere\n")


def test_as_json_a_wait_names_host_and_seconds():
    out, _ = show(Style.JSON, [Waiting(None, "docker.io", 41.6, "too many requests")])
    assert json.loads(out) == {
        "event": "waiting",
        "reference": None,
        "host": "docker.io",
        "seconds": 41.6,
        "cause": "too many requests",
    }


@pytest.mark.parametrize("style", [Style.LINES, Style.QUIET, Style.BARS])
def test_a_layer_that_is_left_out_is_warned_of(style: Style):
    _, warnings = show(style, [EVENTS[2], SKIPPED])
    assert warnings == f"pullclient: {NAME}: left out foreign layer {TWO}, see 'https://x/y'; --foreign fetches it\n"


def test_an_image_whose_platform_nobody_tells_is_shown_without():
    out, _ = show(Style.LINES, [Resolved(NAME, ROOT, None, 1, 5)])
    assert out == "localhost:5000/a/b:1: 1 layer, 5 B\n"


def test_silence_is_silent():
    assert silent(EVENTS[0]) is None


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (1_234_567, "1.23 MB"),
        (999_500, "1 MB"),
        (5e9, "5 GB"),
        (2e12, "2 TB"),
    ],
)
def test_sizes_are_read_at_a_glance(size: float, text: str):
    assert size_text(size) == text
