"""`serve` and `demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from registry import config, engines
from registry.auth import composition
from registry.commands.common import ConfigFile, failing
from registry.mirror import checking
from registry.observing import audit, debug, logs
from registry.serving import server
from registry.serving.limits import Bounds
from registry.serving.listening import TcpAddress, UnixAddress

app = typer.Typer()


@app.command()
def serve(
    file: ConfigFile = None,
    root: Annotated[Path | None, typer.Option(help="Folder that holds the images.")] = None,
    addr: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="Where to listen.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="How many processes serve.")] = None,
) -> None:
    """Serve images until SIGTERM or Ctrl-C.

    Without a config: 127.0.0.1:5000, images in ./registry-data, deletes allowed.
    """
    with failing():
        found = config.read(file, root, addr, workers)
        settings = found.in_force()
        logs.configure(settings.log)
        found.announce()
        audit.check(settings.layerhouse.audit)
        with engines.prepared(settings) as prepared:
            composition.check(prepared)
            checking.check(prepared)
            with debug.serving(prepared):
                prepared.to_environment()
                server.serve("registry.app:worker", _server_settings(prepared))


def _server_settings(settings: config.Settings) -> server.ServerSettings:
    http, plain, limits = settings.http, settings.layerhouse.plainhttp, settings.layerhouse.limits
    return server.ServerSettings(
        UnixAddress(Path(http.addr)) if http.net == "unix" else TcpAddress.parse(http.addr),
        settings.layerhouse.workers,
        http.draintimeout.total_seconds(),
        limits.stalltimeout.total_seconds(),
        limits.headtimeout.total_seconds(),
        Bounds(limits.headsize, limits.minimumrate, limits.total),
        tls=http.tls if http.tls.certificate else None,
        plain=TcpAddress.parse(plain) if plain else None,
    )


@app.command()
def demo(
    *, once: Annotated[bool, typer.Option("--once", help="End after the pull instead of serving on.")] = False
) -> None:
    """Show it all: serve a sample image, pull it layer by layer, look into the cache."""
    from registry import demo as demonstration  # noqa: PLC0415 - the client is not needed to serve

    with failing():
        demonstration.demo(once=once)
