"""`serve` and `demo`."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Annotated

import typer

from registry import config, exclusion, logs, server
from registry.commands.common import ConfigFile, failing
from storage.files import FilesEngine

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
        settings = config.load(file, root, addr, workers)
        logs.configure(settings.log.level)
        _prepare(settings)
        settings.to_environment()
        server.serve("registry.app:worker", _server_settings(settings))


def _server_settings(settings: config.Settings) -> server.ServerSettings:
    http, drain = settings.http, settings.http.draintimeout.total_seconds()
    return server.ServerSettings(http.bound_host, http.bound_port, settings.layerhouse.workers, drain)


def _prepare(settings: config.Settings) -> None:
    root = settings.storage.filesystem.rootdirectory.absolute()
    # Here and not only in the workers: a folder that cannot be written to is one clear line, before anything listens.
    asyncio.run(FilesEngine(root).start())
    exclusion.share(settings)
    logging.getLogger("registry").info("images are kept in %s", root)


@app.command()
def demo(
    *, once: Annotated[bool, typer.Option("--once", help="End after the pull instead of serving on.")] = False
) -> None:
    """Show it all: serve a sample image, pull it layer by layer, look into the cache."""
    from registry import demo as demonstration  # noqa: PLC0415 - the client is not needed to serve

    with failing():
        demonstration.demo(once=once)
