"""The official conformance program gives full marks, whatever the number of worker processes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conformance import official
from tests.support.processes import RegistryProcess


@pytest.mark.peer("conformance")
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.timeout(330)
def test_the_official_conformance_program_gives_full_marks(
    workers: int, registry_server: Callable[..., RegistryProcess], tmp_path: Path, tell: Callable[[str], None]
) -> None:
    # Everything on: its sparse data holds an image one of whose layers is never pushed.
    server = registry_server(workers=workers, env={"REGISTRY_LAYERHOUSE_SPARSEIMAGES": "true"})
    score = official.run(server.host, tmp_path)
    tell(f"official conformance program, workers={workers}: {score}")
    assert score.perfect, "\n".join([str(score), *score.shortfalls])
