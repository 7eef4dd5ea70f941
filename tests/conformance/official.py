"""The official conformance program of the distribution specification, with every test turned on.

Its own exit status is not enough: what it skips still passes, so its report is read.
"""

from __future__ import annotations

import os
import subprocess
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

from tests.support.peers import find

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
