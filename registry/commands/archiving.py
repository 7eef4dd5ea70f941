"""`import-archive` and `export-archive`: images as files, straight into the storage and out of it."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

from ocispec.errors import ConfigurationError, Unsupported
from ocispec.platform import Platform
from registry import acceptance, config, exclusion
from registry.archives.naming import LOCALHOST, Name
from registry.commands.common import failing
from storage.files import FilesEngine
from storage.store import Store

if TYPE_CHECKING:
    from registry.archives.exporting import Wanted

# ruff: noqa: PLC0415 - the client, which knows archives, is not needed to serve

app = typer.Typer()

_FORMATS = ("oci-archive", "docker-archive", "oci")
_SHORT = {"docker": "docker-archive"}

Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="CONFIG",
        help="A config.yml, which says where the images are.  [default: $REGISTRY_CONFIGURATION_PATH]",
        show_default=False,
    ),
]
Root = Annotated[Path | None, typer.Option(metavar="DIR", help="Folder that holds the images.")]


Archive = Annotated[
    Path, typer.Argument(metavar="ARCHIVE", help="A file, or an OCI layout's folder; - is standard input.")
]
NewNames = Annotated[
    list[str] | None,
    typer.Argument(metavar="NAME...", help="Names for the one image in it, like team/app:1, in place of its own."),
]
Names = Annotated[
    list[str], typer.Argument(metavar="NAME...", help="Images in the registry, like team/app:1 or team/app@sha256:….")
]
Output = Annotated[
    Path, typer.Option("--output", "-o", metavar="FILE", help="A file, or a folder for oci; - is standard output.")
]
Form = Annotated[
    str, typer.Option("--format", metavar="|".join(_FORMATS), help="What to write; docker is docker-archive.")
]
OnePlatform = Annotated[
    str | None,
    typer.Option(
        "--platform",
        metavar="OS/ARCH[/VARIANT]",
        help="Of an index, one image alone; a docker-archive has this machine's unless told.",
    ),
]
Referrers = Annotated[
    bool, typer.Option("--referrers", help="Also what refers to the images: signatures, SBOMs, attestations.")
]
Host = Annotated[
    str | None,
    typer.Option(
        metavar="HOST[:PORT]",
        help=f"What names in the archive begin with.  [default: http.host of the config, or {LOCALHOST}]",
        show_default=False,
    ),
]


@app.command("import-archive")
def import_archive(archive: Archive, names: NewNames = None, *, file: Config = None, root: Root = None) -> None:
    """Put the images of an archive into the registry's storage.

    Takes what docker, podman and skopeo save: docker-archive, oci-archive (plain, gzip or zstd) and OCI layout, with
    all platforms and referrers that are in it. An image gets the name that it has there, without the host. The
    registry may run meanwhile, or not.
    """
    with failing():
        wanted = [Name.parse(each) for each in names or ()]
        if str(archive) == "-" and sys.stdin.isatty():
            raise ConfigurationError("an archive is not read from a terminal: give a file, or a pipe")
        settings = config.load(file, root)
        if settings.storage.maintenance.readonly.enabled:
            raise Unsupported("the registry is read-only: storage.maintenance.readonly is enabled")
        exclusion.share(settings)
        asyncio.run(_import(settings, archive, wanted))


@app.command("export-archive")
def export_archive(
    names: Names,
    *,
    output: Output,
    form: Form = _FORMATS[0],
    platform: OnePlatform = None,
    referrers: Referrers = False,
    host: Host = None,
    file: Config = None,
    root: Root = None,
) -> None:
    """Write images of the registry's storage to a file.

    An index goes with all its platforms. docker, podman, skopeo and import-archive read the file, which appears once
    it is whole; the same images give the same bytes. The registry may run meanwhile, or not.
    """
    with failing():
        chosen = [Name.parse(each) for each in names]
        wanted = _wanted(form, platform, referrers=referrers)
        if str(output) == "-" and sys.stdout.isatty():
            raise ConfigurationError("an archive is not written to a terminal: give a file with -o, or a pipe")
        settings = config.load(file, root)
        called = host or urlsplit(settings.http.host or "").netloc or LOCALHOST
        asyncio.run(_export(settings, chosen, output, replace(wanted, host=called)))


def _wanted(form: str, platform: str | None, *, referrers: bool) -> Wanted:
    from registry.archives.exporting import Format, Wanted

    kind = _SHORT.get(form, form)
    if kind not in _FORMATS:
        raise ConfigurationError(f"unknown format {form[:40]!r}: expected {', '.join(_FORMATS)}")
    return Wanted(Format(kind), Platform.parse(platform) if platform else None, referrers)


async def _import(settings: config.Settings, archive: Path, names: list[Name]) -> None:
    from registry.archives.importing import import_archive

    engine = _engine(settings)
    await engine.start()
    await import_archive(_store(settings, engine), archive, names, typer.echo)


async def _export(settings: config.Settings, names: list[Name], output: Path, wanted: Wanted) -> None:
    from registry.archives.exporting import export_archive

    # Standard output has the archive, where it goes there.
    tell = partial(typer.echo, err=str(output) == "-")
    await export_archive(_store(settings, _engine(settings)), names, output, wanted, tell)


def _engine(settings: config.Settings) -> FilesEngine:
    if settings.storage.inmemory is not None:
        raise config.ConfigError("storage.inmemory: images in memory are those of the server: expected filesystem")
    return FilesEngine(settings.storage.filesystem.rootdirectory)


def _store(settings: config.Settings, engine: FilesEngine) -> Store:
    return Store(engine, sparse_images=settings.layerhouse.sparseimages, rules=acceptance.rules(settings))
