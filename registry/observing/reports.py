"""What the processes that serve tell the one that started them: what they counted, and which health checks fail.

The workers connect to their parent's socket, in Linux's abstract namespace: nothing lies on a disk that may be full or
read-only, nothing is left behind, and a process that is killed is noticed at once. They are asked when somebody reads.
What a process counted still counts when it has ended, else Prometheus would take the sum for one that began anew.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from secrets import token_hex

from registry.observing.health import Health
from registry.observing.metrics import Family, Source, merged

_log = logging.getLogger("registry")
_HANDED_ON = "LAYERHOUSE_REPORTS"
_PATIENCE = 5.0
_LINE_LIMIT = 1 << 24
_CREDENTIALS = struct.Struct("3i")


@dataclass(frozen=True, slots=True)
class Report:
    """What a process tells of itself.

    Attributes:
        failing: what is wrong, for each health check that fails.
        families: its metrics.
    """

    failing: Mapping[str, str]
    families: Sequence[Family]

    def to_line(self) -> bytes:
        families = [(each.name, each.kind, each.help, each.samples, each.joined) for each in self.families]
        return json.dumps([dict(self.failing), families]).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> Report:
        failing, families = json.loads(line)
        return cls(failing, [_family(*each) for each in families])


def _family(
    name: str, kind: str, help_: str, samples: Sequence[tuple[str, list[list[str]], float]], joined: str
) -> Family:
    read = ((sample, tuple((key, value) for key, value in labels), figure) for sample, labels, figure in samples)
    return Family(name, kind, help_, tuple(read), joined)


class Reporter:
    """The side of a process that serves."""

    def __init__(self, health: Health, sources: Sequence[Source]) -> None:
        self._health = health
        self._sources = sources

    async def run(self) -> None:
        """Answers the process that started this one, if it asks for reports, until it is gone."""
        address = os.environ.get(_HANDED_ON)
        if address is None:
            return
        link = socket.socket(socket.AF_UNIX)
        link.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(link, f"\0{address}")
            reader, writer = await asyncio.open_unix_connection(sock=link)
        except OSError as error:
            link.close()
            _log.warning("nothing is reported of this process: %s", error.strerror or error)
            return
        try:
            while await reader.readline():
                writer.write((await self._report()).to_line())
                await writer.drain()
        except ConnectionError:
            return
        finally:
            writer.close()

    async def _report(self) -> Report:
        return Report(self._health.failing, [family for source in self._sources for family in await source()])


class Reports:
    """The side of the process that started the others."""

    def __init__(self) -> None:
        self._links: set[_Link] = set()
        self._past: list[Family] = []

    @contextmanager
    def listening(self) -> Iterator[socket.socket]:
        """Yields the socket to `serve` on, whose address is left to the processes that are started meanwhile."""
        address = f"layerhouse-{token_hex(16)}"
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(f"\0{address}")
            made.listen()
            os.environ[_HANDED_ON] = address
            try:
                yield made
            finally:
                del os.environ[_HANDED_ON]

    async def serve(self, listening: socket.socket) -> asyncio.Server:
        return await asyncio.start_unix_server(self._joined, sock=listening, limit=_LINE_LIMIT)

    async def read(self) -> Report:
        """Asks every process, and makes one report of theirs; one that does not answer within 5 seconds is unwell."""
        links = sorted(self._links, key=lambda link: link.pid)
        answers = await asyncio.gather(*(link.ask() for link in links))
        failing: dict[str, str] = {}
        families: list[Sequence[Family]] = [self._past]
        for link, answer in zip(links, answers, strict=True):
            failing.update({f"worker {link.pid}": "does not answer"} if answer is None else answer.failing)
            families.append(link.last)
        return Report(failing if links else {"workers": "none serves"}, merged(families))

    async def _joined(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pid, user, _ = _CREDENTIALS.unpack(
            writer.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        )
        link = _Link(pid, reader, writer)
        try:
            if user == os.getuid():
                self._links.add(link)
                await link.listen()
        except asyncio.CancelledError:
            return  # with the loop; asyncio of Python 3.11 logs a connection's cancelled task as a fault
        finally:
            self._links.discard(link)
            self._past = merged((self._past, _lasting(link.last)))
            writer.close()


class _Link:
    """The connection to one process."""

    def __init__(self, pid: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.pid = pid
        self.last: Sequence[Family] = ()
        self._reader = reader
        self._writer = writer
        self._asking = asyncio.Lock()
        self._waiting: asyncio.Future[Report | None] | None = None

    async def listen(self) -> None:
        """Takes what comes, until the process has ended."""
        while line := await _line(self._reader):
            report = Report.from_line(line)
            self.last = report.families
            self._hand_over(report)
        self._hand_over(None)

    async def ask(self) -> Report | None:
        """Returns None where nothing comes back."""
        async with self._asking:
            self._waiting = asyncio.get_running_loop().create_future()
            self._writer.write(b"\n")
            await asyncio.wait({self._waiting}, timeout=_PATIENCE)
            return self._waiting.result() if self._waiting.done() else None

    def _hand_over(self, report: Report | None) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(report)


async def _line(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readline()
    except ConnectionError:
        return b""


def _lasting(families: Iterable[Family]) -> list[Family]:
    return [each for each in families if each.lasting]
