"""Folders of certificates, one for each host (docker, "certs.d"; containers-certs.d(5)).

*.crt          authorities that are trusted beside the system's
*.cert, *.key  a client certificate and its key
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from client.hosts.endpoint import Tls
from ocispec.errors import ConfigurationError


def find(roots: Iterable[Path], names: Iterable[str]) -> Tls:
    """Reads the first folder there is for a host that may be called by `names`; what it does not tell stays default.

    Raises:
        ConfigurationError: as `read`.
    """
    named = tuple(names)
    folders = (root / name for root in roots for name in named)
    return next((found for folder in folders if (found := read(folder)) is not None), Tls())


def read(folder: Path) -> Tls | None:
    """Reads a folder; None where there is none, or where it is closed to this user.

    A certificate whose key is not beside it holds the key itself, as containerd has it.

    Raises:
        ConfigurationError: a key without its certificate.
    """
    try:
        names = sorted(os.listdir(folder))  # noqa: PTH208 - names are what is needed
    except OSError:
        return None
    certificates = [folder / name for name in names if name.endswith(".cert")]
    keys = {folder / name for name in names if name.endswith(".key")}
    for key in sorted(keys):
        if key.with_suffix(".cert") not in certificates:
            raise ConfigurationError(f"{key}: expected its client certificate beside it, in {key.stem}.cert")
    return Tls(
        tuple(folder / name for name in names if name.endswith(".crt")),
        tuple((each, key if (key := each.with_suffix(".key")) in keys else each) for each in certificates),
    )
