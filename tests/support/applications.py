"""Applications that tests run in server processes of their own; `main` serves one of them as `registry serve` does.

Nothing of pytest is imported: the workers import this module too.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

from registry.config.tls import Tls
from registry.serving import server
from registry.serving.listening import TcpAddress, UnixAddress


def pid_or_file() -> Any:
    """`/file` answers with the file that `FILE` names, `/scope` with what there is of it, the rest with its pid."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await _live(receive, send)
        elif scope["path"] == "/file":
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.pathsend", "path": os.environ["FILE"]})
        else:
            scoped = {name: scope[name] for name in ("scheme", "client", "extensions")}
            body = json.dumps(scoped).encode() if scope["path"] == "/scope" else b"%d" % os.getpid()
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body", "body": body})

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


def main(application: str, options: str) -> None:
    """`options`: what `ServerSettings` has beside the address, in JSON, with `tls` as `http.tls` has it."""
    logging.basicConfig(level="INFO", format="%(message)s")
    given = json.loads(options)
    unix = given.pop("unix", None)
    tls = Tls.model_validate(given.pop("tls")) if "tls" in given else None
    plain = TcpAddress("127.0.0.1", 0) if given.pop("plain", False) else None
    address = UnixAddress(Path(unix)) if unix else TcpAddress(given.pop("host", "127.0.0.1"), 0)
    server.serve(f"{__name__}:{application}", server.ServerSettings(address, tls=tls, plain=plain, **given))


if __name__ == "__main__":
    __name__ = "tests.support.applications"
    main(*sys.argv[1:])
