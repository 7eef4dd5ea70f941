"""Stale uploads: who removes them, who only tells, and who leaves them alone."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest

from ocispec.reference import RepositoryName
from registry.config import Settings
from registry.purging import purge
from storage.engine import Engine
from storage.files import FilesEngine
from storage.store import Store
from tests.support.api import serving


def purging(*, readonly: bool = False, workers: int = 1, state: Path | None = None, **members: Any) -> Settings:
    return Settings.model_validate(
        {
            "storage": {"maintenance": {"uploadpurging": members, "readonly": {"enabled": readonly}}},
            "layerhouse": {"workers": workers, "statedirectory": state},
        }
    )


@pytest.fixture
async def begun(engine: Engine) -> str:
    async with serving(engine) as api:
        return (await api.begin("team/app")).rpartition("/")[2]


async def until(caplog: pytest.LogCaptureFixture, text: str) -> None:
    while text not in caplog.text:
        await asyncio.sleep(0.005)


async def test_each_upload_that_is_purged_is_told(engine: Engine, begun: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "registry")
    async with serving(engine, purging(age="0s")) as api:
        await until(caplog, "purged 1 stale uploads")
        assert f"the stale upload team/app/{begun} was purged" in caplog.text
        assert (await api.get(f"/v2/team/app/blobs/uploads/{begun}")).status == 404


async def test_a_dry_run_tells_what_it_would_remove_and_removes_nothing(
    engine: Engine, begun: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "registry")
    async with serving(engine, purging(age="0s", dryrun=True, interval="5ms")) as api:
        while caplog.text.count(f"the stale upload team/app/{begun} would be purged, and stays (dry run)") < 2:
            await asyncio.sleep(0.005)
        assert (await api.get(f"/v2/team/app/blobs/uploads/{begun}")).status == 204
    assert "was purged" not in caplog.text


@pytest.mark.parametrize("settings", [purging(age="0s", readonly=True), purging(age="0s", enabled=False)])
async def test_nothing_is_purged_where_it_is_off_or_the_registry_is_read_only(
    engine: Engine, begun: str, settings: Settings
) -> None:
    await purge(Store(engine), settings)  # it ends: there is nothing to wait for
    async with serving(engine, settings) as api:
        assert (await api.get(f"/v2/team/app/blobs/uploads/{begun}")).status == 204


async def test_of_several_workers_one_purges_and_another_takes_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "registry")
    store = Store(FilesEngine(tmp_path / "root"))
    settings = purging(age="0s", interval="5ms", workers=2, state=tmp_path / "state")
    uploads = store.repository(RepositoryName.parse("image")).uploads
    async with asyncio.TaskGroup() as tasks:
        workers = [tasks.create_task(purge(store, settings)) for _ in range(2)]
        for worker in workers:
            await until(caplog, f"{await uploads.begin()} was purged")
            worker.cancel()
    assert (tmp_path / "state" / "purging.lock").exists()


async def test_a_lock_that_cannot_be_made_is_told_and_serving_goes_on(
    tmp_path: Path, engine: Engine, begun: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "state").write_text("a file where a folder is wanted")
    settings = purging(age="0s", workers=2, state=tmp_path / "state")
    async with serving(engine, settings) as api:
        await until(caplog, "stale uploads are not purged:")
        assert (await api.get(f"/v2/team/app/blobs/uploads/{begun}")).status == 204
