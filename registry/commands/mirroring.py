"""`mirror`: what a mirror keeps, beside a registry that runs or without one."""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import typer

from ocispec.errors import ConfigurationError, GrammarError, Unsupported
from ocispec.platform import Platform
from registry import config, exclusion
from registry.commands.auditing import audited
from registry.commands.common import failing
from storage.files import FilesEngine

if TYPE_CHECKING:
    from registry.mirror.index import Content
    from registry.mirror.listing import Kept
    from registry.mirror.mirror import Mirror
    from registry.mirror.naming import Names

# ruff: noqa: PLC0415 - the client, which the mirror asks with, is not needed to host

app = typer.Typer()
_mirror = typer.Typer(help="See and change what a mirror keeps.", no_args_is_help=True)
app.add_typer(_mirror, name="mirror")

_TITLES = ("IMAGE", "DIGEST", "PLATFORMS", "SIZE", "LAST USED", "PINNED")
_DAYS = re.compile(r"(\d{1,6})d", re.ASCII)

Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="CONFIG",
        help="The config.yml of the mirror.  [default: $REGISTRY_CONFIGURATION_PATH]",
        show_default=False,
    ),
]
Root = Annotated[Path | None, typer.Option(metavar="DIR", help="Folder that holds the images.")]
Images = Annotated[
    list[str],
    typer.Argument(metavar="IMAGE...", help="As clients call them: alpine:3, ghcr.io/org/app, docker.io/org/app:1."),
]
SomeImages = Annotated[list[str] | None, typer.Argument(metavar="[IMAGE...]", help="Images, as clients call them.")]
OnePlatform = Annotated[
    list[str] | None,
    typer.Option(
        "--platform",
        metavar="OS/ARCH[/VARIANT]",
        help="For which platform; may be given several times.  [default: this machine's]",
        show_default=False,
    ),
]
AllPlatforms = Annotated[bool, typer.Option("--all-platforms", help="For all platforms that there are.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object, and no table.")]
OlderThan = Annotated[
    str | None, typer.Option(metavar="AGE", help="All that was not used for so long, like 30d or 12h.")
]
To = Annotated[
    str | None, typer.Option(metavar="SIZE", help="What was not used for longest, until so much is left, like 50GB.")
]


@_mirror.command()
def warm(
    names: Images,
    *,
    platform: OnePlatform = None,
    all_platforms: AllPlatforms = False,
    file: Config = None,
    root: Root = None,
) -> None:
    """Fetch whole images before anybody asks for them.

    What is here already is not fetched again. The registry may run meanwhile, or not. The exit status is 1 where an
    image did not come.
    """
    from registry.mirror.warming import each_warmed, warming

    with failing():
        settings = _settings(file, root)
        if settings.storage.maintenance.readonly.enabled:
            raise Unsupported("the registry is read-only: storage.maintenance.readonly is enabled")
        platforms = _platforms(platform, all_platforms=all_platforms)

        async def work() -> bool:
            async with _opened(settings) as mirror:
                images = [_names(settings, mirror).parse(each) for each in names]
                async with warming(mirror, platforms, typer.echo) as warmer:
                    return await each_warmed(warmer, images, typer.echo, _complain)

        if not asyncio.run(work()):
            sys.exit(1)


@_mirror.command("ls")
def list_(*, as_json: AsJson = False, file: Config = None, root: Root = None) -> None:
    """Show the images that are kept.

    And how much of each is here, and when it was last used. Times are UTC. The registry may run meanwhile, or not.
    """
    from registry.mirror.listing import images

    with failing():
        settings = _settings(file, root)

        async def work() -> tuple[list[Kept], list[tuple[str, int, int | None]]]:
            async with _opened(settings) as mirror:
                return [each async for each in images(mirror.usage)], await _totals(mirror)

        kept, totals = asyncio.run(work())
        if as_json:
            typer.echo(json.dumps(_as_json(kept, totals)))
            return
        for line in _aligned([_TITLES, *map(_row, kept)]):
            typer.echo(line)
        for upstream, size, cap in totals:
            if not upstream or cap is not None:
                typer.echo(f"{upstream or 'in all'}: {_size(size)}{f' of {_size(cap)}' if cap is not None else ''}")


@_mirror.command()
def evict(
    names: SomeImages = None, *, older_than: OlderThan = None, to: To = None, file: Config = None, root: Root = None
) -> None:
    """Remove images, or what nobody uses.

    They are fetched anew when somebody asks for them. What is pinned, and what was pushed, stays. The registry may run
    meanwhile, or not.
    """
    from registry.mirror import dropping

    with failing():
        if bool(names) + (older_than is not None) + (to is not None) != 1:
            raise ConfigurationError("expected either images, --older-than or --to")
        age, goal = None if older_than is None else _age(older_than), None if to is None else _bytes(to)
        settings = _settings(file, root)

        async def work() -> None:
            async with _opened(settings) as mirror:
                for image in [_names(settings, mirror).parse(each) for each in names or ()]:
                    _tell_gone(str(image), await dropping.drop_image(mirror.usage, image))
                if age is not None:
                    _tell_gone(f"not used for {older_than}", await dropping.drop_old(mirror.usage, time.time() - age))
                if goal is not None:
                    freed = await dropping.drop_to(mirror.usage, goal)
                    typer.echo(f"{_size(freed)} evicted, {_size((await _totals(mirror))[0][1])} are left")

        with audited(file, "mirror evict", " ".join(names or (f"--older-than {older_than}" if age else f"--to {to}",))):
            asyncio.run(work())


@_mirror.command()
def pin(names: Images, *, file: Config = None, root: Root = None) -> None:
    """Keep images, whatever else has to go.

    A tag may have a *, like alpine:3*, and so may a whole name, like ghcr.io/team/**.
    """
    _pin(names, file, root, on=True)


