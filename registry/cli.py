"""The command `registry`."""

from __future__ import annotations

import asyncio
import logging
import sys
from importlib.metadata import version as installed
from pathlib import Path
from typing import Annotated

import typer

from ocispec.errors import LayerhouseError
from registry import config, logs, server
from storage.files import FilesEngine

app = typer.Typer(
    name="registry",
    help="Host container images: an OCI registry, a drop-in for CNCF Distribution.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback(invoke_without_command=True)
def main(
    *, version: Annotated[bool, typer.Option("--version", "-v", help="Print the version and exit.")] = False
) -> None:
    if version:
        typer.echo(f"registry {installed('layerhouse')}")
        raise typer.Exit


@app.command()
def serve(
    file: Annotated[
        Path | None, typer.Argument(metavar="[CONFIG]", help="A config.yml as Distribution reads it.")
    ] = None,
    root: Annotated[Path | None, typer.Option(help="Folder that holds the images.")] = None,
    addr: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="Where to listen.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="How many processes serve.")] = None,
) -> None:
    """Serve images until SIGTERM or Ctrl-C.

    Without a config: 127.0.0.1:5000, images in ./registry-data, deletes allowed.
    """
    try:
        settings = config.load(file, root, addr, workers)
        logs.configure(settings.log.level)
        _prepare(settings)
        settings.to_environment()
        server.serve("registry.app:worker", _server_settings(settings))
    except LayerhouseError as error:
        _fail(error)


def _server_settings(settings: config.Settings) -> server.ServerSettings:
    drain = settings.http.draintimeout.total_seconds()
    return server.ServerSettings(settings.http.host, settings.http.port, settings.layerhouse.workers, drain)


def _prepare(settings: config.Settings) -> None:
    root = settings.storage.filesystem.rootdirectory.absolute()
    # Here and not only in the workers: a folder that cannot be written to is one clear line, before anything listens.
    asyncio.run(FilesEngine(root).start())
    logging.getLogger("registry").info("images are kept in %s", root)


@app.command()
def demo(
    *, once: Annotated[bool, typer.Option("--once", help="End after the pull instead of serving on.")] = False
) -> None:
    """Show it all: serve a sample image, pull it layer by layer, look into the cache."""
    from registry import demo as demonstration  # noqa: PLC0415 - the client is not needed to serve

    try:
        demonstration.demo(once=once)
    except LayerhouseError as error:
        _fail(error)


def _fail(error: LayerhouseError) -> None:
    typer.echo(f"registry: {error.message}", err=True)
    sys.exit(1)
