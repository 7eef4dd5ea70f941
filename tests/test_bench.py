"""The benchmark still runs, and says what it measured."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.support.source import ROOT


def test_it_measures_ours_without_any_peer(tmp_path: Path) -> None:
    small = ["--runs", "1", "--large", "2", "--upload", "2", "--volume", "4", "--seconds", "0.1"]
    command = [sys.executable, "-m", "bench", *small, "--peers", "none", "--folder", str(tmp_path)]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    rows = [line.split("|")[1].strip() for line in told.splitlines() if line.startswith("| ") and "no peer" in line]
    assert rows == [
        "large blob GET, CPU s/GB",
        "upload: POST, PATCH, PUT, CPU s/GB",
        "manifest GET by tag, requests/CPU s",
        "manifest GET by digest, requests/CPU s",
        "5 KB blob GET, requests/CPU s",
    ]
    assert list(tmp_path.iterdir()) == []
