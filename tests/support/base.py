"""A base image made on the spot, out of Debian's packages: containers that run Python need no registry for it."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.support.docker import DockerEngine
from tests.support.processes import run

PACKAGES = "python3,python3-venv,ca-certificates"
# Whom this machine trusts, and how its pip is told: what lies between it and a package index stays the same inside.
_FROM_THE_MACHINE = ("etc/ssl/certs/ca-certificates.crt", "etc/pip.conf")


def import_debian(engine: DockerEngine, folder: Path, name: str) -> str:
    """Make a minimal Debian with Python in `folder`, give it to the engine as `name`, and return that."""
    root, archive = folder / "root", folder / "root.tar"
    suite = run("sh", "-c", '. /etc/os-release && echo "$VERSION_CODENAME"')
    run("debootstrap", "--variant=minbase", f"--include={PACKAGES}", suite, str(root), timeout=300)
    for each in _FROM_THE_MACHINE:
        if (Path("/") / each).exists():
            (root / each).write_bytes((Path("/") / each).read_bytes())
    subprocess.run(["tar", "-C", root, "-cf", archive, "."], check=True)
    engine("import", "--change", "ENV PIP_CERT=/etc/ssl/certs/ca-certificates.crt", str(archive), name)
    return name
