"""`registry garbage-collect` as an operator types it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ocispec.digest import Digest
from registry.cli import app
from registry.config import Settings
from registry.exclusion import share
from storage import paths
from tests.support.images import Wire, push_image
from tests.support.processes import RegistryProcess
from tests.support.stores import Builder

Serve = Callable[..., RegistryProcess]


@dataclass(frozen=True)
class Ended:
    status: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


def collect(*words: str | Path) -> Ended:
    ended = CliRunner().invoke(app, ["garbage-collect", *map(str, words)])
    return Ended(ended.exit_code, ended.stdout, ended.stderr)


def written(root: Path, write: Callable[[Builder], Coroutine[Any, Any, Any]]) -> Builder:
    store = Builder.on_files(root)
    asyncio.run(write(store))
    return store


def files(root: Path) -> set[str]:
    return {str(each.relative_to(root)) for each in root.rglob("*") if each.is_file()}


@dataclass
class Sample:
    """A store with something of everything that goes, and what it is called."""

    root: Path
    live: str = ""
    layer: str = ""
    config: str = ""
    old: str = ""
    junk: str = ""

    async def write(self, store: Builder) -> None:
        self.old = str(await store.image("r", b"1", tag="t"))
        self.live = str(await store.image("r", b"2", tag="t"))
        self.layer, self.config = str(Digest.of(b"2")), str(Digest.of(b"config of 2"))
        self.junk = str(await store.blob("empty", b"junk"))
        await store.content(b"young", young=True)


@pytest.fixture
def sample(tmp_path: Path) -> Sample:
    made = Sample(tmp_path / "root")
    written(made.root, made.write)
    return made


def test_it_says_what_distribution_says(sample: Sample) -> None:
    ended = collect("--root", sample.root, "-m", "-d")
    gone = sorted(map(str, (sample.old, sample.junk, Digest.of(b"1"), Digest.of(b"config of 1"))))
    links = sorted(map(str, (Digest.of(b"1"), Digest.of(b"config of 1"))))
    size = sum((sample.root / paths.blob_data(Digest.parse(each))).stat().st_size for each in gone)
    assert (ended.status, ended.err) == (0, "")
    assert ended.lines == [
        "empty",
        "r",
        f"r: marking manifest {sample.live} ",
        f"r: marking blob {sample.config}",
        f"r: marking blob {sample.layer}",
        f"manifest eligible for deletion: {{r {sample.old} [t]}}",
        "",
        "3 blobs marked, 4 blobs and 1 manifests eligible for deletion",
        *(f"blob eligible for deletion: {each}" for each in gone),
        f"empty: layer link eligible for deletion: {sample.junk}",
        *(f"r: layer link eligible for deletion: {each}" for each in links),
        "empty repository eligible for deletion: empty",
        "1 unmarked blobs kept: younger than the grace period of 1:00:00",
        f"would free {size} bytes",
    ]


def test_a_dry_run_changes_nothing_and_says_what_the_run_then_says(sample: Sample) -> None:
    before = files(sample.root)
    dry = collect("--root", sample.root, "--delete-untagged", "--dry-run")
    assert files(sample.root) == before
    wet = collect("--root", sample.root, "--delete-untagged")
    assert wet.out == dry.out.replace("would free", "freed")
    again = collect("--root", sample.root, "-m")
    assert [line for line in again.lines if "eligible" in line] == [
        "3 blobs marked, 0 blobs and 0 manifests eligible for deletion"
    ]


def test_quiet_says_nothing(sample: Sample) -> None:
    assert collect("--root", sample.root, "-m", "-q") == Ended(0, "", "")
    assert not (sample.root / paths.blob_data(Digest.parse(sample.old))).exists()


def test_json_is_one_object(sample: Sample) -> None:
    found = json.loads(collect("--root", sample.root, "-m", "-d", "--json").out)
    assert found["dryRun"] is True
    assert (found["marked"], found["young"], found["repositories"]) == (3, 1, ["empty"])
    assert found["manifests"] == [{"repository": "r", "digest": sample.old, "tags": ["t"]}]
    assert found["bytes"] == sum(each["size"] for each in found["blobs"]) > 0
    assert {each["digest"] for each in found["links"]} < {each["digest"] for each in found["blobs"]}
    assert found["unreadable"] == []


def test_the_grace_period_is_configured_or_given(sample: Sample, tmp_path: Path) -> None:
    config = tmp_path / "config.yml"
    text = f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {sample.root}}}}}\n"
    config.write_text(f"{text}layerhouse: {{garbagecollect: {{graceperiod: 3h}}}}\n")
    assert "blob eligible" not in collect("-d", config).out
    assert "blob eligible" in collect("-d", config, "--grace-period", "1h30m").out
    assert "kept: younger" not in collect("-d", config, "--grace-period", "0s").out


def test_what_stays_only_since_it_is_young_is_counted(tmp_path: Path) -> None:
    async def write(store: Builder) -> None:
        await store.image("r", b"1", tag="t")
        for number in (b"2", b"3"):
            await store.image("r", number, young=True)

    written(tmp_path, write)
    said = collect("--root", tmp_path, "-m")
    assert said.lines[-2:] == ["2 unused manifests kept: younger than the grace period of 1:00:00", "freed 0 bytes"]
    assert json.loads(collect("--root", tmp_path, "-m", "-d", "--json").out)["youngManifests"] == 2
    assert "kept" not in collect("--root", tmp_path).out
    assert len(json.loads(collect("--root", tmp_path, "-m", "--json", "--grace-period", "0s").out)["manifests"]) == 2


def test_the_variable_names_the_config(sample: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "config.yml"
    config.write_text(f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {sample.root}}}}}\n")
    monkeypatch.setenv("REGISTRY_CONFIGURATION_PATH", str(config))
    assert "empty repository eligible for deletion: empty" in collect("-d").lines


def test_a_manifest_that_cannot_be_read_is_named(sample: Sample) -> None:
    (sample.root / paths.blob_data(Digest.parse(sample.live))).write_bytes(b"{}")
    ended = collect("--root", sample.root, "-m")
    first, last = ended.err.splitlines()
    actual = Digest.of(b"{}")
    assert first == (
        f"registry: r: manifest {sample.live} cannot be read: its bytes are damaged: they hash to {actual}"
    )
    assert last.startswith("registry: all that the repositories of these manifests hold was kept: ")
    assert ended.status == 1
    assert f"blob eligible for deletion: {sample.junk}" in ended.lines
    forced = collect("--root", sample.root, "-m", "-q", "--force")
    assert (forced.status, forced.out, forced.err.splitlines()) == (0, "", [first])
    assert not (sample.root / paths.blob_data(Digest.parse(sample.layer))).exists()


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--root", "{root}/none"], "{root}/none: no images are kept here, expected a folder that holds "),
        (["--root", "{root}", "--grace-period", "soon"], "command line: --grace-period: expected a duration like "),
        (["--root", "{root}", "--grace-period", "-1h"], "command line: --grace-period: expected a duration like "),
        (["{root}/none.yml"], "{root}/none.yml: No such file or directory"),
    ],
)
def test_a_mistake_is_one_line(sample: Sample, words: list[str], complaint: str) -> None:
    ended = collect(*(word.format(root=sample.root) for word in words))
    assert (ended.status, ended.out) == (1, "")
    assert ended.err.startswith(f"registry: {complaint.format(root=sample.root)}")
    assert ended.err.count("\n") == 1


def test_images_in_memory_are_not_collected(tmp_path: Path) -> None:
    config = tmp_path / "config.yml"
    config.write_text("version: 0.1\nstorage: {inmemory: {}}\n")
    assert collect(config).err.startswith("registry: storage.inmemory: ")


@pytest.mark.parametrize("workers", [1, 2])
def test_a_server_that_may_write_keeps_it_out(registry_server: Serve, workers: int) -> None:
    server = registry_server(workers=workers)
    digest = push_image(server.host, "r", "t", [b"1"])
    with Wire(server.host) as wire:
        wire.ask("DELETE", f"/v2/r/manifests/{digest}", expect=202)
    refused = collect("--root", server.root, "--grace-period", "0s")
    assert (refused.status, refused.out) == (1, "")
    assert refused.err.startswith(
        f"registry: {server.root}: a server that may write, or another collection, is running"
    )
    assert collect("--root", server.root, "--grace-period", "0s", "-d").status == 0
    server.stop()
    assert "empty repository eligible for deletion: r" in collect("--root", server.root, "--grace-period", "0s").lines


def test_a_server_that_only_reads_does_not(registry_server: Serve, sample: Sample) -> None:
    server = registry_server(sample.root, env={"REGISTRY_STORAGE_MAINTENANCE_READONLY": "{enabled: true}"})
    assert collect("--root", sample.root, "-m").status == 0
    with Wire(server.host) as wire:
        assert wire.blob("r", sample.layer) == 1
        wire.ask("GET", f"/v2/r/manifests/{sample.old}", expect=404)


def test_a_collection_keeps_servers_out(
    sample: Sample, registry_server: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def at_work(*_: object) -> None:
        with pytest.raises(RuntimeError, match=r"registry: .*: garbage is being collected: serve read-only, or wait"):
            registry_server(sample.root)

    monkeypatch.setattr("registry.commands.collecting.sweep", at_work)
    assert collect("--root", sample.root).status == 0


def test_a_lock_that_cannot_be_made_is_one_line(sample: Sample) -> None:
    (sample.root / ".layerhouse").write_bytes(b"")
    ended = collect("--root", sample.root)
    assert ended == Ended(1, "", f"registry: {sample.root}/.layerhouse/serving.lock: File exists\n")


def test_images_in_memory_need_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    share(Settings.model_validate({"storage": {"inmemory": {}, "filesystem": {"rootdirectory": "data"}}}))
    assert files(tmp_path) == set()
