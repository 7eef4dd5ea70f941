"""`registry notifications`: who takes events, and who does not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from registry.cli import app
from registry.notifications.database import Database, Entry


def configured(tmp_path: Path, *endpoints: dict[str, Any]) -> Path:
    file = tmp_path / "config.yml"
    settings = {
        "version": 0.1,
        "storage": {"filesystem": {"rootdirectory": str(tmp_path / "root")}},
        "notifications": {"endpoints": endpoints},
        "layerhouse": {"statedirectory": str(tmp_path)},
    }
    file.write_text(json.dumps(settings))
    return file


def shown(file: Path) -> list[str]:
    told = CliRunner().invoke(app, ["notifications", str(file)])
    assert told.exit_code == 0, told.output
    return told.stdout.splitlines()


def test_endpoints_are_listed_with_what_waits_and_how_they_fare(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.time", lambda: 1764000000.0)
    database = Database(tmp_path / "notifications.sqlite", 2)
    database.add([Entry("fails", b"{}", 1764000000.0 - each) for each in (9, 6, 3)], durable=True)
    database.add([Entry("gone", b"{}", 1764000000.0)], durable=True)
    database.add([Entry("works", b"{}", 1764000000.0)], durable=True)
    database.refused("fails", 500, "it answered 500")
    head = database.head("works")
    assert head
    database.took("works", head.number, 200)
    database.close()
    url = "http://host/"
    names = [{"name": name, "url": url} for name in ("works", "fails", "idle")]
    assert shown(configured(tmp_path, *names, {"name": "off", "url": url, "disabled": True})) == [
        "ENDPOINT               PENDING  OLDEST                DROPPED  LAST SUCCESS          LAST ERROR",
        "works                  0        -                     0        2025-11-24T16:00:00Z  -",
        f"fails                  2        2025-11-24T15:59:54Z  1        {'-':22}2025-11-24T16:00:00Z it answered 500",
        "idle                   0        -                     0        -                     -",
        "off (disabled)         0        -                     0        -                     -",
        "gone (not configured)  1        2025-11-24T16:00:00Z  0        -                     -",
    ]


def test_who_has_no_endpoints_is_told_where_they_belong(tmp_path: Path) -> None:
    file = configured(tmp_path)
    assert shown(file) == ["no endpoints are configured: see notifications.endpoints in the config"]
    assert list(tmp_path.iterdir()) == [file]


def test_a_queue_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "notifications.sqlite").write_bytes(b"no database" * 1000)
    told = CliRunner().invoke(app, ["notifications", str(configured(tmp_path))])
    assert told.exit_code == 1
    assert told.stderr == f"registry: {tmp_path}/notifications.sqlite: file is not a database\n"