@_mirror.command()
def unpin(names: Images, *, file: Config = None, root: Root = None) -> None:
    """Let images go again.

    Those that were pinned by command, that is: what the configuration pins is changed there.
    """
    _pin(names, file, root, on=False)


def _pin(names: Sequence[str], file: Path | None, root: Path | None, *, on: bool) -> None:
    from registry.mirror.index import Index

    with failing():
        settings = _settings(file, root)

        async def work() -> None:
            async with _opened(settings) as mirror:
                texts = [_pin_text(_names(settings, mirror), each) for each in names]
                unknown = await mirror.usage.index.do(Index.unpin, [] if on else texts)
                await mirror.usage.index.do(Index.pin, texts if on else [])
                for each in texts:
                    if each not in unknown:
                        typer.echo(f"{each} {'stays' if on else 'is not pinned any more'}")
                if unknown:
                    raise ConfigurationError(f"{', '.join(unknown)}: not pinned by command")

        with audited(file, "mirror pin" if on else "mirror unpin", " ".join(names)):
            asyncio.run(work())


def _settings(file: Path | None, root: Path | None) -> config.Settings:
    settings = config.load(file, root)
    if not (settings.proxy.remoteurl or settings.layerhouse.mirror.upstreams):
        raise config.ConfigError("nothing is mirrored: see layerhouse.mirror.upstreams, or proxy.remoteurl")
    exclusion.share(settings)
    return settings


@asynccontextmanager
async def _opened(settings: config.Settings) -> AsyncIterator[Mirror]:
    from registry.mirror.mirror import Mirror

    engine = FilesEngine(settings.storage.filesystem.rootdirectory)
    await engine.start()
    mirror = Mirror(settings, engine)
    try:
        await mirror.usage.completed()
        yield mirror
    finally:
        await mirror.usage.index.close()


def _names(settings: config.Settings, mirror: Mirror) -> Names:
    from registry.mirror.naming import Names

    return Names(mirror.upstreams, urlsplit(settings.proxy.remoteurl or "").netloc)


def _pin_text(names: Names, text: str) -> str:
    """The pin that is meant: a pattern stands for what it says, a name for the one that it has here."""
    from registry.config.pins import Pin

    try:
        name = text.partition("@")[0].partition(":")[0]
        tag = text.removeprefix(name)
        found = text if "*" in name else f"{names.parse(name).name}{tag}"
        Pin.parse(found)
    except ValueError as error:
        raise ConfigurationError(str(error)) from error
    return found


async def _totals(mirror: Mirror) -> list[tuple[str, int, int | None]]:
    """Each upstream's name, what it has, and what it may have; first, without a name, all of them together."""
    from registry.mirror.index import Index

    space, index = mirror.usage.space, mirror.usage.index
    return [
        (share.upstream, await index.do(Index.kept, share.prefix), share.cap) for share in (space.whole, *space.shares)
    ]


def _platforms(given: Sequence[str] | None, *, all_platforms: bool) -> tuple[Platform, ...] | None:
    if given and all_platforms:
        raise ConfigurationError("expected either --platform or --all-platforms")
    try:
        return None if all_platforms else tuple(map(Platform.parse, given or ())) or (Platform.here(),)
    except GrammarError as error:
        raise ConfigurationError(f"--platform: {error}") from error


def _age(text: str) -> float:
    from pydantic import TypeAdapter, ValidationError

    from registry.config.values import Duration

    if days := _DAYS.fullmatch(text):
        return int(days[1]) * 86400.0
    try:
        return float(TypeAdapter(Duration).validate_python(text).total_seconds())
    except ValidationError as error:
        raise ConfigurationError(f"--older-than: expected an age like 30d or 12h, got {text!r:.80}") from error


def _bytes(text: str) -> int:
    from pydantic import TypeAdapter, ValidationError

    from registry.config.values import Size

    if text == "0":
        return 0
    try:
        return int(TypeAdapter(Size).validate_python(text))
    except ValidationError as error:
        raise ConfigurationError(f"--to: expected a size like 50GB, got {text!r:.80}") from error


def _tell_gone(what: str, gone: Sequence[Content]) -> None:
    typer.echo(f"{what}: {len(gone)} manifests and blobs evicted, {_size(sum(each.size for each in gone))}")


def _complain(text: str) -> None:
    typer.echo(f"registry: {text}", err=True)


def _row(kept: Kept) -> tuple[str, ...]:
    image = f"{kept.name}:{kept.tag}" if kept.tag else str(kept.name)
    platforms = f"{', '.join(kept.platforms) or 'none'} of {kept.of}" if kept.of else "-"
    size = _size(kept.size) if kept.size == kept.whole else f"{_size(kept.size)} of {_size(kept.whole)}"
    return image, str(kept.digest), platforms, size, _time(kept.used), "yes" if kept.pinned else "-"


def _as_json(kept: Sequence[Kept], totals: Sequence[tuple[str, int, int | None]]) -> dict[str, Any]:
    (_, size, cap), *upstreams = totals
    return {
        "images": [
            {
                "repository": each.name,
                "tag": each.tag,
                "digest": str(each.digest),
                "platforms": each.platforms,
                "platformsThere": each.of,
                "bytes": each.size,
                "bytesWhole": each.whole,
                "lastUsed": _time(each.used),
                "pinned": each.pinned,
            }
            for each in kept
        ],
        "bytes": size,
        "cap": cap,
        "upstreams": [{"name": name, "bytes": used, "cap": limit} for name, used, limit in upstreams],
    }


def _size(size: int) -> str:
    from registry.mirror.listing import size_text

    return size_text(size)


def _time(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
