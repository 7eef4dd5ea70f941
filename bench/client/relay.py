"""A link as it is between two cities: each connection has so much delay and so much bandwidth, each way.

`python relay.py PORT RATE DELAY` listens on a port of its own, tells which, and carries every connection to PORT of
this machine: RATE bytes per second and DELAY seconds in either direction. It is a process, so that its work counts for
nobody who is measured. What it does not do: lose packets, or start slowly as TCP does on a real link.
"""

from __future__ import annotations

import asyncio
import sys
import time
from asyncio import Queue, StreamReader, StreamWriter
from contextlib import closing
from dataclasses import dataclass

import uvloop

# What a connection may send at once after a pause: the depth of its token bucket.
_BURST = 0.005  # seconds' worth
_PIECE = 32 * 1024
# Pieces on their way, or held because the reader is slow: a bound, and more than RATE x DELAY.
_ON_THE_WAY = 128


@dataclass(frozen=True, slots=True)
class Link:
    """What each connection gets.

    Attributes:
        port: where it leads, on this machine.
        rate: bytes per second, each way.
        delay: seconds, each way.
    """

    port: int
    rate: float
    delay: float

    async def carry(self, reader: StreamReader, writer: StreamWriter) -> None:
        """Carries one connection until both sides have ended, or one of them broke."""
        # What a handshake takes: the kernel, which answered it, knows nothing of the delay.
        await asyncio.sleep(2 * self.delay)
        with closing(writer):
            try:
                far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.port)
                with closing(far_writer):
                    async with asyncio.TaskGroup() as tasks:
                        for source, sink in ((reader, far_writer), (far_reader, writer)):
                            waiting: Queue[tuple[float, bytes]] = Queue(_ON_THE_WAY)
                            tasks.create_task(self._take(source, waiting))
                            tasks.create_task(_deliver(waiting, sink))
            except* OSError:
                pass  # a side is gone: so is the other

    async def _take(self, source: StreamReader, waiting: Queue[tuple[float, bytes]]) -> None:
        """Takes bytes as fast as the link sends them, the last piece being empty, and says when each is there."""
        sent = 0.0
        while True:
            piece = await source.read(_PIECE)
            now = time.monotonic()
            sent = max(sent, now - _BURST) + len(piece) / self.rate
            await asyncio.sleep(sent - now)
            await waiting.put((max(sent, now) + self.delay, piece))
            if not piece:
                return


async def _deliver(waiting: Queue[tuple[float, bytes]], sink: StreamWriter) -> None:
    while True:
        due, piece = await waiting.get()
        await asyncio.sleep(due - time.monotonic())
        if not piece:
            sink.write_eof()
            return
        sink.write(piece)
        await sink.drain()


async def main(port: str, rate: str, delay: str) -> None:
    link = Link(int(port), float(rate), float(delay))
    server = await asyncio.start_server(link.carry, "127.0.0.1", 0)
    print("listening on http://127.0.0.1:{}".format(*server.sockets[0].getsockname()[1:]), flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
