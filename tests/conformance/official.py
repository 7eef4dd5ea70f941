"""The official conformance program of the distribution specification, with every test turned on.

`python -m tests.conformance.official --workers 2` starts a registry on an empty folder, runs the program against it,
prints the totals and ends with 1 unless the score is perfect. The program's own exit status is not enough: what it
skips still passes.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

from tests.support.peers import find, missing
from tests.support.processes import RegistryProcess

PERFECT = 1032
SWITCHES = {"OCI_VERSION": "dev", "OCI_DATA_SPARSE": "true", "OCI_TLS": "disabled"}


@dataclass(frozen=True, slots=True)
class Score:
    """Totals of one run, and each case that did not pass as `status name: reason`."""

    passed: int
    failed: int
    errors: int
    skipped: int
    shortfalls: tuple[str, ...]

    @property
    def perfect(self) -> bool:
        return (self.passed, self.failed, self.errors, self.skipped) == (PERFECT, 0, 0, 0)

    def __str__(self) -> str:
        return f"{self.passed} passed, {self.failed} failed, {self.errors} errors, {self.skipped} skipped"


def run(host: str, folder: Path) -> Score:
    """Run the program in `folder` against the registry at `host`, whose storage has to be empty."""
    results = folder / "results"
    env = {**os.environ, **SWITCHES, "OCI_REGISTRY": host, "OCI_RESULTS_DIR": str(results)}
    with (folder / "output").open("wb") as output:
        subprocess.run(
            [find("conformance") or "conformance"],
            cwd=folder,
            env=env,
            stdout=output,
            stderr=output,
            timeout=300,
            check=False,
        )
    return read(results / "junit.xml")


def read(report: Path) -> Score:
    suites = ET.parse(report).getroot()
    tests, failed, errors, skipped = (int(suites.get(name, "0")) for name in ("tests", "failures", "errors", "skipped"))
    shortfalls = [
        f"{case.get('status')} {case.get('name')}: {' '.join((case.findtext('system-out') or '').split())[:300]}"
        for case in suites.iter("testcase")
        if case.get("status") != "passed"
    ]
    return Score(tests - failed - errors - skipped, failed, errors, skipped, tuple(shortfalls))


def main() -> int:
    parser = argparse.ArgumentParser(description="Run the official conformance program against `registry serve`.")
    parser.add_argument("--workers", type=int, default=1)
    workers = parser.parse_args().workers
    if reason := missing("conformance"):
        print(reason, file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(prefix="lh-conformance-") as name:
        folder = Path(name)
        server = RegistryProcess(folder / "storage", log=folder / "registry.log", workers=workers)
        server.start()
        try:
            score = run(server.host, folder)
        finally:
            server.stop()
        print(f"official conformance program, workers={workers}: {score}")
        print(*score.shortfalls, sep="\n")
        return 0 if score.perfect else 1


if __name__ == "__main__":
    sys.exit(main())
