"""The application's own life: start, stale uploads, end."""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path
from typing import Any

import pytest

from ocispec.errors import StorageError
from registry.app import worker
from registry.config import Settings, load
from storage.engine import Engine
from storage.memory import MemoryEngine
from tests.support.api import Api, serving
from tests.support.images import sha256


def purging(**members: Any) -> Settings:
    return Settings.model_validate({"storage": {"maintenance": {"uploadpurging": members}}})


async def test_stale_uploads_go_when_the_server_starts_and_nothing_else(engine: Engine) -> None:
    async with serving(engine) as api:
        digest = await api.push_blob("image", b"data")
        location = await api.begin("image")
    async with serving(engine, purging(age="0s")) as api:
        while (await api.get(location)).status != 404:
            await asyncio.sleep(0.01)
        assert (await api.get(f"/v2/image/blobs/{digest}")).status == 200


@pytest.mark.parametrize("settings", [Settings(), purging(enabled=False, age="0s"), purging(dryrun=True, age="0s")])
async def test_an_upload_stays_when_the_server_starts_again(engine: Engine, settings: Settings) -> None:
    async with serving(engine) as api:
        location = await api.begin("image")
    async with serving(engine, settings) as api:
        await asyncio.sleep(0)
        assert (await api.get(location)).status == 204


class Failing(MemoryEngine):
    failing: str | None = None

    async def start(self) -> None:
        if self.failing == "start":
            raise StorageError("the disk is gone")

    async def children(self, path: str, after: str = "", limit: int | None = None) -> list[str]:
        if self.failing == "children":
            raise StorageError("the disk is gone")
        return await super().children(path, after, limit)


async def test_a_purge_that_fails_is_told_and_tried_again_at_every_interval(caplog: pytest.LogCaptureFixture) -> None:
    engine = Failing()
    engine.failing = "children"
    async with serving(engine, purging(age="0s", interval="10ms")) as api:
        location = await api.begin("image")
        while caplog.text.count("could not be purged: the disk is gone") < 2:
            await asyncio.sleep(0.01)
        engine.failing = None
        while (await api.get(location)).status != 404:
            await asyncio.sleep(0.01)
    assert all(record.levelno == logging.ERROR for record in caplog.records)


async def test_a_fault_in_the_background_is_told_and_takes_nothing_along(caplog: pytest.LogCaptureFixture) -> None:
    class Faulty(MemoryEngine):
        async def children(self, path: str, after: str = "", limit: int | None = None) -> list[str]:
            raise RuntimeError("a fault of ours")

    async with serving(Faulty(), purging(age="0s", interval="10ms")) as api:
        while "a fault of ours" not in caplog.text:
            await asyncio.sleep(0.01)
        digest = await api.push_blob("image", b"data")
        assert (await api.get(f"/v2/image/blobs/{digest}")).body == b"data"
    assert "a fault in the background: it begins anew in 10 s" in caplog.text


async def test_a_store_that_is_full_says_so_and_serves_on(caplog: pytest.LogCaptureFixture) -> None:
    async with serving(MemoryEngine(limit=20_000)) as api:
        digest = await api.push_blob("image", b"fits")
        answer = await api.commit(await api.begin("image"), bytes(30_000), sha256(bytes(30_000)))
        assert (answer.status, answer.code, answer.message) == (507, "UNKNOWN", "no space is left")
        assert (await api.get(f"/v2/image/blobs/{digest}")).body == b"fits"
    assert "no space is left: docker/registry/v2/repositories/image/_uploads/" in caplog.text


async def test_a_store_that_cannot_be_used_ends_the_start() -> None:
    engine = Failing()
    engine.failing = "start"
    with pytest.raises(StorageError, match="the disk is gone"):
        async with serving(engine):
            pass


async def test_a_worker_serves_what_its_environment_describes(tmp_path: Path) -> None:
    load(root=tmp_path / "images").to_environment()
    await Api(worker()).push_blob("image", b"data")
    assert "LAYERHOUSE_SETTINGS" not in os.environ  # nor do its children have the secrets in it
    assert list((tmp_path / "images/docker").rglob("data"))


async def test_other_protocols_are_refused() -> None:
    async with serving(MemoryEngine()) as api:
        scope = {**api.scope("GET", "/v2/", {}), "type": "websocket", "subprotocols": []}
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        await api.app(scope, asyncio.Event().wait, send)
    assert [each["type"] for each in sent] == ["websocket.close"]
