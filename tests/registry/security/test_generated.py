"""Requests that are generated from the OpenAPI description, valid ones and others, by every kind of caller."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import suppress
from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode

from registry.app import create_app
from storage.files import FilesEngine
from tests.registry.test_hostile import RULES, WHO
from tests.support import callers
from tests.support.api import DELETES, serving
from tests.support.recording import RecordingEngine, faults

SCHEMA = "/_layerhouse/openapi.json"
NAMES = ["image", "hidden/image", "team/app", "absent"]


@pytest.mark.parametrize("who", WHO)
def test_no_request_is_a_fault_or_leaves_the_tree(tmp_path: Path, who: str) -> None:
    asyncio.run(_filled(tmp_path / "root"))
    passwords = callers.htpasswd(tmp_path / "htpasswd", alice="1", olga="2")
    engine = RecordingEngine(FilesEngine(tmp_path / "root"))
    app = create_app(DELETES if "open" in who else callers.settings(passwords, RULES), engine)
    names = itertools.cycle([None, *NAMES])
    described = create_app(DELETES, FilesEngine(tmp_path / "root"))
    for found in schemathesis.openapi.from_asgi(SCHEMA, described).get_all_operations():
        operation = found.ok()
        operation.app = app
        for mode in GenerationMode:

            @given(operation.as_strategy(generation_mode=mode))
            @settings(max_examples=4, derandomize=True, database=None, phases=[Phase.generate],
                      suppress_health_check=list(HealthCheck))  # fmt: skip
            def holds(case: schemathesis.Case) -> None:
                name = next(names)
                if name and "name" in case.path_parameters:
                    case.path_parameters["name"] = name
                with faults() as met, engine.during():
                    answer = case.call(headers=WHO[who])
                    assert engine.strays() == []
                assert answer.status_code < 500
                assert met == []
                assert answer.status_code < 400 or answer.json()["errors"]

            with suppress(Unsatisfiable):  # where there is nothing that could be wrong
                holds()


async def _filled(root: Path) -> None:
    async with serving(FilesEngine(root)) as api:
        for name in NAMES[:-1]:
            await api.push_image(name, "v1", name.encode())
