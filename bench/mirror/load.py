"""Clients that pull images at once, each layer to its last byte, in a process of their own.

`python -m bench.mirror.load JOB` pulls what `{"port", "manifest", "blobs", "clients", "patience"}` says, each client
over three connections as docker does. It prints how many seconds the last of them took, or `null` where that would be
more than `patience`.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from bench.content import MANIFEST
from bench.load import Connection

CONNECTIONS = 3


def pull(*, port: int, manifest: str, blobs: Sequence[tuple[str, int]], clients: int) -> float:
    """Returns the seconds from the first request to the last byte of the last client."""
    together = threading.Barrier(clients + 1)

    def client() -> None:
        left, taking = list(reversed(blobs)), threading.Lock()

        def connection(opened: Connection) -> None:
            with opened:
                while True:
                    with taking:
                        if not left:
                            return
                        path, size = left.pop()
                    opened.skip(opened.head("GET", path), size)

        opened = [Connection(port) for _ in range(CONNECTIONS)]
        together.wait()
        status, _, _ = opened[0].ask("GET", manifest, [("Accept", MANIFEST)])
        if status != 200:
            raise ConnectionError(f"{manifest} was answered with {status}")
        with ThreadPoolExecutor(CONNECTIONS) as threads:
            for done in [threads.submit(connection, each) for each in opened]:
                done.result()

    with ThreadPoolExecutor(clients) as threads:
        running = [threads.submit(client) for _ in range(clients)]
        together.wait()
        began = time.monotonic()
        for each in running:
            each.result()
        return time.monotonic() - began


def main() -> None:
    job = json.loads(sys.argv[1])
    patience = job.pop("patience")

    def give_up() -> None:
        print("null", flush=True)
        os._exit(0)  # the threads wait for a server that may take an hour

    watchdog = threading.Timer(patience, give_up)
    watchdog.daemon = True
    watchdog.start()
    took = pull(**job)
    watchdog.cancel()
    print(json.dumps(took), flush=True)


if __name__ == "__main__":
    main()
