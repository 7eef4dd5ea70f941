"""Applications that tests run in server processes of their own; `main` serves one of them as `registry serve` does.

Nothing of pytest is imported: the workers import this module too.
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Any

from registry import server


def pid_or_file() -> Any:
    """`/file` answers with the file that `FILE` names, everything else with the process id."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await _live(receive, send)
        elif scope["path"] == "/file":
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.pathsend", "path": os.environ["FILE"]})
        else:
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body", "body": b"%d" % os.getpid()})

    return app


def never_starts() -> Any:
    """An application whose start fails."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "lifespan.startup.failed", "message": "no storage"})

    return app


async def _live(receive: Any, send: Any) -> None:
    for moment in ("startup", "shutdown"):
        await receive()
        await send({"type": f"lifespan.{moment}.complete"})


def main(application: str, host: str, *words: str) -> None:
    """`words`: port, workers, seconds to drain, seconds to stall, and the files for TLS, if any."""
    logging.basicConfig(level="INFO", format="%(message)s")
    port, workers, drain, stall, *tls = words
    settings = server.ServerSettings(host, int(port), int(workers), float(drain), float(stall), *map(Path, tls))
    server.serve(f"{__name__}:{application}", settings)


if __name__ == "__main__":
    __name__ = "tests.support.applications"
    main(*sys.argv[1:])
