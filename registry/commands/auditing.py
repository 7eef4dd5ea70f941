"""What commands write to the audit log."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from registry import config
from registry.config.audit import STDERR


@contextmanager
def audited(file: Path | None, command: str, subject: str) -> Iterator[None]:
    """Enters what is done within into the audit log, where the configuration names a file for one.

    Args:
        file: the configuration; None for the one that `registry serve` would take.
        command: which it is, like `user add`.
        subject: whom, or what, it changes.

    Raises:
        ConfigError: the configuration cannot be used, or the log cannot be written: nothing was done then.
    """
    given = config.load(file).layerhouse.audit
    if given.file is None or given.file == STDERR:
        yield
        return
    from registry.observing.audit import Audit  # noqa: PLC0415 - not needed where there is no audit log

    log = Audit(given)
    log.open()
    yield
    fields = {"name": _operator(), "kind": "operator", "command": command, "subject": subject}
    log.add_now("administration", "done", fields)


def _operator() -> str:
    """Who runs the command: the name that sudo knows, else that of the user."""
    from pwd import getpwuid  # noqa: PLC0415 - as above

    try:
        return os.environ.get("SUDO_USER") or getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())
