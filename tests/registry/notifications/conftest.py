"""Endpoints, real ones, and configurations that name them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from registry.config import Settings
from tests.support.receiver import Receiver, receiving


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    yield from receiving()


@pytest.fixture
def receivers() -> Iterator[Callable[[], Receiver]]:
    """Gives as many as are asked for."""
    with ExitStack() as ending:

        def one() -> Receiver:
            found = Receiver()
            ending.callback(found.stop)
            return found

        yield one


@pytest.fixture
def settings(tmp_path: Path) -> Callable[..., Settings]:
    """A configuration with these endpoints: names with receivers and what else is set."""

    def make(*endpoints: dict[str, Any], limit: int = 1000, **members: Any) -> Settings:
        return Settings.model_validate(
            {
                "storage": {"delete": {"enabled": True}},
                "notifications": {"endpoints": list(endpoints), **members},
                "layerhouse": {"statedirectory": tmp_path / "state", "notifications": {"limit": limit}},
            }
        )

    return make
