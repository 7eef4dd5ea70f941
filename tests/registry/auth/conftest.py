"""Files are looked at for each request: a test need not wait until a change counts."""

from __future__ import annotations

import pytest

from registry.auth import watched


@pytest.fixture(autouse=True)
def changes_count_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watched, "_LOOK_SECONDS", 0.0)
