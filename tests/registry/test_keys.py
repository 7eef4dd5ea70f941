"""Every key of `registry:2` that nearly every deployment uses does what it does there: one row of a table for each.

The keys are those that are marked in the survey of what deployments have; `keys/table.py` has them and their rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, MutableMapping
from contextlib import ExitStack
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

from registry.config import read
from tests.registry.keys.places import HIDDEN, World
from tests.registry.keys.table import ROWS, STARRED, Row
from tests.registry.test_config import environment

__all__ = ["environment"]
pytestmark = pytest.mark.peer("openssl")
each_row = pytest.mark.parametrize("row", ROWS, ids=[row.key for row in ROWS])


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with ExitStack() as ending:
        made = World(tmp_path_factory.mktemp("keys"), ending)
        yield made
        for each in made.end():
            print(each.log())
            assert "Traceback" not in each.text
            assert HIDDEN not in each.text


def at(config: Any, key: str) -> Any:
    """What a file has there; None where it has nothing."""
    for word in key.split("."):
        config = config[int(word)] if isinstance(config, list) else config.get(word)
        if config is None:
            break
    return config


def without(config: Any, key: str) -> dict[str, Any]:
    changed = deepcopy(config)
    above, _, last = key.rpartition(".")
    del (at(changed, above) if above else changed)[last]
    return changed


def test_every_key_has_a_row() -> None:
    assert Counter(row.key for row in ROWS) == Counter(STARRED)


@each_row
def test_a_key_does_what_it_does_in_distribution(world: World, row: Row) -> None:
    on, off = world[row.on], world[row.off]
    assert at(on.config, row.key) is not None
    assert at(on.config, row.key) != at(off.config, row.key)
    row.check(on, off)


@each_row
def test_a_variable_gives_the_key_as_the_file_does(
    world: World, row: Row, environment: MutableMapping[str, str], tmp_path: Path
) -> None:
    config = world[row.on].config
    variable, file = f"REGISTRY_{row.key.upper().replace('.', '_')}", tmp_path / "config.yml"
    # A file has to have a version, whatever the variables say.
    file.write_text(yaml.safe_dump({**config, "version": 0.2} if row.key == "version" else without(config, row.key)))
    environment[variable] = yaml.safe_dump(at(config, row.key)).removesuffix("...\n").strip()
    found, wanted = read(file), read(world[row.on].file)
    assert found.settings == wanted.settings
    assert [each.split(": ", 1)[1] for each in found.mistakes] == [each.split(": ", 1)[1] for each in wanted.mistakes]
    (source,) = {*at_source(found.given, row.key)}
    assert source == variable


def at_source(given: Any, key: str) -> Iterator[str]:
    """Where the values at a key, and below it, were given."""
    for word in key.split("."):
        given = given.child(int(word) if isinstance(given.value, list) else word)
    yield from given.sources()
