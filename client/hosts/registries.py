"""containers' registries.conf (containers-registries.conf(5), version 2): other places for what a prefix names.

The `[[registry]]` with the longest `prefix` that matches an image's name tells where it is (`location`, `insecure`,
`blocked`) and what is asked first (`[[registry.mirror]]`, with `pull-from-mirror`; `mirror-by-digest-only`).

Differences from containers, each on the side of the image's name:
- a mirror for digests only also serves the content of an image that is asked for by tag: the registry resolves it;
- a mirror for tags only resolves them, and the content they lead to comes from the registry;
- `location` and `blocked` hold for pushes too;
- a prefix that ends in a tag or digest matches nothing, and `example.com` does not match `example.com:5000`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from client.hosts.place import Place
from client.hosts.tables import Table
from ocispec.errors import ConfigurationError, LayerhouseError
from ocispec.reference import Reference, RepositoryName

_PULLS = ("all", "digest-only", "tag-only")


@dataclass(frozen=True, slots=True)
class Location:
    """Where a prefix is: the registry, or a mirror.

    Attributes:
        text: stands in for the prefix; empty where the name stays as it is.
        where: how messages call it.
        insecure: whether any certificate will do, and plain http.
        pulls: what it is asked for: one of `_PULLS`.
    """

    text: str
    where: str
    insecure: bool = False
    pulls: str = "all"

    def place(self, host: str, repository: RepositoryName, matched: int) -> Place:
        """Returns where an image is, of whose name the prefix is the first `matched` characters.

        Raises:
            ConfigurationError: what comes out is no name.
        """
        name = f"{host}/{repository}"
        led_to = self.text + name[matched:] if self.text else name
        try:
            found = Reference.parse(led_to)
        except LayerhouseError as error:
            raise ConfigurationError(
                f"{self.where}: {name} becomes {led_to!r:.200}, expected an image's name"
            ) from error
        return Place(
            found.host,
            repository=found.repository,
            insecure=self.insecure,
            told=False,
            resolves=self.pulls != "digest-only",
            serves=self.pulls != "tag-only",
        )


@dataclass(frozen=True, slots=True)
class Registry:
    """One `[[registry]]`."""

    file: Path
    prefix: str
    location: Location
    mirrors: tuple[Location, ...]
    blocked: bool


@dataclass(frozen=True, slots=True)
class Found:
    """What is told of one image: where it is, and what is asked first."""

    own: Place
    mirrors: tuple[Place, ...] = ()


class Registries:
    """Every `[[registry]]` of some files; of the same prefix, that of the later file.

    Raises:
        ConfigurationError: naming file, key and what was expected.
    """

    def __init__(self, files: Iterable[Path]) -> None:
        self._registries: dict[str, Registry] = {}
        for table in filter(None, map(Table.read, files)):
            self._registries |= {each.prefix: each for each in map(_registry, table.tables("registry"))}

    def find(self, host: str, repository: RepositoryName) -> Found:
        """Returns what is told of an image; its own name where nothing is.

        Raises:
            ConfigurationError: it is blocked, or is led to something that is no name.
        """
        matches = {each.prefix: matched(each.prefix, host, repository) for each in self._registries.values()}
        longest = max((prefix for prefix, length in matches.items() if length), key=len, default=None)
        if longest is None:
            return Found(Place(host, repository=repository, told=False))
        registry, length = self._registries[longest], matches[longest]
        if registry.blocked:
            raise ConfigurationError(f"{host}/{repository} is blocked by {registry.file}, prefix {longest!r}")
        mirrors = tuple(each.place(host, repository, length) for each in registry.mirrors)
        return Found(registry.location.place(host, repository, length), mirrors)


def matched(prefix: str, host: str, repository: str) -> int:
    """Returns how many characters of `host/repository` a prefix stands for; 0 where it does not match.

    prefix = (host [":" port] / "*." domain [":" port]) ["/" namespace]
    """
    wanted, _, namespace = prefix.partition("/")
    suffix = wanted.removeprefix("*")
    if host != wanted and not (wanted.startswith("*.") and host.endswith(suffix) and host != suffix):
        return 0
    if not namespace:
        return len(host)
    return len(f"{host}/{namespace}") if f"{repository}/".startswith(f"{namespace}/") else 0


def files(chosen: str | None, folders: Iterable[Path]) -> list[Path]:
    """Returns the files that count, the later over the earlier, as containers chooses them.

    Args:
        chosen: the value of $CONTAINERS_REGISTRIES_CONF, in place of the first file there is.
        folders: the user's and the system's `containers`, which hold `registries.conf` and `registries.conf.d`.

    Raises:
        ConfigurationError: the chosen file does not exist.
    """
    user, system = folders
    if chosen and not os.path.exists(chosen):  # noqa: PTH110 - Path.exists raises where a folder is closed
        raise ConfigurationError(f"CONTAINERS_REGISTRIES_CONF: {chosen} does not exist")
    if not chosen and os.path.exists(user / "registries.conf"):  # noqa: PTH110 - as above
        return [user / "registries.conf", *_dropped_in(user)]
    return [Path(chosen) if chosen else system / "registries.conf", *_dropped_in(system), *_dropped_in(user)]


def _dropped_in(folder: Path) -> list[Path]:
    dropped_in = folder / "registries.conf.d"
    try:
        return [dropped_in / name for name in sorted(os.listdir(dropped_in)) if name.endswith(".conf")]  # noqa: PTH208
    except OSError:
        return []


def _registry(table: Table) -> Registry:
    prefix, location = _location(table, "prefix"), _location(table, "location")
    if not (prefix or location):
        raise table.wrong("location", "a location or a prefix")
    pulls = "digest-only" if table.flag("mirror-by-digest-only") else "all"
    return Registry(
        table.file,
        prefix or location,
        Location(location, table.where("location"), table.flag("insecure")),
        tuple(_mirror(each, pulls) for each in table.tables("mirror")),
        table.flag("blocked"),
    )


def _mirror(table: Table, pulls: str) -> Location:
    location, pulls = _location(table, "location"), table.text("pull-from-mirror") or pulls
    if not location:
        raise table.wrong("location", "host[:port][/path]")
    if pulls not in _PULLS:
        raise table.wrong("pull-from-mirror", ", ".join(_PULLS))
    return Location(location, table.where("location"), table.flag("insecure"), pulls)


def _location(table: Table, key: str) -> str:
    text = table.text(key).rstrip("/")
    if "://" in text or "@" in text:
        raise table.wrong(key, "host[:port][/path], without http:// and without credentials")
    return text
