"""How the events of a pull or a push are shown to people and to programs."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from enum import Enum
from typing import Any, TextIO

from client.progress import (
    BlobSent,
    Event,
    LayerDone,
    LayerProgress,
    LayerSkipped,
    LayerStarted,
    Pulled,
    Pushed,
    Report,
    Resolved,
    Waiting,
    Warned,
)
from ocispec.digest import Digest

PROGRESS_EVERY = 0.2


class Style(Enum):
    """Bars, one line per layer, the digest alone, or one JSON object per line."""

    BARS = "bars"
    LINES = "lines"
    QUIET = "quiet"
    JSON = "json"


@contextmanager
def shown(style: Style, out: TextIO, warnings: TextIO) -> Iterator[Report]:
    """Gives what shows events on `out`, and layers that are left out on `warnings`."""
    if style is Style.BARS:
        with _bars(out) as report:
            yield _warning(report, warnings)
    else:
        report = {Style.LINES: _lines, Style.QUIET: _quiet, Style.JSON: _json}[style](out)
        yield report if style is Style.JSON else _warning(report, warnings)


def size_text(size: float) -> str:
    """Returns a number of bytes for people, in powers of 1000, as docker shows it."""
    unit = "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if size < 999.5:
            break
        size, unit = size / 1000, larger
    return f"{size:.3g} {unit}"


def _warning(report: Report, warnings: TextIO) -> Report:
    def show(event: Event) -> None:
        if text := _warning_text(event):
            print(f"pullclient: {text}", file=warnings, flush=True)
        report(event)

    return show


def _warning_text(event: Event) -> str | None:
    match event:
        case LayerSkipped():
            place = event.urls[0][:200] if event.urls else "nowhere"
            return f"{event.reference}: left out foreign layer {event.digest}, see {place!r}; --foreign fetches it"
        case Waiting():
            return f"{event.host} asks to wait {event.seconds:.0f} s: {event.cause}"
        case Warned():
            return event.message
        case _:
            return None


def _quiet(out: TextIO) -> Report:
    def show(event: Event) -> None:
        if isinstance(event, Pulled | Pushed):
            print(event.digest, file=out, flush=True)

    return show


def _lines(out: TextIO) -> Report:
    def show(event: Event) -> None:
        if text := _text(event):
            print(text, file=out, flush=True)

    return show


def _text(event: Event) -> str | None:
    match event:
        case Resolved():
            platform = f"{event.platform}, " if event.platform else ""
            layers = "layer" if event.layers == 1 else "layers"
            return f"{event.reference}: {platform}{event.layers} {layers}, {size_text(event.size)}"
        case LayerDone():
            done = "already in the cache" if event.cached else "fetched"
            return f"  {event.digest.short}  {size_text(event.size):>8}  {done}"
        case Pulled():
            return f"{event.reference}: {event.digest}, {size_text(event.fetched)} fetched"
        case BlobSent():
            done = {"exists": "already there"}.get(event.how, event.how)
            return f"  {event.digest.short}  {size_text(event.size):>8}  {done}"
        case Pushed():
            return f"{event.reference}: {event.digest}, {size_text(event.sent)} sent"
        case _:
            return None


def _json(out: TextIO) -> Report:
    due: dict[Digest, float] = {}

    def show(event: Event) -> None:
        if isinstance(event, LayerProgress) and event.received < event.size:
            now = time.monotonic()
            if now < due.get(event.digest, 0):
                return
            due[event.digest] = now + PROGRESS_EVERY
        if isinstance(event, LayerDone | BlobSent):
            due.pop(event.digest, None)
        print(json.dumps({"event": event.kind, **_members(event)}), file=out, flush=True)

    return show


def _members(event: Event) -> dict[str, Any]:
    values = {each.name: getattr(event, each.name) for each in fields(event)}
    plain = (int, float, str, tuple, type(None))
    return {name: value if isinstance(value, plain) else str(value) for name, value in values.items()}


@contextmanager
def _bars(out: TextIO) -> Iterator[Report]:
    # Only a terminal needs it, and everything else should start at once.
    from rich.console import Console  # noqa: PLC0415 - see above
    from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TransferSpeedColumn  # noqa: PLC0415 - same

    columns = ("  {task.description}", BarColumn(), DownloadColumn(), TransferSpeedColumn())
    bars: dict[Digest, TaskID] = {}
    with Progress(*columns, console=Console(file=out, highlight=False, markup=False)) as progress:

        def show(event: Event) -> None:
            match event:
                case LayerStarted() if event.digest in bars:
                    progress.update(bars[event.digest], completed=event.received)
                case LayerStarted():
                    bars[event.digest] = progress.add_task(
                        event.digest.short, total=event.size, completed=event.received
                    )
                case LayerProgress():
                    progress.update(bars[event.digest], completed=event.received)
                case LayerDone(cached=False):
                    progress.stop_task(bars.pop(event.digest))
                case BlobSent() if event.digest in bars:
                    progress.update(bars[event.digest], completed=event.size)
                    progress.stop_task(bars.pop(event.digest))
                case LayerSkipped():
                    progress.remove_task(bars.pop(event.digest))
                case Resolved() | LayerDone() | Pulled() | BlobSent() | Pushed():
                    progress.console.print(_text(event), soft_wrap=True)

        yield show
