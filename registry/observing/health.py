"""Health: what is looked at again and again, and whether the registry calls itself well.

As with Distribution, a check that fails `threshold` times in a row makes the registry unwell: `/debug/health` says so,
and requests are answered with 503 until it succeeds once. A probe that hangs fails with each of its patience, and
holds up nobody else's.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import urljoin, urlsplit

from ocispec.errors import HostUnreachable, LayerhouseError, StorageError, StorageFull
from registry.config import Settings
from registry.config.health import FileHealth, HttpHealth, StorageDriverHealth, TcpHealth
from registry.observing.metrics import Family, Labels
from registry.outgoing import Headers, Outgoing, shown
from storage import paths
from storage.engine import Engine
from storage.threads import finish

_log = logging.getLogger("registry")
_TIMEOUT = 30.0
_PATIENCE = 10.0
_REDIRECTS = 10
_PROBE = b"well\n"

Probe = Callable[[], Awaitable[None]]
"""Looks once; raises LayerhouseError or OSError where something is wrong."""


class CheckFailed(LayerhouseError):
    """What was looked at is not as it should be."""

    code, summary = "CHECK_FAILED", "the check failed"


@dataclass(frozen=True, slots=True)
class Check:
    """Something to look at.

    Attributes:
        name: Distribution's, by which `/debug/health` knows it.
        interval: seconds from one look to the next.
        threshold: how many have to fail in a row.
        patience: seconds after which a look that has not ended counts as failed.
    """

    name: str
    interval: float
    threshold: int
    patience: float
    probe: Probe


class Health:
    """Looks at everything, and knows what fails."""

    def __init__(self, checks: Sequence[Check], uses: AbstractAsyncContextManager[Any] | None = None) -> None:
        self._checks = checks
        self._uses = uses or nullcontext()
        self._failures = dict.fromkeys((each.name for each in checks), 0)
        self._failing: dict[str, str] = {}

    @property
    def watched(self) -> bool:
        """Whether there is anything to look at."""
        return bool(self._checks)

    @property
    def failing(self) -> Mapping[str, str]:
        """What is wrong with each check that fails; nothing where all is well."""
        return MappingProxyType(self._failing)

    async def run(self) -> None:
        """Looks at everything until cancelled."""
        async with self._uses, asyncio.TaskGroup() as tasks:
            for each in self._checks:
                tasks.create_task(self._watch(each))

    async def families(self) -> Iterable[Family]:
        """Gives the metric of the checks."""
        values: dict[Labels, float] = {
            (("check", each.name),): float(each.name in self._failing) for each in self._checks
        }
        return (Family.gauge("registry_health_check_failing", "1 while a check fails, else 0.", values, "max"),)

    async def _watch(self, check: Check) -> None:
        while True:
            async with asyncio.TaskGroup() as tasks:
                look = tasks.create_task(_look(check))
                while not (await asyncio.wait({look}, timeout=check.patience))[0]:
                    self._note(check, f"no answer within {check.patience:g} s")
            self._note(check, look.result())
            await asyncio.sleep(check.interval)

    def _note(self, check: Check, wrong: str | None) -> None:
        if wrong is None:
            self._failures[check.name] = 0
            if self._failing.pop(check.name, None) is not None:
                _log.warning("health: %s is well again", check.name)
            return
        _log.debug("health: %s: %s", check.name, wrong)
        self._failures[check.name] += 1
        if self._failures[check.name] >= check.threshold:
            if check.name not in self._failing:
                _log.error("health: %s fails: %s", check.name, wrong)
            self._failing[check.name] = wrong


async def _look(check: Check) -> str | None:
    try:
        await check.probe()
    except (LayerhouseError, OSError) as error:
        return str(error) or type(error).__name__
    except Exception as error:  # noqa: BLE001 - a check that we got wrong takes nothing else along
        _log.exception("health: %s cannot be looked at", check.name)
        return f"{type(error).__name__} while looking"
    return None


def health(settings: Settings, engine: Engine) -> Health:
    """Returns what watches over a registry as `health` of its configuration has it."""
    wanted = settings.health
    outgoing = Outgoing(_TIMEOUT) if wanted.http else None
    checks = [_of_storage(settings, engine)] if wanted.storagedriver.enabled else []
    checks += [_check(str(each.file), each, partial(_no_file, each.file), _PATIENCE) for each in wanted.file]
    # Requests and connections end by themselves when their time is over.
    checks += [
        _check(shown(each.uri), each, partial(_http, outgoing, each), _seconds(each) * (_REDIRECTS + 2))
        for each in wanted.http
        if outgoing
    ]
    checks += [_check(each.addr, each, partial(_tcp, each), _seconds(each) * 2) for each in wanted.tcp]
    seen: Counter[str] = Counter()
    for number, each in enumerate(checks):
        seen[each.name] += 1
        if seen[each.name] > 1:
            checks[number] = replace(each, name=f"{each.name} #{seen[each.name]}")
    return Health(checks, outgoing)


def _of_storage(settings: Settings, engine: Engine) -> Check:
    wanted = settings.health.storagedriver
    writes = not settings.storage.maintenance.readonly.enabled
    patience = max(wanted.interval.total_seconds(), _PATIENCE)
    return _check(
        f"storagedriver_{settings.storage.driver}", wanted, partial(_storage, engine, writes=writes), patience
    )


def _check(
    name: str, wanted: StorageDriverHealth | FileHealth | HttpHealth | TcpHealth, probe: Probe, patience: float
) -> Check:
    return Check(name, wanted.interval.total_seconds(), wanted.threshold, patience, probe)


async def _storage(engine: Engine, *, writes: bool) -> None:
    if writes:
        try:
            await engine.write(paths.PROBE, _PROBE)
        except StorageFull:
            _log.warning("health: no space is left in the storage: nothing can be pushed")
        else:
            await _read_back(engine)
            return
    await engine.children(paths.ROOT, limit=1)


async def _read_back(engine: Engine) -> None:
    size, read = (await engine.stat(paths.PROBE)).size, await engine.read(paths.PROBE, len(_PROBE))
    if (size, read) != (len(_PROBE), _PROBE):
        raise StorageError(f"{paths.PROBE}: what was written is not what is read")


async def _no_file(file: Path) -> None:
    try:
        await finish(file.stat)
    except FileNotFoundError:
        return
    raise CheckFailed("file exists")


async def _http(outgoing: Outgoing, wanted: HttpHealth) -> None:
    headers: Headers = {name: [each.get_secret_value() for each in them] for name, them in wanted.headers.items()}
    url = wanted.uri
    for _ in range(_REDIRECTS + 1):
        answer = await outgoing.ask("HEAD", url, headers, timeout=_seconds(wanted), cut=True)
        if answer.status == wanted.statuscode:
            return
        target = answer.headers.get("location")
        if answer.status not in (301, 302, 303, 307, 308) or target is None:
            raise CheckFailed(f"{shown(url)} answered {answer.status}, expected {wanted.statuscode}")
        further = urljoin(url, target)
        if urlsplit(further)[:2] != urlsplit(url)[:2]:
            headers = {}  # they may be secret, and are for whom they were written
        url = further
    raise CheckFailed(f"{shown(wanted.uri)} redirects more than {_REDIRECTS} times")


async def _tcp(wanted: TcpHealth) -> None:
    host, _, port = wanted.addr.rpartition(":")
    try:
        async with asyncio.timeout(_seconds(wanted)):
            _, writer = await asyncio.open_connection(host.strip("[]") or "localhost", int(port))
    except TimeoutError as error:
        raise HostUnreachable(f"{wanted.addr}: no connection within {_seconds(wanted):g} s") from error
    except OSError as error:
        raise HostUnreachable(f"{wanted.addr}: {error.strerror or error}") from error
    writer.close()


def _seconds(wanted: HttpHealth | TcpHealth) -> float:
    return wanted.timeout.total_seconds() or _TIMEOUT
